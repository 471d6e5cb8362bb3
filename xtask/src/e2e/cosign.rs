//! cosign: signatures and attestations with a key of one's own, without any service.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::go_client::GoClient;
use super::scenario::explain;
use super::{Setup, http, skopeo, three_nodes};
use crate::checks::Checks;
use crate::swarm::Node;
use crate::tools::GoTool;

/// No transparency log, no list of services from the network, no question.
const SIGN: &[&str] = &[
    "--key=own.key",
    "--allow-http-registry",
    "--tlog-upload=false",
    "--use-signing-config=false",
    "--yes",
];

const VERIFY: &[&str] = &["--allow-http-registry", "--insecure-ignore-tlog"];
const OWN_KEY: &str = "--key=own.pub";
const OTHER_KEY: &str = "--key=other.pub";

/// Signatures as older versions write them: in a tag, or as a referrer with a type of its own.
const OLD_FORMAT: &str = "--new-bundle-format=false";

/// One image of its own per way of signing.
const BUNDLE: &str = "signed/bundle";
const TAG: &str = "signed/tag";
const REFERRER: &str = "signed/referrer";
const ATTESTED: &str = "signed/attested";

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let cosign = GoClient::new(setup, GoTool::COSIGN, dir)?
        .with("COSIGN_PASSWORD", "password")
        .with("COSIGN_EXPERIMENTAL", "1");
    for repository in [BUNDLE, TAG, REFERRER, ATTESTED] {
        skopeo::push(&setup.images.one.archive, &super::scenario::at(&nodes[0], repository))?;
    }
    checks.check("cosign: make two pairs of keys", || {
        for name in ["own", "other"] {
            cosign.run(&["generate-key-pair", "--output-key-prefix", name])?;
        }
        Ok(())
    });
    checks.check("cosign: sign on A, verify on B and C, refuse another key", || {
        explain(&nodes, signed(&cosign, &nodes, BUNDLE, &[], &[]))
    });
    checks.check("cosign: the same with the signature in a tag", || {
        explain(&nodes, signed(&cosign, &nodes, TAG, &[OLD_FORMAT], &[OLD_FORMAT]))?;
        explain(&nodes, signature_tag(&nodes))
    });
    checks.check("cosign: the same with the signature as an OCI 1.1 referrer", || {
        let sign = [OLD_FORMAT, "--registry-referrers-mode=oci-1-1"];
        let verify = [OLD_FORMAT, "--experimental-oci11"];
        explain(&nodes, signed(&cosign, &nodes, REFERRER, &sign, &verify))
    });
    checks.check("cosign: attest on A, verify the attestation on B and C", || {
        explain(&nodes, attested(&cosign, &nodes))
    });
    checks.check("cosign: nothing outside was called", || cosign.stayed_at_home());
    Ok(())
}

/// The image of a repository by digest, on a node.
fn image(node: &Node, repository: &str) -> Result<String> {
    let digest = http::digest_of(&node.registry, repository, "1.0")?;
    Ok(format!("{}/{repository}@{digest}", node.registry))
}

fn signed(
    cosign: &GoClient,
    nodes: &[Node; 3],
    repository: &str,
    sign: &[&str],
    verify: &[&str],
) -> Result<()> {
    let [a, b, c] = nodes;
    for node in nodes {
        let unsigned = image(node, repository)?;
        let args = [&["verify", OWN_KEY], VERIFY, verify, &[&unsigned]].concat();
        cosign.refused(&args, "no signatures found")?;
    }
    cosign.run(&[&["sign"], SIGN, sign, &[&image(a, repository)?]].concat())?;
    for node in [b, c] {
        let there = image(node, repository)?;
        let said = cosign.run(&[&["verify", OWN_KEY], VERIFY, verify, &[&there]].concat())?;
        let digest = there.rsplit('@').next().unwrap_or(&there);
        ensure!(said.contains(digest), "{} verified something else: {said}", node.name);
        let other = [&["verify", OTHER_KEY], VERIFY, verify, &[&there]].concat();
        cosign.refused(&other, "ignature")?;
    }
    Ok(())
}

/// A signature in a tag is a manifest like any other.
fn signature_tag(nodes: &[Node; 3]) -> Result<()> {
    let digest = http::digest_of(&nodes[0].registry, TAG, "1.0")?;
    for node in nodes {
        let tag = format!("{}.sig", digest.replace(':', "-"));
        http::digest_of(&node.registry, TAG, &tag)?;
    }
    Ok(())
}

fn attested(cosign: &GoClient, nodes: &[Node; 3]) -> Result<()> {
    let [a, b, c] = nodes;
    fs::write(cosign.home().join("predicate.json"), "{\"tested\":\"yes\"}")?;
    let predicate = ["--type=custom", "--predicate=predicate.json"];
    cosign.run(&[&["attest"], SIGN, &predicate, &[&image(a, ATTESTED)?]].concat())?;
    for node in [b, c] {
        let there = image(node, ATTESTED)?;
        let verify = &["verify-attestation", "--type=custom"][..];
        let said = cosign.run(&[verify, &[OWN_KEY], VERIFY, &[&there]].concat())?;
        ensure!(said.contains("payload"), "no attestation on {}: {said}", node.name);
        let other = [verify, &[OTHER_KEY], VERIFY, &[&there]].concat();
        cosign.refused(&other, "no matching attestations")?;
    }
    Ok(())
}
