//! What a real containerd has is what the client says.

use std::path::Path;

use ddr_containerd::{ContainerdError, Content, Settings, blob_path};
use ddr_oci::Digest;
use futures_util::TryStreamExt as _;

use crate::archive::{Archive, archive};
use crate::real::{Real, soon};

const IMAGE: &str = "registry.example:5000/team/app:1.0";
/// Comes in several parts: containerd sends 1 MiB at once.
const LAYER_BYTES: u64 = (5 << 19) + 7;

fn layer(seed: u8) -> Vec<u8> {
    let number = |i: u64| u8::try_from(i * 31 % 251).expect("small") ^ seed;
    (0..LAYER_BYTES).map(number).collect()
}

/// A containerd with an image in the namespace `one`.
fn with_image() -> (Real, Archive) {
    let real = Real::start();
    let archive = archive(real.dir(), IMAGE, &layer(0));
    real.import("one", &archive.path);
    (real, archive)
}

async fn find(real: &Real, digest: &Digest) -> Option<Content> {
    let listing = real.connect(&[]).await.list().await.expect("a list");
    assert_eq!(listing.left_out, 0);
    listing.contents.into_iter().find(|content| content.digest == *digest)
}

async fn read(
    real: &Real,
    digest: &Digest,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, ContainerdError> {
    let bytes = real.connect(&[]).await.read("one", digest, range).await?;
    let parts: Vec<_> = bytes.try_collect().await.expect("bytes");
    Ok(parts.concat())
}

#[tokio::test]
async fn an_image_is_listed() {
    let (real, archive) = with_image();
    let manifest = find(&real, &archive.manifest).await.expect("the manifest");
    assert!(manifest.has_children);
    assert_eq!((manifest.namespace.as_str(), manifest.sources.len()), ("one", 0));
    for digest in [&archive.config, &archive.layer] {
        assert!(!find(&real, digest).await.expect("a blob").has_children);
    }
    assert_eq!(find(&real, &archive.layer).await.expect("the layer").size, LAYER_BYTES);

    let images = real.connect(&[]).await.images().await.expect("images");
    let [image] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!(image.target, archive.manifest);
    assert_eq!(image.reference.to_string(), "1.0");
    let here = image.source.name_here().expect("a name");
    assert_eq!(here.as_str(), "registry.example_5000/team/app");
}

#[tokio::test]
async fn sources_and_namespaces_make_one_entry() {
    let (real, archive) = with_image();
    real.import("two", &archive.path);
    let digest = archive.layer.to_string();
    for (namespace, source) in
        [("one", "docker.io=library/alpine,team/app"), ("two", "quay.io=app")]
    {
        let label = format!("containerd.io/distribution.source.{source}");
        real.ctr(namespace, &["content", "label", &digest, &label]);
    }
    let content = find(&real, &archive.layer).await.expect("the layer");
    assert_eq!(content.namespace, "one");
    let names: Vec<_> = content.sources.iter().filter_map(|source| source.name_here()).collect();
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["docker.io/library/alpine", "docker.io/team/app", "quay.io/app"]);
}

#[tokio::test]
async fn only_namespaces_that_were_asked_for_are_listed() {
    let (real, archive) = with_image();
    let list = async |namespace| real.connect(&[namespace]).await.list().await.expect("a list");
    assert!(list("one").await.contents.iter().any(|content| content.digest == archive.layer));
    assert!(list("two").await.contents.is_empty());
    let images = real.connect(&["two"]).await.images().await.expect("images");
    assert!(images.is_empty());
}

#[tokio::test]
async fn bytes_are_those_of_the_digest() {
    let (real, archive) = with_image();
    let (whole, layer) = (layer(0), &archive.layer);
    let all = read(&real, layer, 0..LAYER_BYTES).await.expect("bytes");
    assert_eq!(Digest::sha256(&all), *layer);
    for range in [0..1, 5..5, 1_000_000..1_100_000, LAYER_BYTES - 3..LAYER_BYTES] {
        let part = read(&real, layer, range.clone()).await.expect("bytes");
        let places = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert!(part == whole[places], "{range:?}");
    }
}

