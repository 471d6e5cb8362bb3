//! What a worker does with manifests and tags, and all that it deletes and reads.

use std::io;
use std::sync::atomic::Ordering;

use super::content::digest_of;
use super::model::{Key, Value};
use super::worker::{Manifest, Shared, Worker};
use crate::wire::Connection;

/// Layers of one manifest, at most.
const MAX_LAYERS: usize = 3;

/// One of so many manifests refers to another one as its subject.
const SUBJECT_ONE_IN: usize = 3;

/// Media type of all manifests.
pub(super) const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

impl Worker {
    /// PUT of a new manifest of blobs that are there: by a tag or by its digest.
    pub(super) fn put_manifest(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        tagged: bool,
    ) -> io::Result<()> {
        let repository = self.some_repository();
        let Some(manifest) = self.new_manifest(&repository) else {
            return self.push_in_two(connection, shared);
        };
        let digest = digest_of(&manifest.bytes);
        self.manifests.insert(digest.clone(), manifest);
        let tag = tagged.then(|| self.some_tag(&repository));
        self.put(connection, shared, &repository, &digest, tag)
    }

    /// PUT of a manifest that is there already, by a tag that may point elsewhere.
    pub(super) fn move_tag(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
    ) -> io::Result<()> {
        let manifests = self.present(|k| matches!(k, Key::Manifest { .. }));
        let Some(Key::Manifest { repository, digest }) = self.pick(&manifests) else {
            return self.put_manifest(connection, shared, true);
        };
        // Its blobs may have been deleted since; then it may be refused.
        if !self.children_present(&repository, &digest) {
            return Ok(());
        }
        let tag = self.some_tag(&repository);
        self.put(connection, shared, &repository, &digest, Some(tag))
    }

    fn put(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        repository: &str,
        digest: &str,
        tag: Option<Key>,
    ) -> io::Result<()> {
        let value: Value = Some(digest.to_owned());
        let key = Key::Manifest { repository: repository.to_owned(), digest: digest.to_owned() };
        self.begin(&key, &value);
        if let Some(tag) = &tag {
            self.begin(tag, &value);
        }
        let target = tag.as_ref().unwrap_or(&key).target();
        let kind = format!("Content-Type: {MEDIA_TYPE}");
        let bytes = self.manifests[digest].bytes.clone();
        connection.send("PUT", &target, &[&kind], Some(&bytes))?;
        shared.commits.fetch_add(1, Ordering::SeqCst);
        let answer = connection.receive()?;
        if answer.head.status != 201 {
            self.refused("push", tag.as_ref().unwrap_or(&key), &answer);
            return Ok(());
        }
        self.done(&key, &value);
        if let Some(tag) = tag {
            self.done(&tag, &value);
        }
        Ok(())
    }

    /// DELETE of a tag: the manifest stays.
    pub(super) fn delete_tag(&mut self, connection: &mut Connection) -> io::Result<()> {
        let tags = self.present(|k| matches!(k, Key::Tag { .. }));
        let Some(tag) = self.pick(&tags) else { return Ok(()) };
        self.delete(connection, &tag, &[])
    }

    /// DELETE of a manifest: its tags go with it.
    pub(super) fn delete_manifest(&mut self, connection: &mut Connection) -> io::Result<()> {
        let manifests = self.present(|k| matches!(k, Key::Manifest { .. }));
        let Some(key) = self.pick(&manifests) else { return Ok(()) };
        let Key::Manifest { repository, digest } = &key else { return Ok(()) };
        let of_it = |k: &&Key| {
            matches!(k, Key::Tag { repository: r, .. } if r == repository)
                && self.model.may_hold(k, digest)
        };
        let tags: Vec<Key> = self.model.keys().filter(of_it).cloned().collect();
        self.delete(connection, &key, &tags)
    }

    /// DELETE of a blob, whether or not a manifest names it.
    pub(super) fn delete_blob(&mut self, connection: &mut Connection) -> io::Result<()> {
        let blobs = self.present(|k| matches!(k, Key::Blob { .. }));
        let Some(blob) = self.pick(&blobs) else { return Ok(()) };
        self.delete(connection, &blob, &[])
    }

    /// `with` goes together with `key`, at once or one after the other.
    fn delete(&mut self, connection: &mut Connection, key: &Key, with: &[Key]) -> io::Result<()> {
        for one in with.iter().chain([key]) {
            self.begin(one, &None);
        }
        let answer = connection.ask("DELETE", &key.target(), None)?;
        if answer.head.status != 202 {
            self.refused("delete", key, &answer);
            return Ok(());
        }
        self.done(key, &None);
        for tag in with {
            // A tag whose last change was not answered may point elsewhere; a read decides.
            if self.model.may_hold(tag, &digest_in(key)) && self.points_only_to(tag, key) {
                self.model.acknowledge(tag, &None);
            }
        }
        Ok(())
    }

    fn points_only_to(&self, tag: &Key, manifest: &Key) -> bool {
        let digest = digest_in(manifest);
        let mut others = self.manifests.keys().filter(|d| **d != digest);
        !others.any(|other| self.model.may_hold(tag, other))
    }

    /// GET of something that should be there, or of something that should not.
    pub(super) fn read_something(&mut self, connection: &mut Connection) -> io::Result<()> {
        let keys: Vec<Key> = self.model.keys().cloned().collect();
        let Some(key) = self.pick(&keys) else { return Ok(()) };
        self.check_key(connection, &key)
    }

    fn children_present(&self, repository: &str, digest: &str) -> bool {
        let text = String::from_utf8_lossy(&self.manifests[digest].bytes).into_owned();
        let here =
            self.present(|k| matches!(k, Key::Blob { repository: r, .. } if r == repository));
        let named = self.contents.keys().filter(|d| text.contains(d.as_str()));
        named.into_iter().all(|d| here.iter().any(|k| digest_in(k) == *d))
    }

    fn new_manifest(&mut self, repository: &str) -> Option<Manifest> {
        let of = |wanted: &Key| wanted.repository() == repository;
        let blobs = self.present(|k| matches!(k, Key::Blob { .. }) && of(k));
        if blobs.is_empty() {
            return None;
        }
        let mut layers = Vec::new();
        for _ in 0..=self.random.below(MAX_LAYERS) {
            let digest = digest_in(&blobs[self.random.below(blobs.len())]);
            let size = self.contents[&digest].len;
            let kind = "application/vnd.oci.image.layer.v1.tar";
            layers.push(serde_json::json!({"mediaType": kind, "digest": digest, "size": size}));
        }
        let mut config = layers[0].clone();
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let mut manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": config,
            "layers": layers,
            "annotations": {"number": self.random.next().to_string()},
        });
        let subjects = self.present(|k| matches!(k, Key::Manifest { .. }) && of(k));
        let mut subject = None;
        if self.random.below(SUBJECT_ONE_IN) == 0 {
            subject = self.pick(&subjects).map(|k| digest_in(&k));
        }
        if let Some(digest) = &subject {
            let size = self.manifests[digest].bytes.len();
            let descriptor =
                serde_json::json!({"mediaType": MEDIA_TYPE, "digest": digest, "size": size});
            manifest["subject"] = descriptor;
        }
        Some(Manifest { bytes: manifest.to_string().into_bytes(), subject })
    }
}

/// The digest that names a blob or a manifest.
fn digest_in(key: &Key) -> String {
    match key {
        Key::Blob { digest, .. } | Key::Manifest { digest, .. } => digest.clone(),
        Key::Tag { .. } => String::new(),
    }
}
