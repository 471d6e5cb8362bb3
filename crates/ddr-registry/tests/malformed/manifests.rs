//! Documents that are almost manifests.

use serde_json::{Value, json};

use crate::chance::Chance;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const HEX: &str = "0123456789abcdef";

fn descriptor(chance: &mut Chance, media_type: &str) -> Value {
    let digest = format!("sha256:{}", chance.text(HEX, 64));
    json!({ "mediaType": media_type, "digest": digest, "size": chance.below(1_000_000) })
}

/// A manifest of either kind and its type, well formed.
pub(crate) fn good(chance: &mut Chance) -> (&'static str, Value) {
    if chance.below(2) == 0 {
        let layers: Vec<Value> =
            (0..chance.below(4)).map(|_| descriptor(chance, "text/layer")).collect();
        let config = descriptor(chance, "text/config");
        let document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers
        });
        return (MANIFEST, document);
    }
    let manifests: Vec<Value> =
        (0..chance.range(1..4)).map(|_| descriptor(chance, MANIFEST)).collect();
    (INDEX, json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))
}

/// Something that no registry may take for a manifest, and the type that is claimed for it.
pub(crate) fn bad(chance: &mut Chance) -> (String, Vec<u8>) {
    let (media_type, document) = good(chance);
    let text = document.to_string();
    match chance.below(8) {
        // Half of it.
        0 => (media_type.into(), text.as_bytes()[..chance.below(text.len())].to_vec()),
        // Nested beyond all measure, in a place where anything may stand.
        1 => {
            let depth = chance.range(200..50_000);
            let (open, close) = if chance.below(2) == 0 { ("[", "]") } else { ("{\"a\":", "}") };
            let inner = if open == "[" { "" } else { "0" };
            let deep = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            (media_type.into(), text.replacen('{', &format!("{{\"x\":{deep},"), 1).into_bytes())
        }
        // A field twice.
        2 => {
            let (field, value) = twice(&document, chance);
            (
                media_type.into(),
                text.replacen('{', &format!("{{\"{field}\":{value},"), 1).into_bytes(),
            )
        }
        // Fields of both kinds.
        3 => {
            let mut both = document;
            for field in ["config", "layers", "manifests", "fsLayers"] {
                if both[field].is_null() {
                    both[field] =
                        if field == "config" { descriptor(chance, "text/c") } else { json!([]) };
                }
            }
            (media_type.into(), both.to_string().into_bytes())
        }
        4 => (media_type.into(), wrong_type(document, chance).to_string().into_bytes()),
        5 => (media_type.into(), wrong_descriptor(document, chance).to_string().into_bytes()),
        // A claim that does not fit.
        6 => (
            chance
                .one_of(&[
                    "application/vnd.docker.distribution.manifest.v1+json",
                    "application/vnd.docker.distribution.manifest.v2+json",
                    "text/html",
                    "application/json",
                    "*/*",
                ])
                .to_owned(),
            text.into_bytes(),
        ),
        // No JSON at all, or none that is an object.
        _ => {
            let len = chance.below(50);
            let noise: Vec<u8> = (0..len).map(|_| chance.below(256) as u8).collect();
            let other: &[&[u8]] =
                &[b"", b"null", b"7", b"\"x\"", b"[]", b"{}", b"\xff\xfe{", &noise];
            let body = chance.one_of(other).to_vec();
            (media_type.into(), body)
        }
    }
}

/// A field of the document once more, with a value that would do alone.
fn twice(document: &Value, chance: &mut Chance) -> (&'static str, String) {
    let fields = ["schemaVersion", "mediaType", "config", "layers", "manifests"];
    let there: Vec<&'static str> =
        fields.into_iter().filter(|field| !document[*field].is_null()).collect();
    let field = there[chance.below(there.len())];
    (field, document[field].to_string())
}

/// A field of another type than it has.
fn wrong_type(mut document: Value, chance: &mut Chance) -> Value {
    let list = if document["config"].is_null() { "manifests" } else { "layers" };
    let one = descriptor(chance, "text/x");
    let in_a_list = json!([one["mediaType"], one["digest"], one["size"], [], {}, null, null, null]);
    let (field, value) = match chance.below(16) {
        0 => ("schemaVersion", json!("2")),
        1 => ("schemaVersion", json!(chance.range(3..100))),
        2 => ("schemaVersion", json!(2.5)),
        3 => ("schemaVersion", json!(-2)),
        4 => ("schemaVersion", Value::Null),
        5 => ("mediaType", json!(7)),
        6 => (list, json!({})),
        7 => (list, json!("x")),
        8 => (list, json!([[]])),
        9 => (list, json!([one["digest"]])),
        10 => (list, json!([in_a_list])),
        11 => ("annotations", json!({ "a": chance.below(9) })),
        12 => ("annotations", json!([])),
        13 => ("subject", in_a_list),
        14 => ("subject", json!(one["digest"])),
        _ => ("artifactType", json!({})),
    };
    document[field] = value;
    document
}

/// A descriptor in which something is missing or cannot be.
fn wrong_descriptor(mut document: Value, chance: &mut Chance) -> Value {
    let mut one = descriptor(chance, "text/x");
    let short = chance.below(64);
    match chance.below(9) {
        0 => drop(one.as_object_mut().unwrap().remove("digest")),
        1 => drop(one.as_object_mut().unwrap().remove("size")),
        2 => drop(one.as_object_mut().unwrap().remove("mediaType")),
        3 => one["size"] = json!(-1),
        4 => one["size"] = json!("1"),
        5 => one["size"] = json!(1e30),
        6 => one["digest"] = json!(format!("sha256:{}", chance.text(HEX, short))),
        7 => one["digest"] = json!(format!("sha256:{}G", chance.text(HEX, 63))),
        _ => one["annotations"] = json!({ "k": [] }),
    }
    let field = match (chance.below(3), document["config"].is_null()) {
        (0, _) => "subject",
        (1, false) => "config",
        (_, false) => "layers",
        (_, true) => "manifests",
    };
    document[field] = if matches!(field, "layers" | "manifests") { json!([one]) } else { one };
    document
}
