//! The store against a model of ordered maps, through random sequences with restarts and kills.

mod upkeep;

use crate::support::{
    blob, check_served, check_sound, content, manifest, names, open, repository, tag,
};
use ddr_oci::{Algorithm, Digest, RepositoryName};
use ddr_store::disk::FaultyDisk;
use ddr_store::{Pin, Store, UploadError};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use upkeep::Fault;

const REPOSITORIES: [&str; 3] = ["app", "app/sub", "z"];
const TAGS: [&str; 3] = ["1.0", "Latest", "latest"];
/// Lengths of the contents in play: around nothing, one piece, several.
const LENGTHS: [usize; 6] = [0, 1, 1000, 65_536, 65_537, 140_000];
const MANIFESTS: usize = 4;

fn bytes(which: usize) -> Vec<u8> {
    content(which as u64, LENGTHS[which])
}

fn digest(which: usize, sha512: bool) -> Digest {
    let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    Digest::of(algorithm, &bytes(which))
}

/// Manifest 0 is a plain image, the others have it as their subject.
fn entry(which: usize) -> ddr_store::ManifestEntry {
    let subject = (which > 0).then(|| Digest::sha256(b"{\"manifest\":0}"));
    let text = format!("{{\"manifest\":{which}}}");
    manifest(text.as_bytes(), &[digest(which, false)], subject)
}

