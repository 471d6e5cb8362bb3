use serde_json::{Value, json};

use super::*;
use crate::digest::Algorithm;
use crate::media_type::{EMPTY_JSON, OCI_CONFIG, OCI_LAYER_GZIP};

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = Digest::sha256(content.as_bytes());
    json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, "config"),
        "layers": [descriptor(OCI_LAYER_GZIP, "one"), descriptor(OCI_LAYER_GZIP, "two")],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, "m")],
    })
}

fn with(mut document: Value, field: &str, value: Value) -> Value {
    document[field] = value;
    document
}

fn without(mut document: Value, field: &str) -> Value {
    document.as_object_mut().unwrap().remove(field);
    document
}

fn parse(content_type: Option<&str>, document: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(content_type, document.to_string().as_bytes())
}

/// A descriptor as the list of its fields.
fn in_a_list(descriptor: &Value) -> Value {
    let field = |name: &str| descriptor[name].clone();
    json!([field("mediaType"), field("digest"), field("size"), [], {}, null, null, null])
}

#[test]
fn image_has_config_and_layers() {
    let read = parse(Some(OCI_MANIFEST), &image()).unwrap();
    assert_eq!((read.kind, read.media_type.as_str()), (ManifestKind::Image, OCI_MANIFEST));
    assert_eq!(read.layers.len(), 2);
    let required: Vec<Digest> = read.required_blobs().map(|d| d.digest).collect();
    assert_eq!(required, ["config", "one", "two"].map(|c| Digest::sha256(c.as_bytes())));
}

#[test]
fn index_requires_no_blobs() {
    let read = parse(Some(OCI_INDEX), &index()).unwrap();
    assert_eq!((read.kind, read.manifests.len()), (ManifestKind::Index, 1));
    assert_eq!(read.required_blobs().count(), 0);
}

#[test]
fn foreign_layers_are_not_demanded() {
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let layers = json!([descriptor(media_type, "far"), descriptor(OCI_LAYER_GZIP, "near")]);
        let read = parse(None, &with(image(), "layers", layers)).unwrap();
        let required: Vec<Digest> = read.required_blobs().map(|d| d.digest).collect();
        assert_eq!(required, ["config", "near"].map(|c| Digest::sha256(c.as_bytes())));
    }
}

#[test]
fn media_type_comes_from_header_then_field_then_shape() {
    for (content_type, document, expected) in [
        (Some(OCI_MANIFEST), without(image(), "mediaType"), OCI_MANIFEST),
        (Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), image(), OCI_MANIFEST),
        (Some(""), image(), OCI_MANIFEST),
        (None, image(), OCI_MANIFEST),
        (None, without(image(), "mediaType"), OCI_MANIFEST),
        (None, without(index(), "mediaType"), OCI_INDEX),
        (Some(DOCKER_MANIFEST), without(image(), "mediaType"), DOCKER_MANIFEST),
        (None, with(image(), "mediaType", DOCKER_MANIFEST.into()), DOCKER_MANIFEST),
        (None, with(index(), "mediaType", DOCKER_LIST.into()), DOCKER_LIST),
        (Some(OCI_INDEX), with(index(), "mediaType", Value::Null), OCI_INDEX),
    ] {
        assert_eq!(parse(content_type, &document).unwrap().media_type, expected, "{document}");
    }
}

#[test]
fn empty_and_null_lists_are_accepted() {
    for list in [json!([]), Value::Null] {
        assert!(parse(None, &with(image(), "layers", list.clone())).unwrap().layers.is_empty());
        assert!(parse(None, &with(index(), "manifests", list)).unwrap().manifests.is_empty());
    }
    assert!(parse(None, &with(image(), "annotations", Value::Null)).is_ok());
    assert!(parse(None, &with(image(), "unknownField", json!({"a": [1]}))).is_ok());
}

#[test]
fn table_of_refusals() {
    use ManifestError::{
        Ambiguous, ConfigMissing, MediaType, MediaTypeMismatch, Schema1, SchemaVersion,
    };
    let members = index()["manifests"].clone();
    let layers = image()["layers"].clone();
    let config = image()["config"].clone();
    for (content_type, document, expected) in [
        (Some(OCI_INDEX), image(), MediaTypeMismatch),
        (Some(DOCKER_MANIFEST), image(), MediaTypeMismatch),
        (Some("application/json"), without(image(), "mediaType"), MediaType),
        (Some("application/json"), image(), MediaTypeMismatch),
        (None, with(image(), "mediaType", "text/plain".into()), MediaType),
        (None, json!({"schemaVersion": 2}), MediaType),
        (None, without(image(), "config"), ConfigMissing),
        (None, without(image(), "schemaVersion"), SchemaVersion),
        (None, with(image(), "schemaVersion", 3.into()), SchemaVersion),
        (None, with(image(), "schemaVersion", 1.into()), Schema1),
        (Some(DOCKER_SCHEMA1_SIGNED), image(), Schema1),
        (None, with(image(), "mediaType", DOCKER_SCHEMA1.into()), Schema1),
        // CVE-2021-41190: one document, two meanings.
        (Some(OCI_MANIFEST), with(image(), "manifests", members.clone()), Ambiguous),
        (Some(OCI_MANIFEST), with(image(), "manifests", json!([])), Ambiguous),
        (Some(OCI_INDEX), with(index(), "layers", layers), Ambiguous),
        (Some(OCI_INDEX), with(index(), "config", config), Ambiguous),
        (None, without(with(image(), "manifests", members), "mediaType"), Ambiguous),
        (Some(OCI_MANIFEST), with(image(), "fsLayers", json!([])), Ambiguous),
        (Some(OCI_INDEX), with(index(), "fsLayers", json!([{}])), Ambiguous),
    ] {
        let error = parse(content_type, &document).unwrap_err();
        assert_eq!(error, expected, "{content_type:?} {document}");
        assert_eq!((error.code(), error.status()), (ErrorCode::ManifestInvalid, 400));
    }
}

