//! distribution-spec, "Endpoints": one case for every row of the table.

use ddr_oci::route::{Request, parse};
use ddr_oci::{Algorithm, Digest, Reference, RepositoryName, Tag};

fn name() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

struct Row {
    id: &'static str,
    methods: &'static [&'static str],
    target: String,
    expected: Request,
}

fn row(
    id: &'static str,
    methods: &'static [&'static str],
    target: impl Into<String>,
    expected: Request,
) -> Row {
    Row { id, methods, target: target.into(), expected }
}

fn pulls() -> Vec<Row> {
    let digest = Digest::sha256(b"blob");
    let long = Digest::of(Algorithm::Sha512, b"blob");
    let by_tag = Reference::Tag(tag("v1.0"));
    let by_digest = Reference::Digest(digest);
    let read = &["GET", "HEAD"];
    vec![
        row("end-1", read, "/v2/", Request::Ping),
        row(
            "end-2",
            read,
            format!("/v2/team/app/blobs/{digest}"),
            Request::Blob { name: name(), digest },
        ),
        row(
            "end-2 sha512",
            read,
            format!("/v2/team/app/blobs/{long}"),
            Request::Blob { name: name(), digest: long },
        ),
        row(
            "end-3 tag",
            read,
            "/v2/team/app/manifests/v1.0",
            Request::Manifest { name: name(), reference: by_tag },
        ),
        row(
            "end-3 digest",
            read,
            format!("/v2/team/app/manifests/{digest}"),
            Request::Manifest { name: name(), reference: by_digest },
        ),
    ]
}

fn uploads() -> Vec<Row> {
    let digest = Digest::sha256(b"blob");
    let id = || "0f3a-77_b".to_owned();
    let session = "/v2/team/app/blobs/uploads/0f3a-77_b";
    let start = "/v2/team/app/blobs/uploads/";
    let started =
        |digest, algorithm, mount| Request::UploadStart { name: name(), digest, algorithm, mount };
    let other: RepositoryName = "other/repo".parse().unwrap();
    vec![
        row("end-4a", &["POST"], start, started(None, None, None)),
        row(
            "end-4b",
            &["POST"],
            format!("{start}?digest={digest}"),
            started(Some(digest), None, None),
        ),
        row(
            "end-4c",
            &["POST"],
            format!("{start}?digest-algorithm=sha512"),
            started(None, Some(Algorithm::Sha512), None),
        ),
        row("end-5", &["PATCH"], session, Request::UploadPatch { name: name(), id: id() }),
        row(
            "end-6",
            &["PUT"],
            format!("{session}?digest={digest}"),
            Request::UploadPut { name: name(), id: id(), digest },
        ),
        row(
            "end-11",
            &["POST"],
            format!("{start}?mount={digest}&from=other%2Frepo"),
            started(None, None, Some((digest, Some(other)))),
        ),
        row(
            "end-11 anonymous",
            &["POST"],
            format!("{start}?mount={digest}"),
            started(None, None, Some((digest, None))),
        ),
        row("end-13", &["GET", "HEAD"], session, Request::UploadStatus { name: name(), id: id() }),
        row("end-14", &["DELETE"], session, Request::UploadCancel { name: name(), id: id() }),
    ]
}

fn manifests_and_deletes() -> Vec<Row> {
    let digest = Digest::sha256(b"blob");
    let by_tag = || Reference::Tag(tag("v1.0"));
    let by_digest = || Reference::Digest(digest);
    let put = |reference, tags| Request::ManifestPut { name: name(), reference, tags };
    let delete = |reference| Request::ManifestDelete { name: name(), reference };
    let manifest = "/v2/team/app/manifests";
    vec![
        row("end-7a tag", &["PUT"], format!("{manifest}/v1.0"), put(by_tag(), vec![])),
        row("end-7a digest", &["PUT"], format!("{manifest}/{digest}"), put(by_digest(), vec![])),
        row(
            "end-7b",
            &["PUT"],
            format!("{manifest}/{digest}?tag=a&tag=b"),
            put(by_digest(), vec![tag("a"), tag("b")]),
        ),
        row("end-9 tag", &["DELETE"], format!("{manifest}/v1.0"), delete(by_tag())),
        row("end-9 digest", &["DELETE"], format!("{manifest}/{digest}"), delete(by_digest())),
        row(
            "end-10",
            &["DELETE"],
            format!("/v2/team/app/blobs/{digest}"),
            Request::BlobDelete { name: name(), digest },
        ),
    ]
}

fn lists() -> Vec<Row> {
    let digest = Digest::sha256(b"blob");
    let read = &["GET", "HEAD"];
    let list =
        |n, last: Option<&str>| Request::TagList { name: name(), n, last: last.map(str::to_owned) };
    let referrers = |artifact_type: Option<&str>| Request::Referrers {
        name: name(),
        digest,
        artifact_type: artifact_type.map(str::to_owned),
        n: None,
        last: None,
    };
    let next = Request::Referrers {
        name: name(),
        digest,
        artifact_type: None,
        n: Some(2),
        last: Some(digest),
    };
    let tags = "/v2/team/app/tags/list";
    vec![
        row("end-8a", read, tags, list(None, None)),
        row("end-8b", read, format!("{tags}?n=3&last=v1.0"), list(Some(3), Some("v1.0"))),
        row("end-12a", read, format!("/v2/team/app/referrers/{digest}"), referrers(None)),
        row(
            "end-12b",
            read,
            format!("/v2/team/app/referrers/{digest}?artifactType=application%2Fvnd.x%2Bjson"),
            referrers(Some("application/vnd.x+json")),
        ),
        row(
            "end-12a page",
            read,
            format!("/v2/team/app/referrers/{digest}?n=2&last={digest}"),
            next,
        ),
        row("catalog", read, "/v2/_catalog", Request::Catalog { n: None, last: None }),
        row(
            "catalog page",
            read,
            "/v2/_catalog?n=100&last=team%2Fapp",
            Request::Catalog { n: Some(100), last: Some("team/app".to_owned()) },
        ),
    ]
}

#[test]
fn every_row_of_the_endpoint_table() {
    for row in [pulls(), uploads(), manifests_and_deletes(), lists()].into_iter().flatten() {
        let encoded = row.target.replace(':', "%3A");
        for target in [&row.target, &encoded] {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target.as_str(), None),
            };
            for method in row.methods {
                let read = parse(method, path, query);
                assert_eq!(read.as_ref(), Ok(&row.expected), "{}: {method} {target}", row.id);
            }
        }
    }
}