#[derive(Debug, Clone)]
enum Step {
    Begin {
        repository: usize,
    },
    Append {
        upload: usize,
        len: usize,
    },
    /// Appends what is missing and commits.
    Commit {
        upload: usize,
        sha512: bool,
        wrong: bool,
    },
    Cancel {
        upload: usize,
    },
    Fetch {
        content: usize,
        wrong: bool,
        commit: bool,
    },
    Link {
        repository: usize,
        content: usize,
        present: bool,
    },
    DeleteBlob {
        repository: usize,
        content: usize,
        sha512: bool,
    },
    PutManifest {
        repository: usize,
        manifest: usize,
        tags: usize,
    },
    DeleteManifest {
        repository: usize,
        manifest: usize,
    },
    SetTag {
        repository: usize,
        tag: usize,
        manifest: usize,
    },
    DeleteTag {
        repository: usize,
        tag: usize,
    },
    PutName {
        key: u8,
        stamp: u8,
    },
    SetSetting {
        key: u8,
        value: u8,
    },
    Lease {
        content: usize,
        long: bool,
    },
    DropLeases,
    Pin {
        content: usize,
    },
    Touch {
        repository: usize,
        content: usize,
    },
    Gc {
        untagged: bool,
        fault: Fault,
    },
    Verify {
        rot: Option<usize>,
    },
    Restart,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let r = || 0..REPOSITORIES.len();
    let c = || 0..LENGTHS.len();
    let u = || 0..4_usize;
    let m = || 0..MANIFESTS;
    let t = || 0..TAGS.len();
    prop_oneof![
        4 => r().prop_map(|repository| Step::Begin { repository }),
        4 => (u(), 0..100_000_usize).prop_map(|(upload, len)| Step::Append { upload, len }),
        6 => (u(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(upload, sha512, wrong)| Step::Commit { upload, sha512, wrong }),
        1 => u().prop_map(|upload| Step::Cancel { upload }),
        3 => (c(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(content, wrong, commit)| Step::Fetch { content, wrong, commit }),
        2 => (r(), c(), any::<bool>())
            .prop_map(|(repository, content, present)| Step::Link { repository, content, present }),
        4 => (r(), c(), any::<bool>()).prop_map(|(repository, content, sha512)| {
            Step::DeleteBlob { repository, content, sha512 }
        }),
        4 => (r(), m(), 0..=TAGS.len()).prop_map(|(repository, manifest, tags)| {
            Step::PutManifest { repository, manifest, tags }
        }),
        3 => (r(), m())
            .prop_map(|(repository, manifest)| Step::DeleteManifest { repository, manifest }),
        2 => (r(), t(), m())
            .prop_map(|(repository, tag, manifest)| Step::SetTag { repository, tag, manifest }),
        2 => (r(), t()).prop_map(|(repository, tag)| Step::DeleteTag { repository, tag }),
        2 => (0..3_u8, 0..5_u8).prop_map(|(key, stamp)| Step::PutName { key, stamp }),
        1 => (0..3_u8, any::<u8>()).prop_map(|(key, value)| Step::SetSetting { key, value }),
        1 => (c(), any::<bool>()).prop_map(|(content, long)| Step::Lease { content, long }),
        1 => Just(Step::DropLeases),
        1 => c().prop_map(|content| Step::Pin { content }),
        1 => (r(), c()).prop_map(|(repository, content)| Step::Touch { repository, content }),
        4 => (any::<bool>(), fault()).prop_map(|(untagged, fault)| Step::Gc { untagged, fault }),
        3 => prop::option::of(c()).prop_map(|rot| Step::Verify { rot }),
        2 => Just(Step::Restart),
        2 => Just(Step::Kill),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        (0..60_u64).prop_map(Fault::Fails),
        (0..60_u64, any::<u64>()).prop_map(|(after, seed)| Fault::PowerCut(after, seed)),
    ]
}

#[derive(Debug)]
struct Session {
    id: String,
    repository: usize,
    content: usize,
    len: usize,
}

#[derive(Debug, Default)]
struct Model {
    blobs: BTreeMap<Digest, usize>,
    links: BTreeSet<(usize, Digest)>,
    revisions: BTreeSet<(usize, usize)>,
    tags: BTreeMap<(usize, usize), usize>,
    names: BTreeMap<u8, u8>,
    settings: BTreeMap<u8, u8>,
    /// Leases that hold until the end of time; the others have ended long ago.
    leases: BTreeSet<Digest>,
    ended_leases: BTreeSet<Digest>,
    pins: BTreeMap<Digest, Pin>,
    /// Linked blobs that rotted and are not back.
    lost: BTreeSet<Digest>,
    has_rotted: bool,
    /// Blobs whose chain a power cut may have taken: chain files are not synced.
    chains_in_doubt: BTreeSet<Digest>,
    sessions: Vec<Session>,
    begun: usize,
}

fn name(which: usize) -> RepositoryName {
    repository(REPOSITORIES[which])
}

impl Model {
    fn apply(&mut self, store: &Store, step: &Step) {
        match *step {
            Step::Begin { repository } => self.begin(store, repository),
            Step::Append { upload, len } => self.append(store, upload, len),
            Step::Commit { upload, sha512, wrong } => self.commit(store, upload, sha512, wrong),
            Step::Cancel { upload } => {
                if upload < self.sessions.len() {
                    let session = self.sessions.remove(upload);
                    store.upload(&name(session.repository), &session.id).unwrap().cancel();
                }
            }
            Step::Fetch { content, wrong, commit } => self.fetch(store, content, wrong, commit),
            Step::Link { repository, content, present } => {
                let digest = digest(content, false);
                let link = if present {
                    let linked = store.link_present(&name(repository), &digest).unwrap();
                    assert_eq!(linked, self.blobs.contains_key(&digest));
                    linked
                } else {
                    store.link(&name(repository), &digest).unwrap();
                    true
                };
                if link {
                    self.links.insert((repository, digest));
                }
            }
            Step::DeleteBlob { repository, content, sha512 } => {
                let digest = digest(content, sha512);
                let linked = store.delete_blob(&name(repository), &digest).unwrap();
                assert_eq!(linked, self.links.remove(&(repository, digest)));
                let held =
                    self.leases.contains(&digest) || self.links.iter().any(|l| l.1 == digest);
                if linked && !held {
                    self.blobs.remove(&digest);
                }
            }
            Step::Lease { content, long } => {
                let digest = digest(content, false);
                store.lease(&digest, if long { u64::MAX } else { 1 }).unwrap();
                let leases = if long { &mut self.leases } else { &mut self.ended_leases };
                leases.insert(digest);
            }
            Step::Pin { content } => self.pin(store, content),
            Step::Touch { repository, content } => upkeep::touch(store, repository, content),
            Step::DropLeases => {
                let ended = self.ended_leases.difference(&self.leases).count();
                assert_eq!(store.drop_expired_leases(1).unwrap(), ended);
                self.ended_leases.clear();
            }
            Step::PutName { key, stamp } => {
                let stored = store.put_name([key; 32], stamp.into(), &[stamp]).unwrap();
                assert_eq!(stored, self.names.get(&key).is_none_or(|s| *s <= stamp));
                if stored {
                    self.names.insert(key, stamp);
                }
            }
            Step::SetSetting { key, value } => {
                store.set_setting(&key.to_string(), &[value]).unwrap();
                self.settings.insert(key, value);
            }
            _ => self.apply_manifest(store, step),
        }
    }

    fn apply_manifest(&mut self, store: &Store, step: &Step) {
        match *step {
            Step::PutManifest { repository, manifest, tags } => {
                let names = TAGS[..tags].iter().map(|t| tag(t)).collect::<Vec<_>>();
                store.put_manifest(&name(repository), &entry(manifest), &names).unwrap();
                self.revisions.insert((repository, manifest));
                self.links.insert((repository, digest(manifest, false)));
                self.tags.extend((0..tags).map(|t| ((repository, t), manifest)));
            }
            Step::DeleteManifest { repository, manifest } => {
                let deleted =
                    store.delete_manifest(&name(repository), &entry(manifest).digest).unwrap();
                if !self.revisions.remove(&(repository, manifest)) {
                    assert_eq!(deleted, None);
                    return;
                }
                let is_gone = |(r, _): &(usize, usize), m: usize| *r == repository && m == manifest;
                let gone = self.tags.iter().filter(|(key, m)| is_gone(key, **m));
                let gone = gone.map(|((_, t), _)| tag(TAGS[*t])).collect::<Vec<_>>();
                assert_eq!(deleted, Some(gone));
                self.tags.retain(|key, m| !is_gone(key, *m));
            }
            Step::SetTag { repository, tag: t, manifest } => {
                store.set_tag(&name(repository), &tag(TAGS[t]), &entry(manifest).digest).unwrap();
                self.tags.insert((repository, t), manifest);
            }
            Step::DeleteTag { repository, tag: t } => {
                let deleted = store.delete_tag(&name(repository), &tag(TAGS[t])).unwrap();
                assert_eq!(deleted, self.tags.remove(&(repository, t)).is_some());
            }
            _ => unreachable!("all other steps are applied elsewhere"),
        }
    }

    /// The process ends: pins and sessions without a byte go with it.
    fn ends(&mut self) {
        self.pins.clear();
        self.sessions.retain(|session| session.len > 0);
    }

    fn begin(&mut self, store: &Store, repository: usize) {
        if self.sessions.len() < 4 {
            let id = store.begin_upload(&name(repository)).unwrap();
            let content = self.begun % LENGTHS.len();
            self.begun += 1;
            self.sessions.push(Session { id, repository, content, len: 0 });
        }
    }

    fn append(&mut self, store: &Store, upload: usize, len: usize) {
        let Some(session) = self.sessions.get_mut(upload) else { return };
        let bytes = bytes(session.content);
        let end = bytes.len().min(session.len + len);
        let mut handle = store.upload(&name(session.repository), &session.id).unwrap();
        assert_eq!(handle.offset(), session.len as u64);
        handle.append(&bytes[session.len..end]).unwrap();
        session.len = end;
    }

    fn commit(&mut self, store: &Store, upload: usize, sha512: bool, wrong: bool) {
        self.append(store, upload, usize::MAX / 2);
        if upload >= self.sessions.len() {
            return;
        }
        let Session { id, repository, content, .. } = self.sessions.remove(upload);
        let mut handle = store.upload(&name(repository), &id).unwrap();
        if wrong {
            handle.append(b"!").unwrap();
        }
        let digest = digest(content, sha512);
        match handle.commit(&digest) {
            Ok(committed) => {
                assert!(!wrong);
                assert_eq!((committed.digest, committed.size), (digest, LENGTHS[content] as u64));
                self.blobs.insert(digest, content);
                self.links.insert((repository, digest));
            }
            Err(UploadError::DigestMismatch) => assert!(wrong),
            Err(other) => panic!("{other}"),
        }
    }

    fn fetch(&mut self, store: &Store, content: usize, wrong: bool, commit: bool) {
        let digest = digest(content, false);
        let mut fetch = store.begin_fetch(&digest).unwrap();
        fetch.append(&bytes(content)).unwrap();
        if wrong {
            fetch.append(b"!").unwrap();
        }
        if !commit {
            return;
        }
        assert_eq!(fetch.commit().is_ok(), !wrong);
        if !wrong {
            self.blobs.insert(digest, content);
        }
    }

    fn check(&self, store: &Store) {
        for content in 0..LENGTHS.len() {
            for digest in [digest(content, false), digest(content, true)] {
                let expected = self.blobs.get(&digest).map(|which| LENGTHS[*which] as u64);
                assert_eq!(store.blob_size(&digest).unwrap(), expected);
                for repository in 0..REPOSITORIES.len() {
                    let linked = store.is_linked(&name(repository), &digest).unwrap();
                    assert_eq!(linked, self.links.contains(&(repository, digest)));
                }
            }
        }
        let mut known = Vec::new();
        for repository in 0..REPOSITORIES.len() {
            self.check_repository(store, repository, &mut known);
        }
        let listed = store.repositories(None, 10).unwrap();
        assert_eq!(listed.iter().map(|r| r.as_str()).collect::<Vec<_>>(), known);
        assert_eq!(store.manifests().unwrap().len(), self.revisions.len());
        let names = self.names.iter().map(|(key, stamp)| ([*key; 32], vec![*stamp]));
        assert_eq!(store.names(10, None).unwrap(), names.collect::<Vec<_>>());
        for (key, value) in &self.settings {
            assert_eq!(store.get_setting(&key.to_string()).unwrap(), Some(vec![*value]));
        }
        for content in 0..LENGTHS.len() {
            let digest = digest(content, false);
            assert_eq!(store.leased(&digest, 2).unwrap(), self.leases.contains(&digest));
        }
    }

    fn check_repository(&self, store: &Store, r: usize, known: &mut Vec<&str>) {
        let tags = (0..TAGS.len()).filter(|t| self.tags.contains_key(&(r, *t)));
        let tags = tags.map(|t| tag(TAGS[t])).collect::<Vec<_>>();
        let has_manifest = (0..MANIFESTS).any(|m| self.revisions.contains(&(r, m)));
        let is_known = has_manifest || !tags.is_empty();
        assert_eq!(store.tags(&name(r), None, 10).unwrap(), is_known.then_some(tags));
        if is_known {
            known.push(REPOSITORIES[r]);
        }
        for (t, text) in TAGS.iter().enumerate() {
            let expected = self.tags.get(&(r, t)).map(|m| entry(*m).digest);
            assert_eq!(store.tag(&name(r), &tag(text)).unwrap(), expected);
        }
        let mut referrers = BTreeMap::new();
        for m in 0..MANIFESTS {
            let entry = entry(m);
            let stored = store.manifest(&name(r), &entry.digest).unwrap().map(|m| m.bytes);
            assert_eq!(stored.is_some(), self.revisions.contains(&(r, m)));
            assert!(stored.is_none_or(|bytes| bytes == entry.bytes));
            let anywhere = (0..REPOSITORIES.len()).any(|r| self.revisions.contains(&(r, m)));
            assert_eq!(store.any_manifest(&entry.digest).unwrap().is_some(), anywhere);
            if let Some((_, json)) = entry.subject.filter(|_| self.revisions.contains(&(r, m))) {
                referrers.insert(entry.digest, json);
            }
        }
        let found = store.referrers(&name(r), &entry(0).digest).unwrap();
        assert_eq!(found, referrers.into_values().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_store_is_its_model(steps in prop::collection::vec(step(), 1..60)) {
        let disk = FaultyDisk::new();
        let mut store = Some(open(&disk));
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Restart => {
                    model.ends();
                    drop(store.take());
                    store = Some(open(&disk));
                }
                Step::Kill => {
                    // What the dying process still does reaches no disk.
                    disk.restart();
                    model.ends();
                    store = Some(open(&disk));
                }
                Step::Gc { untagged, fault } => {
                    let run = (*untagged, *fault);
                    store = store.take().map(|store| model.gc(store, &disk, run));
                }
                Step::Verify { rot } => model.verify(store.as_ref().unwrap(), &disk, *rot),
                step => model.apply(store.as_ref().unwrap(), step),
            }
            model.check(store.as_ref().unwrap());
            model.check_lost(store.as_ref().unwrap());
        }
        model.pins.clear();
        let store = store.unwrap();
        if model.has_rotted {
            check_served(&store, "at the end");
        } else {
            check_sound(&store, &disk, "at the end");
        }
        for (digest, content) in &model.blobs {
            prop_assert_eq!(blob(&store, digest), Some(bytes(*content)));
        }
        let on_disk = model.sessions.iter().filter(|session| session.len > 0).count();
        prop_assert_eq!(names(&disk, "uploads").len(), on_disk);
        prop_assert!(names(&disk, "fetch").is_empty());
    }
}