#[tokio::test]
async fn bytes_that_nobody_reads_hold_nobody_up() {
    let (real, archive) = with_image();
    let containerd = real.connect(&[]).await;
    let mut waiting = Vec::new();
    for _ in 0..12 {
        let bytes = containerd.read("one", &archive.layer, 0..LAYER_BYTES).await;
        waiting.push(bytes.expect("a beginning"));
    }
    assert!(!containerd.list().await.expect("a list").contents.is_empty());
    for bytes in waiting {
        let parts: Vec<_> = bytes.try_collect().await.expect("bytes");
        assert_eq!(Digest::sha256(&parts.concat()), archive.layer);
    }
}

#[tokio::test]
async fn what_is_not_there_is_absent() {
    let (real, archive) = with_image();
    let absent = read(&real, &Digest::sha256(b"none"), 0..1).await;
    assert!(matches!(absent, Err(ContainerdError::Absent)), "{absent:?}");
    let elsewhere = real.connect(&[]).await.read("two", &archive.layer, 0..1).await;
    assert!(matches!(elsewhere, Err(ContainerdError::Absent)));
    let behind = read(&real, &archive.layer, LAYER_BYTES + 1..LAYER_BYTES + 2).await;
    assert!(matches!(behind, Err(ContainerdError::Failed(_))), "{behind:?}");
    let over = real.connect(&[]).await.read("one", &archive.layer, 0..LAYER_BYTES + 1).await;
    let over: Result<Vec<_>, _> = over.expect("a beginning").try_collect().await;
    assert_eq!(over.expect_err("too few").kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn files_are_where_containerd_says() {
    let (real, archive) = with_image();
    let root = real.connect(&[]).await.content_root().await.expect("an answer").expect("a root");
    assert!(root.starts_with(real.dir()));
    let file = std::fs::read(blob_path(&root, &archive.layer)).expect("the file");
    assert!(file == layer(0));
    let none: &Path = &blob_path(&root, &Digest::sha256(b"none"));
    assert!(!none.exists());
}

#[tokio::test]
async fn changes_are_told() {
    let (real, first) = with_image();
    let containerd = real.connect(&[]).await;
    let mut watch = containerd.watch().await.expect("a subscription");
    // The subscription has arrived when a later question is answered.
    containerd.list().await.expect("a list");
    let second = archive(real.dir(), "registry.example/other:1", &layer(1));
    real.import("one", &second.path);
    soon(watch.changed()).await.expect("a change");
    assert!(find(&real, &second.layer).await.is_some());

    real.ctr("one", &["images", "remove", "--sync", IMAGE]);
    while find(&real, &first.layer).await.is_some() {
        soon(watch.changed()).await.expect("a change");
    }
}

#[tokio::test]
async fn after_a_restart_all_goes_on() {
    let (mut real, archive) = with_image();
    let containerd = real.connect(&[]).await;
    let mut watch = containerd.watch().await.expect("a subscription");
    real.stop();
    let gone = soon(watch.changed()).await;
    assert!(matches!(gone, Err(ContainerdError::Unreachable(_))), "{gone:?}");
    let gone = containerd.list().await;
    assert!(matches!(gone, Err(ContainerdError::Unreachable(_))), "{gone:?}");

    real.start_again();
    soon(watch.changed()).await.expect("what changed meanwhile is not known");
    let listing = containerd.list().await.expect("a list");
    assert!(listing.contents.iter().any(|content| content.digest == archive.layer));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let connect = async |name: &str, namespaces: Vec<String>| {
        let settings = Settings { socket: dir.path().join(name), namespaces };
        ddr_containerd::Containerd::connect(settings).await.expect_err("no containerd")
    };
    assert!(matches!(connect("none", Vec::new()).await, ContainerdError::NoSocket(_)));
    let bad = connect("none", vec!["a b".to_owned()]).await;
    assert!(matches!(bad, ContainerdError::Settings(_)));
    std::fs::write(dir.path().join("file"), "").expect("a file");
    assert!(matches!(connect("file", Vec::new()).await, ContainerdError::Unreachable(_)));
}
