//! Invariants of the decoders of `ddr-oci`.
//!
//! Everything that is accepted is written back in a form that reads as the same value, and no
//! answer goes past its stated bounds.

use ddr_oci::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestKind};
use ddr_oci::piece_chain::{ChainHasher, MAX_CHAIN_BYTES, MAX_PIECES, PieceChain};
use ddr_oci::reference::{ImageReference, MAX_HOST_BYTES, Reference, RepositoryName, Tag};
use ddr_oci::route;
use ddr_oci::{Algorithm, Descriptor, Digest, Mirrored, UpstreamHost};

/// A digest as text and in JSON.
pub(crate) fn digest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert_eq!(Digest::from_parts(digest.algorithm(), digest.as_bytes()), Some(digest));
    let json = serde_json::to_string(&digest).expect("a digest is a JSON string");
    assert_eq!(serde_json::from_str::<Digest>(&json).expect("its own JSON"), digest);
}

/// Names, tags, references and image references.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 255 && text.is_ascii() && !text.contains(".."));
        if let Some(mirrored) = Mirrored::of(&name) {
            assert!(Mirrored::is_reserved(&name));
            mirrored_name(mirrored);
        }
    }
    if let Ok(host) = text.parse::<UpstreamHost>() {
        assert_eq!(host.as_str(), text);
        let repository = "team/app".parse().expect("a name");
        mirrored_name(Mirrored { host, repository });
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= 128 && text.is_ascii() && !text.contains('/'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(image) = text.parse::<ImageReference>() {
        let again = image.to_string().parse::<ImageReference>().expect("its own text");
        assert_eq!(again, image);
    }
}

/// The name of a mirrored repository says what it was, unless it is too long for one.
fn mirrored_name(mirrored: Mirrored) {
    let Ok(here) = mirrored.host.name_here(&mirrored.repository) else {
        assert!(mirrored.host.as_str().len() + mirrored.repository.as_str().len() > 240);
        return;
    };
    assert!(Mirrored::is_reserved(&here));
    assert_eq!(Mirrored::of(&here), Some(mirrored));
}

/// A request line: `METHOD PATH[?QUERY]`.
pub(crate) fn route(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if let Ok(Some(namespace)) = route::namespace(query.unwrap_or_default()) {
        assert!(!namespace.is_empty() && namespace.len() <= MAX_HOST_BYTES);
    }
    match route::parse(method, path, query) {
        Ok(request) => {
            assert!(path.starts_with("/v2"));
            // Clients write the colon of a digest either way.
            let encoded = path.replace(':', "%3A");
            if encoded.len() <= route::MAX_PATH_BYTES {
                assert_eq!(route::parse(method, &encoded, query).as_ref(), Ok(&request));
            }
            assert_eq!(route::parse(method, path, query), Ok(request));
        }
        Err(error) => {
            assert!(matches!(error.status(), 400 | 404 | 405 | 414));
            assert!(!error.code().as_str().is_empty());
        }
    }
}

/// A manifest: the content type on the first line, then the bytes.
pub(crate) fn manifest(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (head, bytes) = data.split_at(line);
    let bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
    let content_type = std::str::from_utf8(head).ok().filter(|head| !head.is_empty());
    match Manifest::parse(content_type, bytes) {
        Ok(manifest) => accepted_manifest(&manifest, bytes),
        Err(error) => {
            assert!(matches!(error.status(), 400 | 413));
            assert!(error.to_string().len() < 400);
        }
    }
}

fn accepted_manifest(manifest: &Manifest, bytes: &[u8]) {
    assert!(bytes.len() <= MAX_MANIFEST_BYTES);
    match manifest.kind {
        ManifestKind::Image => assert!(manifest.config.is_some() && manifest.manifests.is_empty()),
        ManifestKind::Index => assert!(manifest.config.is_none() && manifest.layers.is_empty()),
    }
    assert!(manifest.required_blobs().count() <= manifest.layers.len() + 1);
    let again = Manifest::parse(Some(&manifest.media_type), bytes);
    assert_eq!(again.as_ref(), Ok(manifest));
    let listed = manifest.referrer_descriptor(Digest::sha256(bytes), bytes.len() as u64);
    let read = Descriptor::from_json(&listed.to_json()).expect("its own JSON");
    assert_eq!(read, listed);
}

/// A written chain; and the same bytes as content, hashed in two pieces.
pub(crate) fn piece_chain(data: &[u8]) {
    if let Ok(chain) = PieceChain::from_bytes(data) {
        assert_eq!(chain.to_bytes(), data);
        assert!(data.len() <= MAX_CHAIN_BYTES && chain.pieces() <= MAX_PIECES);
        let mut end = 0;
        for index in 0..chain.pieces() {
            let range = chain.piece_range(index).expect("index is in range");
            assert!(range.start == end && range.end <= chain.size());
            assert!(chain.agrees_on(&chain, index));
            end = range.end;
        }
        assert_eq!(end, chain.size());
        let digest = Digest::of(chain.algorithm(), b"");
        let _ = (chain.accepts(&digest, 0, data), chain.proves(&digest, data));
    }
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        chain_of(algorithm, data);
    }
}

fn chain_of(algorithm: Algorithm, data: &[u8]) {
    let split = data.first().map_or(0, |first| data.len() * usize::from(*first) / 256);
    let mut hasher = ChainHasher::new(algorithm);
    hasher.update(&data[..split]);
    hasher.update(&data[split..]);
    let (digest, chain) = hasher.finish();
    assert_eq!(digest, Digest::of(algorithm, data));
    let last = chain.pieces() - 1;
    let tail = chain.piece_range(last).expect("the last piece");
    let tail = &data[usize::try_from(tail.start).expect("in memory")..];
    assert!(chain.accepts(&digest, last, tail));
    assert_eq!(PieceChain::from_bytes(&chain.to_bytes()), Ok(chain));
}
