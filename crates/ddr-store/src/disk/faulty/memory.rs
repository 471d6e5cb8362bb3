//! A file system in memory that knows which of its bytes and names are durable.
//!
//! It keeps every file and directory twice: as the running process sees it, and as it would be
//! found after a power cut. Between the two stand the operations that no `sync` has covered yet.
//! The rules are the weakest that POSIX allows: `sync` of a file covers its bytes and no name;
//! `sync_dir` covers the names of that one directory; all else may be lost in part, in any
//! order, except that one rename is never seen by half and that two operations on the same name
//! keep their order.

use crate::disk::{Entry, EntryKind};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Number of a file or directory.
pub(super) type Inode = u64;
/// A name in a directory.
type Slot = (Inode, String);

/// The directory that every path starts from.
const ROOT: Inode = 0;
/// Unit that a torn write is lost or kept in, bytes: the sector that disks write whole.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Change {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Names that lead here, as the process sees it.
    links: u32,
}

#[derive(Debug, Clone, Default)]
struct Names {
    live: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
}

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    Directory(Names),
}

/// A change of names: `inode` leaves one slot and enters another (either may be missing).
#[derive(Debug, Clone)]
struct NameChange {
    inode: Inode,
    from: Option<Slot>,
    to: Option<Slot>,
}

impl NameChange {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.from.iter().chain(self.to.iter())
    }
}

/// The file system.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    nodes: BTreeMap<Inode, Node>,
    pending: Vec<NameChange>,
    next: Inode,
    /// Bytes in files that have a name.
    pub(super) used_bytes: u64,
}

