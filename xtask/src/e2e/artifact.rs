//! An artifact with a subject (a signature, say), over plain HTTP, and the list of referrers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scenario::explain;
use super::{Setup, http, three_nodes};
use crate::checks::Checks;
use crate::swarm::Node;

const REPOSITORY: &str = "team/artifact";
const OTHER_REPOSITORY: &str = "team/other";
const BLOBS: [(&str, &[u8]); 2] = [("config", b"{}"), ("signature", b"a signature\n")];
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const KIND: &str = "application/vnd.example.signature";

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let mut pushed = None;
    checks.check("artifact: push with a subject on A, list the referrers, pull on C", || {
        explain(&nodes, artifact(&nodes, dir, &mut pushed))
    });
    checks.check("artifact: both manifests and their blob by digest on B", || {
        let pushed = pushed.as_ref().context("nothing was pushed")?;
        explain(&nodes, by_digest(&nodes[1], REPOSITORY, pushed, dir))
    });
    checks.check("artifact: pushed to another repository on B, found there on C at once", || {
        let pushed = pushed.as_ref().context("nothing was pushed")?;
        explain(&nodes, other_repository(&nodes, pushed, dir))
    });
    Ok(())
}

/// Digests of what was pushed.
#[derive(Debug)]
struct Pushed {
    subject: String,
    artifact: String,
    blob: String,
}

fn artifact(nodes: &[Node; 3], dir: &Path, pushed: &mut Option<Pushed>) -> Result<()> {
    let [a, _, c] = nodes;
    let [config, layer] =
        BLOBS.map(|(name, content)| blob(&a.registry, REPOSITORY, dir, name, content));
    let (config, layer) = (config?, layer?);
    let subject = manifest(dir, "subject", &config, &layer, None)?;
    let subject_digest = http::digests(&[&subject])?.remove(0);
    http::push_manifest(&a.registry, REPOSITORY, "1.0", MANIFEST, &subject)?;
    let size = fs::metadata(&subject)?.len();
    let of = json!({ "mediaType": MANIFEST, "digest": subject_digest, "size": size });
    let artifact = manifest(dir, "artifact", &config, &layer, Some(of))?;
    let digest = http::digests(&[&artifact])?.remove(0);
    let answer = http::push_manifest(&a.registry, REPOSITORY, &digest, MANIFEST, &artifact)?;
    ensure!(answer.header("oci-subject") == Some(&subject_digest), "no OCI-Subject: {answer:?}");
    let listed = referrers(a, &subject_digest, "")?;
    ensure!(listed.len() == 1 && listed[0]["digest"] == digest.as_str(), "wrong list: {listed:?}");
    ensure!(listed[0]["artifactType"] == KIND, "no artifact type: {listed:?}");
    let other = referrers(a, &subject_digest, "?artifactType=application/x-other")?;
    ensure!(other.is_empty(), "the filter lets others through: {other:?}");
    let unknown = format!("sha256:{}", "0".repeat(64));
    ensure!(referrers(a, &unknown, "")?.is_empty(), "an unknown subject has referrers");
    let url = format!("http://{}/v2/{REPOSITORY}/manifests/{digest}", c.registry);
    let got = http::request(&url, &["--header", http::ACCEPT])?.expect(200)?;
    ensure!(got.body == fs::read_to_string(&artifact)?, "C gives another manifest: {got:?}");
    *pushed = Some(Pushed {
        subject: subject_digest,
        artifact: digest,
        blob: http::digests(&[dir.join("signature")])?.remove(0),
    });
    Ok(())
}

/// Who holds a digest is asked once for all repositories, but only one that has it in the wanted
/// repository may give it. C has just learnt of A, which has all of it in the first one only.
fn other_repository(nodes: &[Node; 3], pushed: &Pushed, dir: &Path) -> Result<()> {
    let [_, b, c] = nodes;
    by_digest(c, REPOSITORY, pushed, dir)?;
    for (name, content) in BLOBS {
        blob(&b.registry, OTHER_REPOSITORY, dir, name, content)?;
    }
    for (digest, name) in [(&pushed.subject, "subject"), (&pushed.artifact, "artifact")] {
        let file = dir.join(format!("{name}.json"));
        http::push_manifest(&b.registry, OTHER_REPOSITORY, digest, MANIFEST, &file)?;
    }
    by_digest(c, OTHER_REPOSITORY, pushed, dir)
}

fn by_digest(node: &Node, repository: &str, pushed: &Pushed, dir: &Path) -> Result<()> {
    let base = format!("http://{}/v2/{repository}", node.registry);
    for (kind, digest) in
        [("manifests", &pushed.subject), ("manifests", &pushed.artifact), ("blobs", &pushed.blob)]
    {
        let file = dir.join("pulled");
        http::download(&format!("{base}/{kind}/{digest}"), &file)?.expect(200)?;
        let got = http::digests(&[&file])?.remove(0);
        ensure!(got == *digest, "{kind}/{digest} gave {got}");
    }
    Ok(())
}

/// Pushes a blob; its descriptor.
pub(super) fn blob(
    registry: &str,
    repository: &str,
    dir: &Path,
    name: &str,
    content: &[u8],
) -> Result<Value> {
    let file = dir.join(name);
    fs::write(&file, content)?;
    let digest = http::digests(&[&file])?.remove(0);
    http::push_blob(registry, repository, &file, &digest)?;
    let kind = if name == "config" { EMPTY } else { "text/plain" };
    Ok(json!({ "mediaType": kind, "digest": digest, "size": content.len() }))
}

/// Writes a manifest to a file.
pub(super) fn manifest(
    dir: &Path,
    name: &str,
    config: &Value,
    layer: &Value,
    subject: Option<Value>,
) -> Result<PathBuf> {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": KIND,
        "config": config, "layers": [layer], "annotations": { "name": name },
    });
    if let Some(subject) = subject {
        manifest["subject"] = subject;
    }
    let file = dir.join(format!("{name}.json"));
    fs::write(&file, manifest.to_string())?;
    Ok(file)
}

fn referrers(node: &Node, digest: &str, query: &str) -> Result<Vec<Value>> {
    referrers_in(&node.registry, REPOSITORY, digest, query)
}

/// What refers to a manifest of a repository.
pub(super) fn referrers_in(
    registry: &str,
    repository: &str,
    digest: &str,
    query: &str,
) -> Result<Vec<Value>> {
    let url = format!("http://{registry}/v2/{repository}/referrers/{digest}{query}");
    let answer = http::request(&url, &[])?.expect(200)?;
    let index: Value = serde_json::from_str(&answer.body)?;
    Ok(index["manifests"].as_array().context("no list of manifests")?.clone())
}
