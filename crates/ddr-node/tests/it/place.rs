//! A place beside a node, in memory: a registry, or a cache of other registries.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use ddr_node::{Blob, Driver, DriverError, DriverSettings, Given, Limits, Root};
use ddr_oci::{Digest, Reference, RepositoryName, Tag, media_type};
use ddr_store::OutsideBlob;
use ddr_store::disk::DiskFile;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::bed::{content, image};

#[derive(Debug, Default)]
struct Held {
    blobs: BTreeMap<Digest, Bytes>,
    manifests: BTreeMap<(RepositoryName, Digest), Bytes>,
    tags: BTreeMap<(RepositoryName, Tag), Digest>,
    is_dead: bool,
    takes_nothing: bool,
    looks: usize,
    asked: usize,
}

/// See the module comment.
#[derive(Debug)]
pub(crate) struct Place {
    keeps: bool,
    held: Mutex<Held>,
    changed: Notify,
}

impl Place {
    pub(crate) fn new(keeps: bool) -> Arc<Self> {
        Arc::new(Self { keeps, held: Mutex::default(), changed: Notify::new() })
    }

    /// Bounds of a node beside it, which looks at everything only at its start.
    pub(crate) fn beside(self: &Arc<Self>, limits: Limits) -> Limits {
        let driver = Arc::clone(self) as Arc<dyn Driver>;
        let every = Duration::from_secs(3600);
        Limits { driver: Some(DriverSettings { driver, every, copies: false }), ..limits }
    }

    /// Puts an image there behind the node's back.
    pub(crate) fn put_image(
        &self,
        name: &RepositoryName,
        tag: &Tag,
        (seed, len): (u64, usize),
    ) -> (Digest, Vec<(Digest, Bytes)>) {
        let blobs = [content(seed, 300), content(seed + 1, len)];
        let blobs = blobs.map(|bytes| (Digest::sha256(&bytes), bytes));
        let sizes = blobs.iter().map(|(digest, bytes)| (*digest, bytes.len() as u64));
        let manifest = image(&sizes.collect::<Vec<_>>());
        let digest = Digest::sha256(&manifest);
        let mut held = self.held();
        held.blobs.extend(blobs.iter().cloned());
        held.manifests.insert((name.clone(), digest), manifest);
        held.tags.insert((name.clone(), tag.clone()), digest);
        (digest, blobs.to_vec())
    }

    /// Puts a manifest without a tag there, which refers to `subject` and has one blob.
    pub(crate) fn put_referrer(
        &self,
        name: &RepositoryName,
        subject: &Digest,
        blob: &Digest,
    ) -> Digest {
        let json = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": { "mediaType": media_type::OCTET_STREAM, "digest": blob, "size": 300 },
            "layers": [],
            "subject": { "mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 1 },
        });
        let manifest = Bytes::from(json.to_string());
        let digest = Digest::sha256(&manifest);
        self.held().manifests.insert((name.clone(), digest), manifest);
        digest
    }

    pub(crate) fn point(&self, name: &RepositoryName, tag: &Tag, digest: Digest) {
        self.held().tags.insert((name.clone(), tag.clone()), digest);
    }

    pub(crate) fn tag(&self, name: &RepositoryName, tag: &Tag) -> Option<Digest> {
        self.held().tags.get(&(name.clone(), tag.clone())).copied()
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.held().blobs.contains_key(digest)
    }

    pub(crate) fn remove_blob(&self, digest: &Digest) {
        self.held().blobs.remove(digest);
    }

    pub(crate) fn replace_blob(&self, digest: &Digest, bytes: Bytes) {
        self.held().blobs.insert(*digest, bytes);
    }

    pub(crate) fn is_dead(&self, is_dead: bool) {
        self.held().is_dead = is_dead;
    }

    /// From now on it takes no manifest.
    pub(crate) fn takes_nothing(&self) {
        self.held().takes_nothing = true;
    }

    /// Whole looks at it so far.
    pub(crate) fn looks(&self) -> usize {
        self.held().looks
    }

    /// Looks at one image so far.
    pub(crate) fn asked(&self) -> usize {
        self.held().asked
    }

    /// Says that something changed.
    pub(crate) fn tell(&self) {
        self.changed.notify_one();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("unpoisoned")
    }

    fn alive(&self) -> Result<MutexGuard<'_, Held>, DriverError> {
        let held = self.held();
        if held.is_dead { Err(DriverError::Failed("it is dead".into())) } else { Ok(held) }
    }
}

