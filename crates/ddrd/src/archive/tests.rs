//! Archives that are well formed, and those that somebody made to do harm.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ddr_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST};
use proptest::prelude::*;
use serde_json::json;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

/// A tar of members that a test chooses byte for byte.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.raw(EntryType::Regular, name, "", bytes)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.raw(kind, name, target, b"")
    }

    /// A member with any name: the library would refuse the wrong ones.
    fn raw(mut self, kind: EntryType, name: &str, target: &str, bytes: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    fs::write(&path, bytes).unwrap();
    Archive::open(&path)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn descriptor(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(kind, Digest::sha256(bytes), bytes.len() as u64)
}

fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|bytes| descriptor(OCI_LAYER, bytes)).collect();
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config), "layers": layers,
    })
    .to_string()
    .into_bytes()
}

fn index(members: &[Descriptor]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": members })
        .to_string()
        .into_bytes()
}

/// A layout with one image of these layers.
fn layout(name: &str, layers: &[&[u8]]) -> Tar {
    let manifest = manifest(b"{}", layers);
    let mut root = descriptor(OCI_MANIFEST, &manifest);
    root.annotations.insert("org.opencontainers.image.ref.name".into(), name.into());
    let mut tar =
        Tar::default().file("oci-layout", LAYOUT.as_bytes()).file("index.json", &index(&[root]));
    for blob in [&manifest[..], b"{}"].iter().chain(layers) {
        tar = tar.file(&blob_path(&Digest::sha256(blob)), blob);
    }
    tar
}

/// A docker archive with one image whose layers are at these names.
fn docker(diff_ids: &[Digest], names: &[&str], tags: &[&str]) -> Tar {
    let config = json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string();
    let list = json!([{ "Config": "c.json", "RepoTags": tags, "Layers": names }]).to_string();
    Tar::default().file("c.json", config.as_bytes()).file("manifest.json", list.as_bytes())
}

fn refused(bytes: &[u8], words: &str) {
    let error = open(bytes).expect_err(words).to_string();
    assert!(error.contains(words), "{words:?} in {error:?}");
}

fn read(archive: &Archive, blob: &Descriptor) -> Vec<u8> {
    archive.blob(blob).unwrap().read_all("a blob", u64::MAX).unwrap()
}

#[test]
fn a_layout_is_read_from_a_tar_and_from_a_gzip() {
    let tar = layout("team/app:1.0", &[b"layer"]).end();
    for bytes in [tar.clone(), gzip(&tar)] {
        let archive = open(&bytes).unwrap();
        let [image] = archive.images() else { panic!("one image") };
        assert_eq!(image.name, Some(Name::Full("team/app:1.0".parse().unwrap())));
        let closure = archive.closure(&image.root).unwrap();
        assert_eq!((closure.manifests.len(), closure.blobs.len()), (1, 2));
        let layer = &closure.blobs[&Digest::sha256(b"layer")];
        archive.blob(layer).unwrap().verify(layer).unwrap();
        assert_eq!(read(&archive, layer), b"layer");
    }
}

#[test]
fn containerds_name_goes_before_the_specified_one() {
    let mut root = descriptor(OCI_MANIFEST, b"x");
    root.annotations.insert("org.opencontainers.image.ref.name".into(), "1.0".into());
    let named = |root: Descriptor| {
        let tar = Tar::default().file("oci-layout", LAYOUT.as_bytes());
        open(&tar.file("index.json", &index(&[root])).end()).unwrap().images()[0].name.clone()
    };
    assert_eq!(named(root.clone()), Some(Name::Tag("1.0".parse().unwrap())));
    root.annotations.insert("io.containerd.image.name".into(), "docker.io/a/b:1".into());
    assert_eq!(named(root), Some(Name::Full("docker.io/a/b:1".parse().unwrap())));
}

