//! What all tests here share: names, content, and short ways to store it.

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_store::disk::FaultyDisk;
use ddr_store::{BlobReader, ManifestEntry, OpenError, Store, StoreConfig, UploadError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The data directory on a [`FaultyDisk`].
pub(crate) const ROOT: &str = "/var/lib/ddr";
/// Bytes that a test appends at once.
const CHUNK_BYTES: usize = 60_000;

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

pub(crate) fn try_open(disk: &FaultyDisk) -> Result<Store, OpenError> {
    Store::open(StoreConfig { root: ROOT.into(), disk: Arc::new(disk.clone()) })
}

pub(crate) fn open(disk: &FaultyDisk) -> Store {
    try_open(disk).expect("the store opens")
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    name.parse().expect("a valid repository")
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().expect("a valid tag")
}

/// Bytes that look random and depend on `seed` and every position.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn push(
    store: &Store,
    repository: &RepositoryName,
    bytes: &[u8],
) -> Result<Digest, UploadError> {
    let digest = Digest::sha256(bytes);
    let id = store.begin_upload(repository)?;
    let mut upload = store.upload(repository, &id)?;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        upload.append(chunk)?;
    }
    upload.commit(&digest)?;
    Ok(digest)
}

pub(crate) fn fetch(store: &Store, bytes: &[u8]) -> Result<Digest, UploadError> {
    let digest = Digest::sha256(bytes);
    let mut fetch = store.begin_fetch(&digest)?;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        fetch.append(chunk)?;
    }
    fetch.commit()?;
    Ok(digest)
}

pub(crate) fn read(reader: &BlobReader) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(reader.size()).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        let n = reader.read_at(done as u64, &mut bytes[done..]).unwrap();
        assert!(n > 0, "a blob ends before its size");
        done += n;
    }
    assert_eq!(reader.read_at(done as u64, &mut [0]).unwrap(), 0);
    bytes
}

/// All bytes of a blob, if the store has it.
pub(crate) fn blob(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    store.blob(digest).unwrap().map(|reader| read(&reader))
}

pub(crate) fn manifest(
    bytes: &[u8],
    children: &[Digest],
    subject: Option<Digest>,
) -> ManifestEntry {
    let digest = Digest::sha256(bytes);
    ManifestEntry {
        digest,
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: bytes.to_vec(),
        children: children.to_vec(),
        subject: subject.map(|subject| (subject, format!("{{\"digest\":\"{digest}\"}}").into())),
    }
}

/// Names in a directory of the store.
pub(crate) fn names(disk: &FaultyDisk, directory: &str) -> Vec<String> {
    use ddr_store::disk::Disk;
    disk.list(&path(directory)).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Every blob that is served has its digest and its chain, and no leftover is in the way.
pub(crate) fn check_sound(store: &Store, disk: &FaultyDisk, context: &str) {
    check_served(store, context);
    assert!(names(disk, "quarantine").is_empty(), "{context}: something was put aside");
}

/// Every blob that is served has its digest and its chain.
pub(crate) fn check_served(store: &Store, context: &str) {
    for (digest, size) in store.blobs().unwrap() {
        let bytes = blob(store, &digest).unwrap_or_else(|| panic!("{context}: {digest} is lost"));
        assert_eq!(bytes.len() as u64, size, "{context}");
        assert_eq!(Digest::of(digest.algorithm(), &bytes), digest, "{context}: a wrong blob");
        if let Some(chain) = store.piece_chain(&digest).unwrap() {
            let last = chain.pieces() - 1;
            for piece in 0..last {
                let range = chain.piece_range(piece).unwrap();
                let range =
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                assert!(chain.verify_piece(piece, &bytes[range]), "{context}: piece {piece}");
            }
            let tail = usize::try_from(chain.piece_range(last).unwrap().start).unwrap();
            assert!(chain.proves(&digest, &bytes[tail..]), "{context}: the last piece");
        }
    }
}