impl Driver for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    fn keeps(&self) -> bool {
        self.keeps
    }

    fn repositories(&self) -> BoxFuture<'_, Result<Vec<RepositoryName>, DriverError>> {
        Box::pin(async move {
            let mut held = self.alive()?;
            held.looks += 1;
            let mut names: Vec<_> = held.tags.keys().map(|(name, _)| name.clone()).collect();
            names.dedup();
            Ok(names)
        })
    }

    fn roots<'a>(
        &'a self,
        name: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Vec<Root>, DriverError>> {
        Box::pin(async move {
            let mut roots: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
            for ((_, tag), digest) in self.alive()?.tags.iter().filter(|((of, _), _)| of == name) {
                let tags = if self.keeps { vec![tag.clone()] } else { Vec::new() };
                roots.entry(*digest).or_default().extend(tags);
            }
            Ok(roots.into_iter().map(|(digest, tags)| Root { digest, tags }).collect())
        })
    }

    fn root<'a>(
        &'a self,
        name: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Root>, DriverError>> {
        Box::pin(async move {
            let mut held = self.alive()?;
            held.asked += 1;
            Ok(match reference {
                Reference::Tag(tag) => {
                    let digest = held.tags.get(&(name.clone(), tag.clone())).copied();
                    digest.map(|digest| Root { digest, tags: vec![tag.clone()] })
                }
                Reference::Digest(digest) => {
                    let is_there = held.manifests.contains_key(&(name.clone(), *digest));
                    is_there.then(|| Root { digest: *digest, tags: Vec::new() })
                }
            })
        })
    }

    fn manifest<'a>(
        &'a self,
        name: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Given>, DriverError>> {
        Box::pin(async move {
            let found = self.alive()?.manifests.get(&(name.clone(), *digest)).cloned();
            Ok(found.map(|bytes| (None, bytes)))
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed.notified())
    }

    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let held = self.alive().map_err(io::Error::other)?;
        let found = held.blobs.get(&blob.digest).cloned();
        Ok(found.map(|bytes| Arc::new(InMemory(bytes)) as Arc<dyn DiskFile>))
    }

    fn put_blob<'a>(
        &'a self,
        _: &'a RepositoryName,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            drop(self.alive()?);
            let mut bytes = Vec::new();
            let mut parts = blob.stream(0..blob.size());
            while let Some(part) = parts.next().await {
                let part = part.map_err(|error| DriverError::Failed(error.to_string()))?;
                bytes.extend_from_slice(&part);
            }
            assert_eq!(Digest::sha256(&bytes), *digest);
            self.alive()?.blobs.insert(*digest, bytes.into());
            Ok(())
        })
    }

    fn put_manifest<'a>(
        &'a self,
        name: &'a RepositoryName,
        reference: &'a Reference,
        _: &'a str,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let digest = Digest::sha256(&bytes);
            let mut held = self.alive()?;
            if held.takes_nothing {
                return Err(DriverError::Unsupported("it takes no manifest".into()));
            }
            held.manifests.insert((name.clone(), digest), bytes);
            if let Reference::Tag(tag) = reference {
                held.tags.insert((name.clone(), tag.clone()), digest);
            }
            Ok(())
        })
    }

    fn delete<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<bool, DriverError>> {
        Box::pin(async { Err(DriverError::Unsupported("it deletes nothing".into())) })
    }
}

/// Bytes as a file.
#[derive(Debug)]
struct InMemory(Bytes);

impl DiskFile for InMemory {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
