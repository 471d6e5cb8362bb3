//! end-12a, end-12b, and the subject of end-7a.

use ddr_oci::digest::Algorithm;
use ddr_oci::digest::Digest;
use ddr_oci::media_type::{EMPTY_JSON, OCI_INDEX, OCI_MANIFEST};
use ddr_registry::Limits;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::node::TestNode;
use crate::server::{Image, Server};

fn manifests(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], OCI_INDEX);
    index["manifests"].as_array().expect("manifests is a list").clone()
}

async fn artifact(server: &Server, name: &str, kind: &str, subject: Digest) -> Image {
    let empty = server.push_blob(name, b"{}").await;
    let empty = json!({ "mediaType": EMPTY_JSON, "digest": empty, "size": 2 });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [empty],
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 },
        "annotations": { "made.for": "a test" },
    });
    Image { bytes: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST }
}

#[tokio::test]
async fn an_unknown_subject_has_an_empty_list() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"unknown");
    let answer = server.get(&format!("/v2/nowhere/referrers/{digest}")).await;
    assert!(manifests(&answer).is_empty());
    assert_eq!(answer.header("oci-filters-applied"), None);
    server.get("/v2/nowhere/referrers/sha256:zz").await.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn referrers_are_listed_and_filtered_and_go_with_their_manifest() {
    let server = Server::start().await;
    // The subject need not exist.
    let subject = Digest::sha256(b"subject");
    let signature = artifact(&server, "art", "text/signature", subject).await;
    let sbom = artifact(&server, "art", "text/sbom+json", subject).await;
    for image in [&signature, &sbom] {
        let reference = image.digest().to_string();
        let answer = server.put_manifest("art", &reference, image).await.expect(201);
        assert_eq!(answer.header("oci-subject"), Some(subject.to_string().as_str()));
    }
    let list = format!("/v2/art/referrers/{subject}");
    assert_eq!(manifests(&server.get(&list).await).len(), 2);

    let answer = server.get(&format!("{list}?artifactType=text%2Fsbom%2Bjson")).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    let found = manifests(&answer);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], sbom.digest().to_string());
    assert_eq!(found[0]["size"], sbom.bytes.len());
    assert_eq!(found[0]["mediaType"], OCI_MANIFEST);
    assert_eq!(found[0]["artifactType"], "text/sbom+json");
    assert_eq!(found[0]["annotations"]["made.for"], "a test");

    let answer = server.get(&format!("{list}?artifactType=none/such")).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    assert!(manifests(&answer).is_empty());

    server.delete(&format!("/v2/art/manifests/{}", sbom.digest())).await.expect(202);
    let found = manifests(&server.get(&list).await);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], signature.digest().to_string());
}