#[test]
fn a_docker_archive_gets_a_manifest_of_its_layers_as_they_are() {
    let (one, two) = (b"layer one".as_slice(), b"layer two".as_slice());
    let ids = [one, two, one].map(Digest::sha256);
    let tar = docker(&ids, &["1/layer.tar", "2/layer.tar.gz", "3/layer.tar"], &["a/b:1", "a/b:2"])
        .file("1/layer.tar", one)
        .file("2/layer.tar.gz", &gzip(two))
        .link(EntryType::Symlink, "3/layer.tar", "../1/layer.tar");
    let archive = open(&tar.end()).unwrap();
    let names: Vec<_> = archive.images().iter().map(|image| image.name.clone()).collect();
    let full = |name: &str| Some(Name::Full(name.parse().unwrap()));
    assert_eq!(names, [full("a/b:1"), full("a/b:2")]);
    let closure = archive.closure(&archive.images()[0].root).unwrap();
    let bytes = &closure.manifests[0].1;
    let manifest = ddr_oci::Manifest::parse(None, bytes).unwrap();
    let layers: Vec<_> = manifest
        .layers
        .iter()
        .map(|layer| (layer.media_type.as_str(), read(&archive, layer)))
        .collect();
    let gz = gzip(two);
    assert_eq!(
        layers,
        [(OCI_LAYER, one.to_vec()), (OCI_LAYER_GZIP, gz), (OCI_LAYER, one.to_vec())]
    );
}

#[test]
fn where_both_are_there_the_layout_counts() {
    let tar = layout("team/app:1.0", &[b"layer"]).file("manifest.json", b"nothing");
    assert_eq!(open(&tar.end()).unwrap().images().len(), 1);
}

#[test]
fn layers_that_are_not_what_the_config_says_are_refused() {
    let ids = [Digest::sha256(b"right")];
    refused(&docker(&ids, &["l"], &[]).file("l", b"wrong").end(), "is damaged");
    refused(&docker(&ids, &["l"], &[]).file("l", &gzip(b"wrong")).end(), "is damaged");
    refused(&docker(&ids, &["l"], &[]).end(), "l is not in the archive");
    refused(&docker(&ids, &[], &[]).end(), "has 1 layers but manifest.json has 0");
    refused(&docker(&ids, &["../l"], &[]).end(), "no path inside");
    refused(&docker(&[], &[], &["NOT A NAME:1"]).end(), "\"NOT A NAME:1\"");
}

#[test]
fn damaged_and_missing_blobs_are_named() {
    let tar = layout("a/b:1", &[b"layer"]).end();
    let archive = open(&tar).unwrap();
    let root = archive.images()[0].root.clone();
    let missing = descriptor(OCI_LAYER, b"other");
    assert!(matches!(archive.blob(&missing), Err(ArchiveError::Missing { .. })));
    let mut longer = descriptor(OCI_LAYER, b"layer");
    longer.size += 1;
    assert!(matches!(archive.blob(&longer), Err(ArchiveError::Size { said: 6, is: 5, .. })));

    let at = tar.windows(5).position(|five| five == b"layer").unwrap();
    let at = at + tar[at + 1..].windows(6).position(|six| six == b"layer\0").unwrap() + 1;
    let mut damaged = tar.clone();
    damaged[at] ^= 1;
    let archive = open(&damaged).unwrap();
    let closure = archive.closure(&root).unwrap();
    let layer = &closure.blobs[&Digest::sha256(b"layer")];
    let verified = archive.blob(layer).unwrap().verify(layer);
    assert!(matches!(verified, Err(ArchiveError::Digest { .. })), "{verified:?}");

    let archive = open(&tar).unwrap();
    let mut lies = root.clone();
    lies.digest = Digest::sha256(b"layer");
    lies.size = 5;
    assert!(matches!(archive.closure(&lies), Err(ArchiveError::Manifest { .. })), "no manifest");
    lies.size = 6;
    assert!(matches!(archive.closure(&lies), Err(ArchiveError::Size { .. })));
}

#[test]
fn paths_that_lead_out_are_refused() {
    let start = || layout("a/b:1", &[]);
    for name in ["/etc/passwd", "../x", "a/../../x", "a/..", "a\\b"] {
        refused(&start().file(name, b"x").end(), "no path inside");
    }
    for target in ["/etc/passwd", "../../x", "../.."] {
        refused(&start().link(EntryType::Symlink, "d/link", target).end(), "no path inside");
    }
    refused(&start().link(EntryType::Link, "d/link", "../x").end(), "no path inside");
    refused(&start().raw(EntryType::Char, "null", "", b"").end(), "neither file");
    refused(&start().raw(EntryType::GNUSparse, "hole", "", b"").end(), "neither file");
    refused(&start().file("oci-layout", b"x").end(), "twice");
}

#[test]
fn links_in_circles_end() {
    let tar = Tar::default().link(EntryType::Symlink, "oci-layout", "two").link(
        EntryType::Symlink,
        "two",
        "oci-layout",
    );
    refused(&tar.end(), "links behind");
}

