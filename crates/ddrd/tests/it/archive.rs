//! `ddr import` and `ddr export` against daemons.

use std::fs;
use std::path::Path;

use ddr_oci::Digest;
use serde_json::Value;

use super::daemon::{Daemon, until};
use super::image::{bytes, pull, push};
use super::pull::ended;

/// A docker archive of one layer, as a directory.
fn docker_archive(dir: &Path, layer: &[u8], tag: &str) {
    let config =
        serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(layer)] } });
    let list = serde_json::json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"] }]);
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("layer.tar"), layer).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("manifest.json"), list.to_string()).unwrap();
}

#[test]
fn imported_on_a_pulled_on_b_exported_there_and_imported_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    until("they know each other", || a.status()["peers"] == 1 && b.status()["peers"] == 1);
    let source = dir.path().join("source");
    docker_archive(&source, &bytes(1, 3 << 20), "docker.io/team/app:1.0");
    let (shown, told) = ended(a.admin, &["import", source.to_str().unwrap()], 0);
    assert!(shown.contains("team/app:1.0") && shown.contains("2 blobs sent"), "{shown}");
    assert!(told.contains("import: 100 %"), "{told}");
    let digest = pull(b.registry, "team/app", "1.0");

    let tar = dir.path().join("app.tar");
    let layout = dir.path().join("layout");
    for target in [&tar, &layout] {
        let target = target.to_str().unwrap();
        let (text, _) = ended(b.admin, &["export", "team/app:1.0", target, "--json"], 0);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["digest"], digest.to_string());
        let args = ["import", target, "other:2", "other:3", "--json"];
        let (text, _) = ended(a.admin, &args, 0);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["images"][1]["name"], "other:3", "{report}");
        assert_eq!(pull(b.registry, "other", "2"), digest);
    }
    let (shown, _) = ended(a.admin, &["import", tar.to_str().unwrap()], 0);
    assert!(shown.contains("0 blobs sent (0 B), 2 were there"), "{shown}");
}

#[test]
fn nothing_gets_a_name_when_something_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let failed = |args: &[&str], code: i32, words: &str| {
        let (_, told) = ended(a.admin, args, code);
        assert!(told.contains(words), "{words:?} in {told}");
    };
    failed(&["import", "/nowhere"], 1, "/nowhere");
    failed(&["export", "team/app:1.0", "x", "y"], 2, "--help");
    failed(&["export", "team/app:1.0", "x.tgz"], 2, "not compressed");
    failed(&["export", "team/app:1.0", "-", "--json"], 2, "--help");
    let target = dir.path().join("out.tar");
    let target = target.to_str().unwrap();
    failed(&["export", "team/app:1.0", target], 1, "nobody holds team/app:1.0");

    push(a.registry, "team/app", "1.0", &[&bytes(2, 100_000)]);
    ended(a.admin, &["export", "team/app:1.0", target], 0);
    let mut tar = fs::read(target).unwrap();
    let layer = bytes(2, 100_000);
    let at = tar.windows(64).position(|window| window == &layer[..64]).unwrap();
    tar[at] ^= 1;
    fs::write(target, &tar).unwrap();
    // In a daemon that has none of it, or it would need nothing of the archive.
    let b = Daemon::start(&dir.path().join("b"), &[]);
    let (_, told) = ended(b.admin, &["import", target], 1);
    assert!(told.contains("is damaged"), "{told}");
    assert_eq!(super::http::get(b.registry, "/v2/team/app/manifests/1.0").status, 404);
    assert!(!dir.path().join("out.tar.part").exists());
}
