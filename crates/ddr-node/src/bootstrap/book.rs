//! The address book: nodes that were met, for the next start and for the day the swarm is torn.
//!
//! Invariants:
//! - at most [`MAX_ENTRIES`] nodes, so the file is at most [`MAX_BOOK_BYTES`] long;
//! - a newcomer is taken while fewer than [`MAX_FRESH`] were heard lately, so those that fell silent
//!   keep their places: when the network tears, the other half stays in the book, whatever its size;
//! - of the silent ones the [`MAX_SILENT`] heard last stay, for [`FORGOTTEN_AFTER_MS`];
//! - a node that said goodbye stays, too: most come back where they were, after an upgrade.
//!
//! The file is a hint and no more: a damaged one is put aside in words, never an error.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ddr_proto::id::NodeId;
use ddr_proto::wire::Contact;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;

/// Nodes in the book.
pub(crate) const MAX_ENTRIES: usize = MAX_FRESH + MAX_SILENT;
/// Nodes heard lately from which on no newcomer is taken.
const MAX_FRESH: usize = 128;
/// Nodes that fell silent and are kept.
const MAX_SILENT: usize = 128;
/// Not heard for so long, a node counts as silent.
const SILENT_AFTER_MS: u64 = 10 * 60_000;
/// Not heard for so long, it is forgotten.
const FORGOTTEN_AFTER_MS: u64 = 7 * 24 * 60 * 60_000;
/// Bytes of the file.
const MAX_BOOK_BYTES: u64 = 256 * 1024;
/// Form of the file.
const FORMAT: u32 = 1;

/// See the module comment.
pub(crate) struct Book {
    clock: Clock,
    entries: Mutex<BTreeMap<NodeId, Entry>>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Entry {
    contact: Contact,
    /// Unix milliseconds.
    heard_ms: u64,
}

#[derive(Deserialize, Serialize)]
struct Saved {
    format: u32,
    peers: Vec<Entry>,
}

impl Book {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node was heard just now.
    pub(crate) fn heard(&self, contact: &Contact) {
        let heard_ms = self.clock.now_ms();
        let mut entries = self.entries();
        let fresh = |entry: &&Entry| heard_ms.saturating_sub(entry.heard_ms) < SILENT_AFTER_MS;
        let full = || entries.values().filter(fresh).count() >= MAX_FRESH;
        if entries.contains_key(&contact.id) || !full() {
            entries.insert(contact.id, Entry { contact: contact.clone(), heard_ms });
        }
        trim(&mut entries, heard_ms);
    }

    /// All nodes in the book, the one heard last first.
    pub(crate) fn contacts(&self) -> Vec<Contact> {
        let mut all: Vec<Entry> = self.entries().values().cloned().collect();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.heard_ms));
        all.into_iter().map(|entry| entry.contact).collect()
    }

    /// Writes the book in one step; what was there before stays until then. Blocks.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let peers = self.entries().values().cloned().collect();
        let bytes = serde_json::to_vec(&Saved { format: FORMAT, peers })?;
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    }

    /// Takes in what an earlier run wrote; nothing when it cannot be used, which is logged. Blocks.
    pub(crate) fn load(&self, path: &Path) {
        match read(path) {
            Ok(saved) => {
                let now_ms = self.clock.now_ms();
                let good = |entry: &Entry| {
                    entry.contact.check_limits().is_ok() && entry.contact.is_dialable()
                };
                let peers = saved.into_iter().filter(good).take(MAX_ENTRIES);
                // A clock that went back must not make anybody younger than now.
                let peers = peers.map(|mut entry| {
                    entry.heard_ms = entry.heard_ms.min(now_ms);
                    (entry.contact.id, entry)
                });
                let mut entries = self.entries();
                entries.extend(peers);
                trim(&mut entries, now_ms);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the saved peers cannot be used; going on without");
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BOOK_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BOOK_BYTES {
        return Err(io::Error::other("the file is too long"));
    }
    let saved: Saved = serde_json::from_slice(&bytes)?;
    match saved.format {
        FORMAT => Ok(saved.peers),
        other => Err(io::Error::other(format!("the file has format {other}"))),
    }
}

/// Lets go of whom nobody heard for too long, and of the oldest silent ones above their number.
fn trim(entries: &mut BTreeMap<NodeId, Entry>, now_ms: u64) {
    let age_ms = |entry: &Entry| now_ms.saturating_sub(entry.heard_ms);
    entries.retain(|_, entry| age_ms(entry) < FORGOTTEN_AFTER_MS);
    let silent = |entry: &&Entry| age_ms(entry) >= SILENT_AFTER_MS;
    let mut ages: Vec<(u64, NodeId)> =
        entries.values().filter(silent).map(|entry| (age_ms(entry), entry.contact.id)).collect();
    ages.sort_unstable();
    for (_, oldest) in ages.split_off(ages.len().min(MAX_SILENT)) {
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn contact(number: u16) -> Contact {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let addrs = vec![([192, 0, 2, 1], 1 + number).into()];
        Contact { id: NodeId(id), addrs, zone: "z".to_owned() }
    }

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_half_of_a_torn_swarm_stays_in_the_book() {
        let book = Book::new(Clock::start());
        (0..100).for_each(|number| book.heard(&contact(number)));
        for _ in 0..30 {
            pass(SILENT_AFTER_MS / 3).await;
            (50..1000).for_each(|number| book.heard(&contact(number)));
        }
        let kept = book.contacts();
        assert!((0..50).all(|number| kept.contains(&contact(number))), "silent, and kept");
        assert_eq!(kept.len(), 50 + MAX_FRESH);
        assert!(kept[MAX_FRESH..].contains(&contact(0)), "the freshest come first");
    }

    #[tokio::test(start_paused = true)]
    async fn the_book_is_bounded_and_forgets() {
        let book = Book::new(Clock::start());
        for round in 0..5 {
            (0..200).for_each(|number| book.heard(&contact(1_000 * round + number)));
            assert!(book.contacts().len() <= MAX_ENTRIES);
            pass(SILENT_AFTER_MS).await;
        }
        pass(FORGOTTEN_AFTER_MS).await;
        book.heard(&contact(9));
        assert_eq!(book.contacts(), [contact(9)]);
    }

    #[tokio::test]
    async fn what_is_saved_is_read_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("peers.json");
        let book = Book::new(Clock::start());
        (0..MAX_FRESH as u16 + 9).for_each(|number| book.heard(&contact(number)));
        book.save(&path).expect("saved");
        assert!(fs::metadata(&path).expect("a file").len() <= MAX_BOOK_BYTES / 2);
        let again = |bytes: Option<Vec<u8>>| {
            if let Some(bytes) = bytes {
                fs::write(&path, bytes).expect("written");
            }
            let book = Book::new(Clock::start());
            book.load(&path);
            book.contacts().len()
        };
        let bytes = fs::read(&path).expect("a file");
        assert_eq!(again(None), MAX_FRESH);
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(again(Some(bytes[..cut].to_vec())), 0, "cut at {cut}");
        }
        assert_eq!(again(Some(b"{\"format\":2,\"peers\":[]}".to_vec())), 0);
        assert_eq!(again(Some(vec![b' '; MAX_BOOK_BYTES as usize + 1])), 0);
        let bad =
            String::from_utf8(bytes).expect("text").replacen("192.0.2.1:1\"", "0.0.0.0:1\"", 1);
        assert_eq!(again(Some(bad.into_bytes())), MAX_FRESH - 1, "one cannot be dialled");
        fs::remove_file(&path).expect("removed");
        assert_eq!(again(None), 0);
    }
}