#[test]
fn broken_json_and_fields_are_named() {
    let bad_digest = with(image(), "config", json!({"mediaType": "a", "digest": "x", "size": 1}));
    for text in [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"x\"".to_owned(),
        "\u{feff}{}".to_owned(),
        format!("{} x", image()),
        bad_digest.to_string(),
        with(image(), "layers", json!({})).to_string(),
        with(image(), "annotations", json!({"a": 1})).to_string(),
        with(image(), "schemaVersion", json!("2")).to_string(),
        with(image(), "subject", json!([])).to_string(),
        // The parser would take the members of a list for the fields of an object.
        with(image(), "config", in_a_list(&image()["config"])).to_string(),
        with(image(), "subject", in_a_list(&image()["config"])).to_string(),
        with(image(), "layers", json!([in_a_list(&image()["config"])])).to_string(),
        json!([2]).to_string(),
        json!([2, OCI_MANIFEST, image()["config"], [], null, null, null, null, null]).to_string(),
        image().to_string().replacen('{', r#"{"layers":[],"#, 1),
        "[".repeat(100_000),
    ] {
        let error = Manifest::parse(None, text.as_bytes()).unwrap_err();
        let short: String = text.chars().take(80).collect();
        assert!(matches!(error, ManifestError::Json { .. }), "{short}: {error}");
    }
    assert!(Manifest::parse(None, b"\xff\xfe").is_err());
}

#[test]
fn errors_stay_short() {
    let document = with(image(), "layers", json!("é".repeat(100_000)));
    let message = parse(None, &document).unwrap_err().to_string();
    assert!(message.len() < 300, "{} bytes", message.len());
}

#[test]
fn limit_is_on_bytes_and_answers_413() {
    let mut bytes = image().to_string().into_bytes();
    bytes.resize(MAX_MANIFEST_BYTES, b' ');
    assert!(Manifest::parse(None, &bytes).is_ok());
    bytes.push(b' ');
    let error = Manifest::parse(None, &bytes).unwrap_err();
    assert_eq!(error, ManifestError::TooLarge { size: MAX_MANIFEST_BYTES + 1 });
    assert_eq!((error.code(), error.status()), (ErrorCode::SizeInvalid, 413));
}

#[test]
fn referrer_descriptor_follows_the_specification() {
    let subject = descriptor(OCI_MANIFEST, "subject");
    let digest = Digest::of(Algorithm::Sha512, b"self");
    let listed = |document: &Value| {
        let manifest = parse(None, document).unwrap();
        assert_eq!(manifest.subject.as_ref().unwrap().digest, Digest::sha256(b"subject"));
        manifest.referrer_descriptor(digest, 42)
    };

    let plain = with(image(), "subject", subject.clone());
    let stated = with(plain.clone(), "artifactType", "text/sig".into());
    let noted = with(stated.clone(), "annotations", json!({"k": "v"}));
    let read = listed(&noted);
    assert_eq!((read.media_type.as_str(), read.digest, read.size), (OCI_MANIFEST, digest, 42));
    assert_eq!(read.artifact_type.as_deref(), Some("text/sig"));
    assert_eq!(read.annotations["k"], "v");

    assert_eq!(listed(&plain).artifact_type.as_deref(), Some(OCI_CONFIG));
    let empty = with(plain, "artifactType", "".into());
    assert_eq!(listed(&empty).artifact_type.as_deref(), Some(OCI_CONFIG));
    let empty_config = with(stated, "config", descriptor(EMPTY_JSON, "{}"));
    assert_eq!(listed(&empty_config).artifact_type.as_deref(), Some("text/sig"));

    let list = with(index(), "subject", subject);
    assert_eq!(listed(&list).artifact_type, None);
    let list = with(list, "artifactType", "text/list".into());
    assert_eq!(listed(&list).artifact_type.as_deref(), Some("text/list"));
}
