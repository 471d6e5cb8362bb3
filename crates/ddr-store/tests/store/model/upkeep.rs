//! What the collection of garbage and the verification make of the model, whole, broken off by a
//! failed operation, or cut off with the power.

use super::{LENGTHS, MANIFESTS, Model, REPOSITORIES, digest, name};
use crate::support::{names, open, path};
use ddr_oci::Digest;
use ddr_store::disk::FaultyDisk;
use ddr_store::{GcOptions, GcReport, IndexError, Store, VerifyOptions};
use std::collections::BTreeSet;

/// How a run is disturbed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    None,
    /// The operation after so many fails.
    Fails(u64),
    /// The power goes after so many operations; what was not synced stays in part.
    PowerCut(u64, u64),
}

fn collect(store: &Store, untagged: bool) -> Result<GcReport, IndexError> {
    // A millisecond more than every use so far.
    let now_ms = ddr_store::now_ms() + 1;
    store.gc(GcOptions { now_ms, untagged, ..GcOptions::default() }).run()
}

fn file_of(digest: &Digest) -> std::path::PathBuf {
    let hex = digest.hex();
    path(&format!("blobs/{}/{}/{hex}", digest.algorithm().name(), &hex[..2]))
}

impl Model {
    /// Runs a collection, disturbed or not; after one more the store must be what it should.
    pub(super) fn gc(&mut self, store: Store, disk: &FaultyDisk, run: (bool, Fault)) -> Store {
        let (untagged, fault) = run;
        let store = match fault {
            Fault::None => store,
            Fault::Fails(after) => {
                disk.fail_after(Some(after));
                let _ = collect(&store, untagged);
                disk.fail_after(None);
                store
            }
            Fault::PowerCut(after, seed) => {
                // What of a session is not synced may be lost, which is not of interest here.
                for session in self.sessions.drain(..) {
                    store.upload(&name(session.repository), &session.id).unwrap().cancel();
                }
                self.pins.clear();
                disk.crash_after(after);
                let _ = collect(&store, untagged);
                drop(store);
                disk.power_cut(seed);
                self.chains_in_doubt.extend(self.blobs.keys());
                let store = open(disk);
                // Nothing promises that the end of a session is durable.
                for id in names(disk, "uploads") {
                    for r in 0..REPOSITORIES.len() {
                        if let Ok(back) = store.upload(&name(r), &id) {
                            back.cancel();
                        }
                    }
                }
                store
            }
        };
        collect(&store, untagged).unwrap();
        self.collected(untagged);
        store
    }

    /// What is left after a run without a grace window.
    fn collected(&mut self, untagged: bool) {
        self.ended_leases.clear();
        if untagged {
            for r in 0..REPOSITORIES.len() {
                let tagged = |m: usize| self.tags.iter().any(|((of, _), t)| *of == r && *t == m);
                // What is not here may be tagged elsewhere.
                let subject = !self.revisions.contains(&(r, 0)) || tagged(0);
                let gone = (0..MANIFESTS).filter(|m| !(tagged(*m) || (*m > 0 && subject)));
                for m in gone.collect::<Vec<_>>() {
                    self.revisions.remove(&(r, m));
                }
            }
        }
        let (leases, pins) = (&self.leases, &self.pins);
        let held = |d: &Digest| leases.contains(d) || pins.contains_key(d);
        let revisions = &self.revisions;
        self.links.retain(|(r, d)| {
            held(d)
                || (0..MANIFESTS).any(|m| revisions.contains(&(*r, m)) && digest(m, false) == *d)
        });
        let linked = self.links.iter().map(|(_, d)| *d).collect::<BTreeSet<_>>();
        self.blobs.retain(|d, _| linked.contains(d) || held(d));
    }

    /// Verifies the store, maybe after a bit of one blob has flipped.
    pub(super) fn verify(&mut self, store: &Store, disk: &FaultyDisk, rot: Option<usize>) {
        let rotten = rot.map(|content| digest(content, false));
        let rotten = rotten.filter(|d| self.blobs.get(d).is_some_and(|c| LENGTHS[*c] > 0));
        if let Some(digest) = &rotten {
            let mut bytes = disk.peek(&file_of(digest)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            disk.plant(&file_of(digest), &bytes).unwrap();
            self.blobs.remove(digest);
            self.has_rotted = true;
            if self.links.iter().any(|(_, d)| d == digest) {
                self.lost.insert(*digest);
            }
        }
        let report = store.verify(VerifyOptions::default()).run().unwrap();
        assert_eq!(report.corrupt_digests, rotten.into_iter().collect::<Vec<_>>());
        assert_eq!(report.blobs, (self.blobs.len() + usize::from(rotten.is_some())) as u64);
        assert_eq!(report.manifests, self.revisions.len() as u64);
        assert_eq!(report.rows_repaired, 0);
        let in_doubt = std::mem::take(&mut self.chains_in_doubt).len() as u64;
        assert!(report.chains_repaired <= in_doubt, "{} chains repaired", report.chains_repaired);
        assert_eq!((report.unknown_files, report.manifests_without_bytes), (0, 0));
        let dangling = self.links.iter().filter(|(_, d)| !self.blobs.contains_key(d)).count();
        assert_eq!(report.links_without_content, dangling as u64);
        let is_orphan = |d: &Digest| {
            let linked = self.links.iter().any(|(_, l)| l == d);
            !linked && !self.leases.contains(d) && !self.ended_leases.contains(d)
        };
        assert_eq!(report.orphans, self.blobs.keys().filter(|d| is_orphan(d)).count() as u64);
    }

    /// What is lost is known until it is back or nobody links it any more.
    pub(super) fn check_lost(&mut self, store: &Store) {
        let links = &self.links;
        let blobs = &self.blobs;
        self.lost.retain(|d| !blobs.contains_key(d) && links.iter().any(|(_, l)| l == d));
        let lost = self.lost.iter().copied().collect::<Vec<_>>();
        assert_eq!(store.lost(100).unwrap(), lost);
    }

    /// Keeps content in memory, or lets it go.
    pub(super) fn pin(&mut self, store: &Store, content: usize) {
        let digest = digest(content, false);
        if self.pins.remove(&digest).is_none() {
            self.pins.insert(digest, store.pin(&digest, 0));
        }
    }
}

/// Notes a use, which changes nothing that can be seen.
pub(super) fn touch(store: &Store, repository: usize, content: usize) {
    store.touch(&name(repository), &digest(content, false));
    store.write_touches().unwrap();
}
