//! The rules of the specification that are easy to miss, one test each.

use ddr_oci::error::{self, ErrorCode};
use ddr_oci::manifest::{MAX_MANIFEST_BYTES, Manifest};
use ddr_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use ddr_oci::route::{self, Request, RouteError};
use ddr_oci::{
    Algorithm, Descriptor, Digest, RangeOutcome, RepositoryName, Tag, byte_range, content_range,
    referrers,
};
use serde_json::{Value, json};

fn image(subject: Option<&Descriptor>, layers: &[Descriptor]) -> Value {
    let config = Descriptor::new(OCI_CONFIG, Digest::sha256(b"{}"), 2);
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": config, "layers": layers, "subject": subject,
    })
}

fn read(document: &Value) -> Manifest {
    Manifest::parse(Some(OCI_MANIFEST), document.to_string().as_bytes()).unwrap()
}

#[test]
fn name_components_take_every_separator_of_the_grammar() {
    for (text, valid) in [
        ("a.b", true),
        ("a_b", true),
        ("a__b", true),
        ("a-b", true),
        ("a-----b", true),
        ("a..b", false),
        ("a___b", false),
        ("a.-b", false),
        ("A", false),
    ] {
        assert_eq!(text.parse::<RepositoryName>().is_ok(), valid, "{text}");
    }
}

#[test]
fn tags_have_128_characters_and_no_leading_dot_or_dash() {
    for (text, valid) in [
        ("_".repeat(128), true),
        ("_".repeat(129), false),
        ("A.b-c_1".to_owned(), true),
        (".a".to_owned(), false),
        ("-a".to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(text.parse::<Tag>().is_ok(), valid, "{text}");
    }
}

#[test]
fn a_missing_subject_is_no_blob_that_must_be_there() {
    let subject = Descriptor::new(OCI_MANIFEST, Digest::sha256(b"not there"), 9);
    let manifest = read(&image(Some(&subject), &[]));
    assert_eq!(manifest.subject, Some(subject));
    assert_eq!(manifest.required_blobs().count(), 1, "only the config");
}

#[test]
fn foreign_layers_with_urls_are_not_demanded() {
    let foreign_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let mut foreign = Descriptor::new(foreign_type, Digest::sha256(b"far"), 3);
    foreign.urls.push("https://example.com/far".to_owned());
    let near = Descriptor::new(OCI_LAYER_GZIP, Digest::sha256(b"near"), 4);
    let manifest = read(&image(None, &[foreign, near.clone()]));
    assert!(manifest.required_blobs().any(|blob| *blob == near));
    assert_eq!(manifest.required_blobs().count(), 2, "config and the near layer");
}

#[test]
fn manifests_of_four_megabytes_are_read_and_larger_ones_are_413() {
    let mut document = image(None, &[]);
    document["annotations"] = json!({ "fill": "x".repeat(4_000_000) });
    assert_eq!(read(&document).annotations["fill"].len(), 4_000_000);
    let error = Manifest::parse(None, &vec![b' '; MAX_MANIFEST_BYTES + 1]).unwrap_err();
    assert_eq!(error.status(), 413);
}

#[test]
fn referrer_type_is_the_stated_one_else_that_of_the_config_else_none() {
    let digest = Digest::sha256(b"self");
    let mut document = image(None, &[]);
    let listed = |document: &Value| read(document).referrer_descriptor(digest, 1).artifact_type;
    assert_eq!(listed(&document).as_deref(), Some(OCI_CONFIG));
    document["artifactType"] = json!("text/sig");
    assert_eq!(listed(&document).as_deref(), Some("text/sig"));
    let index = referrers::index(&[]);
    let index = Manifest::parse(Some(OCI_INDEX), &index).unwrap();
    assert_eq!(index.referrer_descriptor(digest, 1).artifact_type, None);
}

#[test]
fn fallback_tags_are_cut_at_64_hex_digits() {
    let tag = referrers::fallback_tag(&Digest::of(Algorithm::Sha512, b"x"));
    assert_eq!(tag.as_str().len(), "sha512-".len() + 64);
}

#[test]
fn unsupported_and_malformed_digests_are_400_never_500() {
    let hex = Digest::sha256(b"").hex();
    for digest in ["sha256:totallywrong", "sha256:", "md5:00", &hex, &format!("sha384:{hex}")] {
        let blob = format!("/v2/a/blobs/{digest}");
        let put = format!("digest={digest}");
        for error in [
            route::parse("GET", &blob, None).unwrap_err(),
            route::parse("POST", "/v2/a/blobs/uploads/", Some(&put)).unwrap_err(),
            route::parse("PUT", "/v2/a/blobs/uploads/x", Some(&put)).unwrap_err(),
        ] {
            assert_eq!((error.status(), error.code()), (400, ErrorCode::DigestInvalid), "{digest}");
        }
    }
}

#[test]
fn error_bodies_have_the_json_of_the_specification() {
    for code in ErrorCode::ALL {
        let body: Value = serde_json::from_slice(&error::body(code, "m", None)).unwrap();
        assert_eq!(body, json!({ "errors": [{ "code": code.as_str(), "message": "m" }] }));
    }
}

#[test]
fn at_least_ten_tag_parameters_are_taken() {
    let digest = Digest::sha256(b"");
    let query: Vec<String> = (0..10).map(|i| format!("tag=t{i}")).collect();
    let path = format!("/v2/a/manifests/{digest}");
    match route::parse("PUT", &path, Some(&query.join("&"))) {
        Ok(Request::ManifestPut { tags, .. }) => assert_eq!(tags.len(), 10),
        other => panic!("{other:?}"),
    }
}

#[test]
fn page_of_zero_is_a_page_and_last_works_alone() {
    let list = |query| route::parse("GET", "/v2/a/tags/list", Some(query)).unwrap();
    assert!(matches!(list("n=0"), Request::TagList { n: Some(0), last: None, .. }));
    assert!(matches!(list("last=x"), Request::TagList { n: None, last: Some(_), .. }));
}

#[test]
fn the_host_parameter_of_mirrors_is_ignored() {
    let plain = route::parse("GET", "/v2/a/manifests/x", None);
    assert_eq!(route::parse("GET", "/v2/a/manifests/x", Some("ns=docker.io")), plain);
}

#[test]
fn upload_ranges_have_no_unit() {
    assert_eq!(content_range("0-99"), Some((0, 99)));
    assert_eq!(content_range("bytes=0-99"), None);
    assert_eq!(content_range("bytes 0-99/100"), None);
}

#[test]
fn the_six_ranges_that_conformance_asks_for() {
    for (header, expected) in [
        ("bytes=10-19", RangeOutcome::Part { start: 10, end: 20 }),
        ("bytes=10-", RangeOutcome::Part { start: 10, end: 500 }),
        ("bytes=-10", RangeOutcome::Part { start: 490, end: 500 }),
        ("bytes=490-1000", RangeOutcome::Part { start: 490, end: 500 }),
        ("bytes=500-0", RangeOutcome::Unsatisfiable),
        ("bytes=500-600", RangeOutcome::Unsatisfiable),
    ] {
        assert_eq!(byte_range(Some(header), 500), expected, "{header}");
    }
}

#[test]
fn an_unreadable_tag_is_a_missing_manifest() {
    let error = route::parse("GET", "/v2/a/manifests/.INVALID_MANIFEST_NAME", None);
    assert_eq!(error, Err(RouteError::ManifestUnknown));
    assert_eq!(RouteError::ManifestUnknown.status(), 404);
}