/// Follows the links; how many referrers were on each page, and all of them.
async fn walk(server: &Server, first: &str) -> (Vec<usize>, Vec<Value>) {
    let (mut counts, mut all) = (Vec::new(), Vec::new());
    let mut target = Some(first.to_owned());
    while let Some(at) = target {
        let answer = server.get(&at).await;
        let page = manifests(&answer);
        let filtered = at.contains("artifactType=").then_some("artifactType");
        assert_eq!(answer.header("oci-filters-applied"), filtered, "{at}");
        counts.push(page.len());
        all.extend(page);
        target = answer.header("link").map(|link| {
            let (target, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
            assert_eq!(rest, "; rel=\"next\"");
            target.to_owned()
        });
    }
    (counts, all)
}

#[tokio::test]
async fn referrers_in_pages_with_their_filter() {
    let server = Server::start_with(Limits { page: 4, ..Limits::default() }).await;
    let subject = Digest::sha256(b"subject");
    for n in 0..9 {
        let kind = if n % 2 == 0 { "text/even; q=\"1&2\"" } else { "text/odd" };
        let image = artifact(&server, "art", kind, subject).await;
        let text = String::from_utf8(image.bytes).unwrap().replace("a test", &n.to_string());
        let image = Image { bytes: text.into_bytes(), media_type: OCI_MANIFEST };
        server.put_manifest("art", &image.digest().to_string(), &image).await.expect(201);
    }
    let list = format!("/v2/art/referrers/{subject}");
    let even = "artifactType=text%2Feven%3B%20q%3D%221%262%22";
    for (query, counts) in [
        (String::new(), vec![4, 4, 1]),
        ("?n=3".into(), vec![3, 3, 3]),
        ("?n=1000000000000".into(), vec![4, 4, 1]),
        ("?n=0".into(), vec![0]),
        (format!("?{even}"), vec![4, 1]),
        (format!("?n=2&{even}"), vec![2, 2, 1]),
        (format!("?last=sha512:{}", "f".repeat(128)), vec![0]),
    ] {
        let (found, all) = walk(&server, &format!("{list}{query}")).await;
        assert_eq!(found, counts, "{query}");
        let mut digests: Vec<_> = all.iter().map(|one| one["digest"].to_string()).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), counts.iter().sum::<usize>(), "{query}: none twice");
    }
    for query in ["n=-1", "n=x", "last=zzz", "last=sha256:00"] {
        server.get(&format!("{list}?{query}")).await.expect_error(400, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_page_of_referrers_is_no_larger_than_a_manifest() {
    let server = Server::start().await;
    let subject = Digest::sha256(b"subject");
    for n in 0..5 {
        let image = artifact(&server, "art", "text/big", subject).await;
        let text = String::from_utf8(image.bytes).unwrap();
        let bytes = text.replace("a test", &n.to_string().repeat(1_500_000)).into_bytes();
        let image = Image { bytes, media_type: OCI_MANIFEST };
        server.put_manifest("art", &image.digest().to_string(), &image).await.expect(201);
    }
    let list = format!("/v2/art/referrers/{subject}");
    let (counts, _) = walk(&server, &list).await;
    assert_eq!(counts, [2, 2, 1]);
    assert!(server.get(&list).await.body.len() <= 4 * 1024 * 1024);
}

/// Pushes `index` under the tag in which old clients keep the referrers of `subject`.
async fn push_tag(server: &Server, name: &str, subject: &Digest, entries: &[Value]) {
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let index = Image { bytes: index.to_string().into_bytes(), media_type: OCI_INDEX };
    let hex = &subject.hex()[..64];
    let tag = format!("{}-{hex}", subject.algorithm());
    server.put_manifest(name, &tag, &index).await.expect(201);
}

#[tokio::test]
async fn entries_of_a_referrers_tag_are_folded_in() {
    let server = Server::start().await;
    for subject in [Digest::sha256(b"old"), Digest::of(Algorithm::Sha512, b"old")] {
        let listed = artifact(&server, "art", "text/listed", subject).await;
        let other = artifact(&server, "art", "text/other", Digest::sha256(b"other")).await;
        let gone = Digest::sha256(b"gone");
        for image in [&listed, &other] {
            let digest = image.digest().to_string();
            server.put_manifest("art", &digest, image).await.expect(201);
        }
        // A poor descriptor, as old clients write it; one of another subject; one that is gone.
        let entry = |digest: Digest, size: usize| json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": size });
        let entries = [
            entry(listed.digest(), listed.bytes.len()),
            entry(other.digest(), other.bytes.len()),
            entry(gone, 7),
        ];
        push_tag(&server, "art", &subject, &entries).await;
        let answer = server.get(&format!("/v2/art/referrers/{subject}")).await;
        let found = manifests(&answer);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["digest"], listed.digest().to_string());
        assert_eq!(found[0]["artifactType"], "text/listed");
        assert_eq!(found[0]["annotations"]["made.for"], "a test");
        assert_eq!(answer.header("warning"), None);
    }
}

#[tokio::test]
async fn a_referrers_tag_leads_to_what_another_node_holds() {
    let [one, two] = TestNode::pair().await;
    let here = Server::around(one, Limits::default()).await;
    let there = Server::around(two, Limits::default()).await;
    let subject = Digest::sha256(b"old");
    let image = artifact(&here, "art", "text/listed", subject).await;
    here.put_manifest("art", &image.digest().to_string(), &image).await.expect(201);
    let entry = json!({ "mediaType": OCI_MANIFEST, "digest": image.digest(), "size": 1 });
    push_tag(&here, "art", &subject, &[entry]).await;
    let found = manifests(&there.get(&format!("/v2/art/referrers/{subject}")).await);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["artifactType"], "text/listed");
    assert_eq!(found[0]["size"], image.bytes.len());
}