#[test]
fn a_directory_is_not_left_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::write(&outside, LAYOUT).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("oci-layout")).unwrap();
    let error = Archive::open(&inside).unwrap_err();
    assert!(matches!(error, ArchiveError::Path(_)), "{error}");
}

#[test]
fn nothing_follows_the_end() {
    let tar = layout("a/b:1", &[]).end();
    assert!(open(&[&tar[..], &[0; 9000]].concat()).is_ok(), "GNU tar pads");
    refused(&[&tar[..], &[0; 512], b"x"].concat(), "follows the end");
    refused(&[&tar[..], &layout("a/b:1", &[]).end()].concat(), "follows the end");
    let much = vec![0; usize::try_from(MAX_PADDING_BYTES).unwrap()];
    refused(&[&tar[..], &much].concat(), "over the limit");
    refused(&[&gzip(&tar)[..], b"x"].concat(), "temporary file");
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    refused(b"", "ends too early");
    refused(&[b'x'; 2048], "not a tar");
    refused(&Tar::default().file("x", b"y").end(), "neither an OCI layout");
    for (bytes, name) in
        [(&b"\x28\xb5\x2f\xfd.."[..], "zstd -d"), (b"\xfd7zXZ\0", "xz -d"), (b"BZh9..", "bzip2 -d")]
    {
        refused(bytes, name);
    }
    let mark = |text: &[u8]| Tar::default().file("oci-layout", text).end();
    refused(&mark(b"{}"), "oci-layout");
    refused(&mark(br#"{"imageLayoutVersion":"2.0.0"}"#), "not known");
    refused(&mark(LAYOUT.as_bytes()), "no index.json");
    refused(&mark(&vec![b' '; 5000]), "over the limit");
}

#[test]
fn extended_headers_are_bounded_and_sizes_do_not_overflow() {
    let long = "blobs/".to_owned() + &"x".repeat(200);
    let tar = layout("a/b:1", &[]);
    let tar =
        tar.raw(EntryType::GNULongName, "././@LongLink", "", long.as_bytes()).file("short", b"x");
    assert!(open(&tar.end()).is_ok());
    let huge = vec![b'x'; usize::try_from(MAX_EXTENSION_BYTES).unwrap() + 1];
    for kind in [EntryType::GNULongName, EntryType::XHeader, EntryType::XGlobalHeader] {
        refused(&layout("a/b:1", &[]).raw(kind, "x", "", &huge).end(), "over the limit");
    }
    let pax = |record: &str| {
        let tar = layout("a/b:1", &[]).raw(EntryType::XHeader, "x", "", record.as_bytes());
        tar.file("short", b"x").end()
    };
    refused(&pax("29 size=18446744073709551615\n"), "is cut");
    refused(&pax("16 path=../../x\n"), "no path inside");
    refused(&pax("22 GNU.sparse.major=1\n"), "sparse");
}

#[test]
fn an_unpacked_gzip_has_a_limit() {
    let packed = gzip(&[0; 4096]);
    assert!(spool::spool(&packed, std::io::empty(), 4096).is_ok());
    let error = spool::spool(&packed, std::io::empty(), 4095).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");
}

/// No cut of a good archive is taken for a good one, or is worse than an error.
#[test]
fn every_truncation_is_noticed() {
    let layer = [7; 700];
    let ids = [Digest::sha256(&layer)];
    let archives = [
        layout("a/b:1", &[&layer]).end(),
        docker(&ids, &["l"], &["a/b:1"]).file("l", &layer).end(),
    ];
    for whole in archives {
        assert!(open(&whole).is_ok());
        for len in (0..whole.len()).step_by(61) {
            let error = open(&whole[..len]).expect_err("cut");
            assert!(
                matches!(error, ArchiveError::Truncated(_) | ArchiveError::Format(_)),
                "{len}: {error}"
            );
        }
        let packed = gzip(&whole);
        for len in (0..packed.len()).step_by(7) {
            assert!(open(&packed[..len]).is_err(), "gzip cut at {len}");
        }
    }
}

#[test]
fn an_export_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for target in [Target::Tar(dir.path().join("x.tar")), Target::Directory(dir.path().join("x"))] {
        let mut writer = Writer::create(&target).unwrap();
        assert!(Writer::create(&target).is_err(), "two at once");
        let blob = descriptor(OCI_LAYER, b"right");
        writer.begin(&blob).unwrap();
        writer.write(b"wrong").unwrap();
        assert!(matches!(writer.end(), Err(ArchiveError::Digest { .. })));
        writer.begin(&descriptor(OCI_LAYER, b"short")).unwrap();
        assert!(matches!(writer.write(b"longer"), Err(ArchiveError::Size { .. })));
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    let taken = dir.path().join("taken");
    fs::create_dir_all(taken.join("x")).unwrap();
    assert!(Writer::create(&Target::Directory(taken.clone())).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_name_says_what_an_export_is() {
    assert_eq!("-".parse(), Ok(Target::Stdout));
    assert_eq!("a.tar".parse(), Ok(Target::Tar("a.tar".into())));
    assert_eq!("a".parse(), Ok(Target::Directory("a".into())));
    assert!("a.tar.gz".parse::<Target>().is_err() && "a.tgz".parse::<Target>().is_err());
}

/// Everything of an archive into a target, as `ddr export` does it.
fn copy(archive: &Archive, root: &Descriptor, target: &Target) {
    let closure = archive.closure(root).unwrap();
    let mut writer = Writer::create(target).unwrap();
    writer.head(root, &closure, "team/app:1.0").unwrap();
    for blob in closure.blobs.values() {
        writer.begin(blob).unwrap();
        writer.write(&read(archive, blob)).unwrap();
        writer.end().unwrap();
    }
    writer.finish().unwrap();
}

/// Digests of all manifests and blobs, each verified.
fn digests(archive: &Archive, root: &Descriptor) -> Vec<Digest> {
    let closure = archive.closure(root).unwrap();
    for blob in closure.blobs.values() {
        archive.blob(blob).unwrap().verify(blob).unwrap();
    }
    let manifests = closure.manifests.iter().map(|(manifest, _)| manifest.digest);
    manifests.chain(closure.blobs.into_keys()).collect()
}

/// An index of images of random layers, as a tar.
fn random_index(images: &[Vec<Vec<u8>>]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (mut blobs, mut members) = (BTreeMap::new(), Vec::new());
    let mut add = |bytes: Vec<u8>| blobs.insert(Digest::sha256(&bytes), bytes);
    for layers in images {
        let parts: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let manifest = manifest(b"{}", &parts);
        members.push(descriptor(OCI_MANIFEST, &manifest));
        layers.iter().cloned().chain([manifest, b"{}".to_vec()]).for_each(|bytes| drop(add(bytes)));
    }
    let inner = index(&members);
    let top = index(&[descriptor(OCI_INDEX, &inner)]);
    add(inner);
    let mut tar = Tar::default().file(MARK, LAYOUT.as_bytes()).file(INDEX, &top);
    for (digest, bytes) in &blobs {
        tar = tar.file(&blob_path(digest), bytes);
    }
    let path = dir.path().join("in.tar");
    fs::write(&path, tar.end()).unwrap();
    (dir, path)
}

fn same_after_export(dir: &Path, path: &Path) {
    let archive = Archive::open(path).unwrap();
    let root = archive.images()[0].root.clone();
    let before = digests(&archive, &root);
    for (at, target) in
        [Target::Tar(dir.join("out.tar")), Target::Directory(dir.join("out"))].iter().enumerate()
    {
        copy(&archive, &root, target);
        let again = Archive::open(&dir.join(["out.tar", "out"][at])).unwrap();
        let image = &again.images()[0];
        assert_eq!(image.name, Some(Name::Full("team/app:1.0".parse().unwrap())));
        assert_eq!((&image.root, digests(&again, &image.root)), (&root, before.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What is exported and read again is the same, digest for digest.
    #[test]
    fn export_and_import_are_inverse(
        images in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..4), 0..4),
    ) {
        let (dir, path) = random_index(&images);
        same_after_export(dir.path(), &path);
    }

    /// Bytes of a good archive changed anywhere: an error or an archive, never a panic, and never a
    /// closure whose verified digests are others.
    #[test]
    fn flipped_bytes_do_no_harm(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut tar = layout("team/app:1.0", &[b"layer one", b"layer two"]).end();
        let at = at.index(tar.len());
        tar[at] = to;
        if let Ok(archive) = open(&tar) {
            for image in archive.images() {
                let closure = archive.closure(&image.root);
                closure.into_iter().flat_map(|closure| closure.blobs).for_each(|(_, blob)| {
                    archive.blob(&blob).and_then(|section| section.verify(&blob)).ok();
                });
            }
        }
    }
}
