//! What this node fetches: blobs that start, change and end.

use super::asking::Group;
use super::blob::{BlobIx, Fetch, wanted_bits};
use super::io::{Class, GroupId, Output, Wanted};
use super::{MAX_GROUP_BLOBS, Swarm};
use crate::id::Key;

impl Swarm {
    pub(super) fn on_fetch(
        &mut self,
        key: Key,
        size: u64,
        (group, class): (GroupId, Class),
        wanted: &Wanted,
        have: &[u32],
    ) {
        let Some(ix) = self.admit_blob(key, size) else { return };
        let blob = self.blob_mut(ix);
        let wanted = wanted_bits(wanted, blob.pieces());
        if let Some(fetch) = &mut blob.fetch {
            (fetch.wanted, fetch.class) = (wanted, class);
            let group = fetch.group;
            self.classify(group);
            return self.stir(ix);
        }
        for piece in have {
            blob.gain(*piece as usize);
        }
        if blob.is_complete() {
            self.outputs.push_back(Output::Complete { blob: key });
            return self.touch(ix);
        }
        let blob = self.blob_mut(ix);
        blob.fetch = Some(Fetch::new(group, class, wanted));
        self.groups.entry(group).or_insert_with(|| Group::new(class)).blobs.push(ix);
        self.classify(group);
        self.look_for_holders(ix);
        self.greet(ix);
        self.ask_for_chains(ix);
        self.stir(ix);
        self.touch(ix);
    }

    /// A group is as urgent as the most urgent of its blobs.
    fn classify(&mut self, group: GroupId) {
        let Some(row) = self.groups.get(&group) else { return };
        let fetches = row.blobs.iter().filter_map(|ix| self.blob(*ix).fetch.as_ref());
        let class = fetches.map(|fetch| fetch.class).max().unwrap_or_default();
        if let Some(row) = self.groups.get_mut(&group) {
            row.class = class;
        }
    }

    pub(super) fn on_want(&mut self, key: &Key, wanted: &Wanted) {
        let Some(ix) = self.find(key) else { return };
        let blob = self.blob_mut(ix);
        let bits = wanted_bits(wanted, blob.pieces());
        if let Some(fetch) = &mut blob.fetch {
            fetch.wanted = bits;
            self.stir(ix);
        }
    }

    pub(super) fn on_client_at(&mut self, key: &Key, readers: &[u32]) {
        let Some(ix) = self.find(key) else { return };
        if let Some(fetch) = &mut self.blob_mut(ix).fetch {
            fetch.read_at(readers);
            self.stir(ix);
        }
    }

    pub(super) fn on_stop(&mut self, key: &Key) {
        let Some(ix) = self.find(key) else { return };
        self.end_fetch(ix);
        self.touch(ix);
    }

    /// The blob is not here any more.
    pub(super) fn on_drop(&mut self, key: &Key) {
        let Some(ix) = self.find(key) else { return };
        self.end_fetch(ix);
        self.forget_blob(ix);
    }

    /// No more is asked for of this blob; what is under way is broken off.
    pub(super) fn end_fetch(&mut self, ix: BlobIx) {
        let asks: Vec<_> =
            self.asks.iter().filter(|(_, ask)| ask.blob == ix).map(|a| *a.0).collect();
        asks.into_iter().for_each(|ask| self.cancel(ask));
        let Some(fetch) = self.blob_mut(ix).fetch.take() else { return };
        let Some(group) = self.groups.get_mut(&fetch.group) else { return };
        group.blobs.retain(|other| *other != ix);
        if group.blobs.is_empty() && group.asks == 0 {
            self.groups.remove(&fetch.group);
        }
        self.classify(fetch.group);
        self.dirty.push(fetch.group);
    }

    /// Lets go of everything that is known of a blob; its neighbours are told.
    pub(super) fn forget_blob(&mut self, ix: BlobIx) {
        let key = self.blob(ix).key;
        let links: Vec<_> = self.blob(ix).links.iter().map(|link| link.peer).collect();
        for peer in links {
            self.part_from(ix, peer, Vec::new());
        }
        for upload in self.uploads.values_mut().filter(|upload| upload.blob == Some(ix)) {
            upload.blob = None;
        }
        self.timers.remove(&(self.blob(ix).wake, ix));
        self.touched.retain(|other| *other != ix);
        self.by_key.remove(&key);
        self.blobs[ix] = None;
        self.free.push(ix);
    }

    /// The blobs of a group that are asked for now, in order.
    pub(super) fn row(&self, group: GroupId) -> impl Iterator<Item = BlobIx> + '_ {
        let blobs = self.groups.get(&group).map_or(&[][..], |group| &group.blobs);
        blobs.iter().copied().take(MAX_GROUP_BLOBS)
    }
}
