//! What is due by time alone.

use super::asking::Group;
use super::blob::{Blob, BlobIx};
use super::peers::PeerIx;
use super::{HELLO_MS, IDLE_HOLD_MS, Swarm};
use crate::time::Timestamp;

const NEVER: Timestamp = Timestamp(u64::MAX);

impl Swarm {
    /// Does what is due.
    pub(super) fn run_due(&mut self) {
        self.give_up_stalled();
        while let Some((at, ix)) = self.timers.first().copied()
            && at <= self.now
        {
            self.timers.pop_first();
            self.blob_mut(ix).wake = NEVER;
            self.run_blob(ix);
        }
    }

    fn run_blob(&mut self, ix: BlobIx) {
        if self.is_idle(ix) {
            return self.forget_blob(ix);
        }
        self.tell(ix);
        self.give_up_greetings(ix);
        self.give_up_chains(ix);
        if self.lacks_neighbours(ix) && self.blob(ix).look_at <= self.now {
            self.shed_useless(ix);
            self.look_for_holders(ix);
            let claims = &mut self.blob_mut(ix).claims;
            if claims.uneasy || claims.used().is_none() {
                claims.asked.clear();
            }
        }
        self.greet(ix);
        self.ask_for_chains(ix);
        self.stir(ix);
        self.touch(ix);
    }

    fn is_idle(&self, ix: BlobIx) -> bool {
        let blob = self.blob(ix);
        let quiet = self.now.since_ms(blob.used_at) >= IDLE_HOLD_MS;
        let served = || self.uploads.values().any(|upload| upload.blob == Some(ix));
        blob.fetch.is_none() && quiet && !served()
    }

    /// Who has not answered a `Hello` is not waited for.
    fn give_up_greetings(&mut self, ix: BlobIx) {
        let silent = self
            .blob(ix)
            .links
            .iter()
            .filter(|link| !link.up && self.now.since_ms(link.since) >= HELLO_MS);
        let silent: Vec<PeerIx> = silent.map(|link| link.peer).collect();
        for peer in silent {
            let id = self.peers.get(peer).contact.id;
            self.unlink(ix, peer);
            self.peers.lost(id, self.now);
            self.blob_mut(ix).remove_rival(&id);
        }
    }

    /// Sets the timers of the blobs in which something has changed.
    pub(super) fn set_timers(&mut self) {
        while let Some(ix) = self.touched.pop() {
            let Some(blob) = self.blobs[ix].as_ref() else { continue };
            let (old, new) = (blob.wake, self.wake_of(ix, blob));
            if old != new {
                self.timers.remove(&(old, ix));
                if new != NEVER {
                    self.timers.insert((new, ix));
                }
                self.blob_mut(ix).wake = new;
            }
        }
    }

    /// When something is to be done for a blob if nothing happens before.
    fn wake_of(&self, ix: BlobIx, blob: &Blob) -> Timestamp {
        let mut wake = NEVER;
        let mut at = |moment: Timestamp| wake = wake.min(moment.max(self.now.after_ms(1)));
        if !blob.news.is_empty() {
            at(blob.told_at.after_ms(self.cfg.have_delay_ms));
        }
        let greeted = blob.links.iter().filter(|link| !link.up).map(|link| link.since);
        greeted.for_each(|since| at(since.after_ms(HELLO_MS)));
        let Some(fetch) = &blob.fetch else {
            at(blob.used_at.after_ms(IDLE_HOLD_MS));
            return wake;
        };
        if self.lacks_neighbours(ix) {
            at(blob.look_at);
        }
        self.proof_wakes_at(ix).into_iter().for_each(&mut at);
        if let Some(group) = self.groups.get(&fetch.group) {
            self.wake_of_group(group, blob).into_iter().for_each(&mut at);
            if let Some((_, _, slow_at)) = self.slow_gap(fetch.group) {
                at(slow_at);
            }
        }
        wake
    }

    /// When a group that has room may find something to ask for.
    fn wake_of_group(&self, group: &Group, blob: &Blob) -> Option<Timestamp> {
        group.hungry_since?;
        let peers = blob.up().map(|link| self.peers.get(link.peer).busy_until);
        let free = peers.filter(|until| *until > self.now).min();
        let cross = blob.crossing.as_ref().and_then(|crossing| crossing.next_at());
        free.into_iter().chain(cross.filter(|at| *at > self.now)).min()
    }
}