impl Memory {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Directory(Names::default()))]);
        Self { nodes, pending: Vec::new(), next: 1, used_bytes: 0 }
    }

    fn names(&self, directory: Inode) -> io::Result<&Names> {
        match self.nodes.get(&directory) {
            Some(Node::Directory(names)) => Ok(names),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names_mut(&mut self, directory: Inode) -> Option<&mut Names> {
        match self.nodes.get_mut(&directory) {
            Some(Node::Directory(names)) => Some(names),
            _ => None,
        }
    }

    pub(super) fn content(&mut self, inode: Inode) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn resolve(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for part in parts(path) {
            at = *self.names(at)?.live.get(part).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn slot(&self, path: &Path) -> io::Result<Slot> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = parts(path).last().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.resolve(parent)?;
        self.names(directory)?;
        Ok((directory, name.to_owned()))
    }

    fn add(&mut self, slot: Slot, node: Node) -> Inode {
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        self.change(NameChange { inode, from: None, to: Some(slot) });
        inode
    }

    /// Applies a change of names to what the process sees, and remembers it as not durable.
    fn change(&mut self, change: NameChange) {
        if let Some((directory, name)) = &change.from
            && let Some(names) = self.names_mut(*directory)
        {
            names.live.remove(name);
        }
        if let Some((directory, name)) = &change.to {
            let replaced = match self.names_mut(*directory) {
                Some(names) => names.live.insert(name.clone(), change.inode),
                None => None,
            };
            if let Some(replaced) = replaced {
                self.unlinked(replaced);
            }
        }
        match (&change.from, &change.to) {
            (None, Some(_)) => self.linked(change.inode),
            (Some(_), None) => self.unlinked(change.inode),
            _ => {}
        }
        self.pending.push(change);
    }

    fn linked(&mut self, inode: Inode) {
        if let Ok(content) = self.content(inode) {
            content.links += 1;
        }
    }

    fn unlinked(&mut self, inode: Inode) {
        let Ok(content) = self.content(inode) else { return };
        content.links -= 1;
        if content.links == 0 {
            let len = content.live.len() as u64;
            self.used_bytes -= len;
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let slot = self.slot(path)?;
        Ok(self.add(slot, Node::File(Content::default())))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for component in path.components() {
            at.push(component);
            match self.resolve(&at) {
                Ok(inode) => {
                    self.names(inode)?;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let slot = self.slot(&at)?;
                    self.add(slot, Node::Directory(Names::default()));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let names = self.names(self.resolve(path)?)?;
        let entry = |(name, inode): (&String, &Inode)| {
            let (kind, len) = match self.nodes.get(inode) {
                Some(Node::File(content)) => (EntryKind::File, content.live.len() as u64),
                _ => (EntryKind::Directory, 0),
            };
            Entry { name: name.clone(), kind, len, path: path.join(name) }
        };
        Ok(names.live.iter().map(entry).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.resolve(from)?;
        let (from, to) = (self.slot(from)?, self.slot(to)?);
        if from == to {
            return Ok(());
        }
        let over = self.names(to.0)?.live.get(&to.1).copied();
        if let Some(over) = over
            && self.names(over).is_ok()
        {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(NameChange { inode, from: Some(from), to: Some(to) });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.resolve(path)?;
        if let Ok(names) = self.names(inode)
            && !names.live.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let slot = self.slot(path)?;
        self.change(NameChange { inode, from: Some(slot), to: None });
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.resolve(path)?;
        self.names(directory)?;
        self.make_durable(|change| change.slots().any(|slot| slot.0 == directory));
        Ok(())
    }

    /// Makes the chosen changes of names durable, and the earlier ones on the same names.
    fn make_durable(&mut self, mut chosen: impl FnMut(&NameChange) -> bool) {
        let mut slots = BTreeSet::new();
        let mut apply = Vec::new();
        let mut keep = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            if change.slots().any(|slot| slots.contains(slot)) || chosen(&change) {
                slots.extend(change.slots().cloned());
                apply.push(change);
            } else {
                keep.push(change);
            }
        }
        keep.reverse();
        self.pending = keep;
        for change in apply.into_iter().rev() {
            if let Some((directory, name)) = &change.from
                && let Some(names) = self.names_mut(*directory)
                && names.durable.get(name) == Some(&change.inode)
            {
                names.durable.remove(name);
            }
            if let Some((directory, name)) = change.to
                && let Some(names) = self.names_mut(directory)
            {
                names.durable.insert(name, change.inode);
            }
        }
    }

    /// Loses what is not durable: all of it, none of it, or a part that `seed` chooses.
    pub(super) fn power_cut(&mut self, seed: u64) {
        let mut random = SplitMix(seed);
        let policy = Policy::from_seed(seed);
        let kept = self.pending.iter().map(|_| policy.keep(&mut random)).collect::<Vec<_>>();
        let mut kept = kept.into_iter().rev();
        self.make_durable(|_| kept.next().unwrap_or(false));
        for node in self.nodes.values_mut() {
            if let Node::File(content) = node {
                content.power_cut(policy, &mut random);
            }
        }
        self.forget_unsynced();
    }

    /// Operations that no sync has covered: changes of names, then those of each file.
    pub(super) fn unsynced(&self) -> usize {
        let in_files = self.nodes.values().map(|node| match node {
            Node::File(content) => content.pending.len(),
            Node::Directory(_) => 0,
        });
        self.pending.len() + in_files.sum::<usize>()
    }

    /// Makes the chosen ones of [`Memory::unsynced`] durable, each as a whole; where the `power`
    /// is cut the others are lost, else they stay unsynced.
    pub(super) fn cut(&mut self, keep: &[bool], power: bool) {
        let (names, mut files) = keep.split_at(self.pending.len());
        let mut names = names.iter().rev();
        self.make_durable(|_| names.next().copied().unwrap_or(false));
        for node in self.nodes.values_mut() {
            let Node::File(content) = node else { continue };
            for change in std::mem::take(&mut content.pending) {
                let (first, rest) = files.split_first().unwrap_or((&false, &[]));
                files = rest;
                if *first {
                    change.apply(&mut content.durable);
                } else if !power {
                    content.pending.push(change);
                }
            }
        }
        if power {
            self.forget_unsynced();
        }
    }

    /// What is left after a power cut is what was durable.
    fn forget_unsynced(&mut self) {
        self.pending.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(content) => content.live.clone_from(&content.durable),
                Node::Directory(names) => names.live.clone_from(&names.durable),
            }
        }
        self.recount();
    }

    /// Counts names and bytes again, and forgets what no name leads to.
    fn recount(&mut self) {
        let mut reached = BTreeMap::<Inode, u32>::from([(ROOT, 1)]);
        let mut open = vec![ROOT];
        while let Some(directory) = open.pop() {
            let Ok(names) = self.names(directory) else { continue };
            for inode in names.live.values() {
                *reached.entry(*inode).or_default() += 1;
                open.push(*inode);
            }
        }
        self.nodes.retain(|inode, _| reached.contains_key(inode));
        self.used_bytes = 0;
        for (inode, node) in &mut self.nodes {
            if let Node::File(content) = node {
                content.links = reached.get(inode).copied().unwrap_or(0);
                self.used_bytes += content.live.len() as u64;
            }
        }
    }
}

impl Content {
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.live.len());
        let n = buffer.len().min(self.live.len() - start);
        buffer[..n].copy_from_slice(&self.live[start..start + n]);
        n
    }

    pub(super) fn len(&self) -> u64 {
        self.live.len() as u64
    }

    pub(super) fn has_name(&self) -> bool {
        self.links > 0
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let change = Change::Bytes { offset, bytes: bytes.to_vec() };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.pending.push(Change::Length(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn power_cut(&mut self, policy: Policy, random: &mut SplitMix) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Length(_) => {
                    if policy.keep(random) {
                        change.apply(&mut self.durable);
                    }
                }
                Change::Bytes { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                        let end = sector_end.min(bytes.len());
                        if policy.keep(random) {
                            let part = bytes[at..end].to_vec();
                            Change::Bytes { offset: offset + at, bytes: part }
                                .apply(&mut self.durable);
                        }
                        at = end;
                    }
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(len) => to.resize(*len, 0),
            Self::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

/// What a power cut does with an operation that no sync has covered.
#[derive(Debug, Clone, Copy)]
enum Policy {
    LoseAll,
    KeepAll,
    Choose,
}

impl Policy {
    /// Seeds 0 and 1 are the two extremes, all others choose.
    fn from_seed(seed: u64) -> Self {
        match seed {
            0 => Self::LoseAll,
            1 => Self::KeepAll,
            _ => Self::Choose,
        }
    }

    fn keep(self, random: &mut SplitMix) -> bool {
        match self {
            Self::LoseAll => false,
            Self::KeepAll => true,
            Self::Choose => random.next() & 1 == 1,
        }
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn parts(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => part.to_str(),
        _ => None,
    })
}
