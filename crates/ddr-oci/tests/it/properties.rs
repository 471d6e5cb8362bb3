//! Properties over random input. A failing case is printed and shrunk by proptest.

use ddr_oci::route::{self, Request};
use ddr_oci::{
    Algorithm, ChainHasher, Descriptor, Digest, Hasher, ImageReference, Manifest, PieceChain,
    RangeOutcome, Reference, RepositoryName, Tag, byte_range, content_range, referrers,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{ranges, targets};

fn name() -> impl Strategy<Value = RepositoryName> {
    // The words of the API are names too.
    let word = prop_oneof![
        "[a-z0-9]{1,8}",
        "[a-z0-9]{1,4}(\\.|_|__|-{1,3})[a-z0-9]{1,4}",
        Just("blobs".to_owned()),
        Just("uploads".to_owned()),
        Just("manifests".to_owned()),
        Just("tags".to_owned()),
        Just("list".to_owned()),
        Just("referrers".to_owned()),
        Just("v2".to_owned()),
    ];
    vec(word, 1..5).prop_map(|words| words.join("/").parse().unwrap())
}

fn tag() -> impl Strategy<Value = Tag> {
    "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}".prop_map(|text| text.parse().unwrap())
}

fn digest() -> impl Strategy<Value = Digest> {
    let short = any::<[u8; 32]>().prop_map(|b| Digest::from_parts(Algorithm::Sha256, &b).unwrap());
    let long =
        vec(any::<u8>(), 64).prop_map(|b| Digest::from_parts(Algorithm::Sha512, &b).unwrap());
    prop_oneof![short, long]
}

fn reference() -> impl Strategy<Value = Reference> {
    prop_oneof![tag().prop_map(Reference::Tag), digest().prop_map(Reference::Digest)]
}

fn upload_id() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9_-]{1,40}", Just("list".to_owned()), Just("uploads".to_owned())]
}

fn request() -> impl Strategy<Value = Request> {
    let last = || option::of("[ -~]{1,40}");
    let n = || option::of(any::<u64>());
    let algorithm = option::of(prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)]);
    let mount = option::of((digest(), option::of(name())));
    let kind = option::of("[a-z]{1,9}/[a-z.+;= -]{1,20}");
    let reads = prop_oneof![
        Just(Request::Ping),
        (n(), last()).prop_map(|(n, last)| Request::Catalog { n, last }),
        (name(), n(), last()).prop_map(|(name, n, last)| Request::TagList { name, n, last }),
        (name(), digest()).prop_map(|(name, digest)| Request::Blob { name, digest }),
        (name(), reference()).prop_map(|(name, reference)| Request::Manifest { name, reference }),
        (name(), digest(), kind, n(), option::of(digest())).prop_map(
            |(name, digest, artifact_type, n, last)| Request::Referrers {
                name,
                digest,
                artifact_type,
                n,
                last
            }
        ),
    ];
    let uploads = prop_oneof![
        (name(), option::of(digest()), algorithm, mount).prop_map(
            |(name, digest, algorithm, mount)| Request::UploadStart {
                name,
                digest,
                algorithm,
                mount
            }
        ),
        (name(), upload_id()).prop_map(|(name, id)| Request::UploadStatus { name, id }),
        (name(), upload_id()).prop_map(|(name, id)| Request::UploadPatch { name, id }),
        (name(), upload_id(), digest()).prop_map(|(name, id, digest)| Request::UploadPut {
            name,
            id,
            digest
        }),
        (name(), upload_id()).prop_map(|(name, id)| Request::UploadCancel { name, id }),
    ];
    let writes = prop_oneof![
        (name(), digest()).prop_map(|(name, digest)| Request::BlobDelete { name, digest }),
        (name(), reference())
            .prop_map(|(name, reference)| Request::ManifestDelete { name, reference }),
        (name(), reference(), proptest::collection::btree_set(tag(), 0..8)).prop_map(
            |(name, reference, tags)| Request::ManifestPut {
                name,
                reference,
                tags: tags.into_iter().collect()
            }
        ),
    ];
    prop_oneof![reads, uploads, writes]
}

/// Encodes every byte but letters and digits, so that decoding is exercised.
fn encode(text: &str) -> String {
    let byte = |b: u8| {
        let plain = b.is_ascii_alphanumeric();
        if plain { char::from(b).to_string() } else { format!("%{b:02x}") }
    };
    text.bytes().map(byte).collect()
}

/// The request line that means `request`: method, path, query parameters.
fn line(request: &Request) -> (&'static str, String, Vec<(&'static str, String)>) {
    let page = |n: &Option<u64>, last: &Option<String>| {
        let n = n.map(|n| ("n", n.to_string()));
        let all = n.into_iter().chain(last.clone().map(|last| ("last", last)));
        all.collect::<Vec<_>>()
    };
    let uploads = |name: &RepositoryName, id: &str| format!("/v2/{name}/blobs/uploads/{id}");
    match request {
        Request::Ping => ("GET", "/v2/".to_owned(), vec![]),
        Request::Catalog { n, last } => ("GET", "/v2/_catalog".to_owned(), page(n, last)),
        Request::TagList { name, n, last } => {
            ("HEAD", format!("/v2/{name}/tags/list"), page(n, last))
        }
        Request::Blob { name, digest } => ("GET", format!("/v2/{name}/blobs/{digest}"), vec![]),
        Request::BlobDelete { name, digest } => {
            ("DELETE", format!("/v2/{name}/blobs/{digest}"), vec![])
        }
        Request::UploadStart { name, digest, algorithm, mount } => {
            let mut query = Vec::new();
            query.extend(digest.map(|digest| ("digest", digest.to_string())));
            query.extend(algorithm.map(|algorithm| ("digest-algorithm", algorithm.to_string())));
            if let Some((digest, from)) = mount {
                query.extend(from.as_ref().map(|from| ("from", from.to_string())));
                query.push(("mount", digest.to_string()));
            }
            ("POST", uploads(name, ""), query)
        }
        Request::UploadStatus { name, id } => ("GET", uploads(name, id), vec![]),
        Request::UploadPatch { name, id } => ("PATCH", uploads(name, id), vec![]),
        Request::UploadPut { name, id, digest } => {
            ("PUT", uploads(name, id), vec![("digest", digest.to_string())])
        }
        Request::UploadCancel { name, id } => ("DELETE", uploads(name, id), vec![]),
        Request::Manifest { name, reference } => {
            ("GET", format!("/v2/{name}/manifests/{reference}"), vec![])
        }
        Request::ManifestPut { name, reference, tags } => {
            let tags = tags.iter().map(|tag| ("tag", tag.to_string())).collect();
            ("PUT", format!("/v2/{name}/manifests/{reference}"), tags)
        }
        Request::ManifestDelete { name, reference } => {
            ("DELETE", format!("/v2/{name}/manifests/{reference}"), vec![])
        }
        Request::Referrers { name, digest, artifact_type, n, last } => {
            let mut query = page(n, &last.map(|last| last.to_string()));
            query.extend(artifact_type.clone().map(|kind| ("artifactType", kind)));
            ("GET", format!("/v2/{name}/referrers/{digest}"), query)
        }
    }
}

/// Content of `len` bytes that depends on `seed`; cheap, so that pieces can be many.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&next());
    }
    out.truncate(len);
    out
}

proptest! {
    #[test]
    fn every_request_is_read_back_from_its_line(request in request(), noise in any::<bool>()) {
        let (method, path, query) = line(&request);
        let mut parts: Vec<String> =
            query.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        if noise {
            parts.insert(0, "ns=docker.io&_state=%zz".to_owned());
        }
        let query = parts.join("&");
        let query = (!query.is_empty()).then_some(query);
        prop_assert_eq!(route::parse(method, &path, query.as_deref()), Ok(request.clone()));
        let encoded: Vec<String> = path.split('/').map(|part| part.replace(':', "%3A")).collect();
        prop_assert_eq!(route::parse(method, &encoded.join("/"), query.as_deref()), Ok(request));
    }

    #[test]
    fn digests_round_trip(digest in digest()) {
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        targets::digest(digest.to_string().as_bytes());
    }

    #[test]
    fn image_references_round_trip(
        host in option::of("[a-z]{1,5}\\.[a-z]{2,3}(:[0-9]{1,4})?"),
        repository in name(),
        reference in reference(),
    ) {
        // Without a host, `a.b/c` would be read as the repository `c` of the host `a.b`.
        let first = repository.as_str().split('/').next().unwrap_or_default();
        prop_assume!(host.is_some() || !first.contains('.'));
        let image = ImageReference { host, repository, reference };
        prop_assert_eq!(image.to_string().parse(), Ok(image));
    }

    #[test]
    fn hashing_in_parts_equals_hashing_at_once(
        bytes in vec(any::<u8>(), 0..500), cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(bytes.len() + 1);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&bytes[..cut]);
            hasher.update(&bytes[cut..]);
            prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &bytes));
        }
    }

    #[test]
    fn ranges_agree_with_a_naive_reading(first in 0..40_u64, last in 0..40_u64, size in 0..30_u64) {
        let wanted: Vec<u64> = (0..size).filter(|at| (first..=last).contains(at)).collect();
        let outcome = byte_range(Some(&format!("bytes={first}-{last}")), size);
        match (wanted.first(), wanted.last()) {
            (Some(&start), Some(&end)) => {
                prop_assert_eq!(outcome, RangeOutcome::Part { start, end: end + 1 });
            }
            _ => prop_assert_eq!(outcome, RangeOutcome::Unsatisfiable),
        }
        let suffix = byte_range(Some(&format!("bytes=-{last}")), size);
        let expected = match (last, size) {
            (0, _) => RangeOutcome::Unsatisfiable,
            (_, 0) => RangeOutcome::Whole,
            _ => RangeOutcome::Part { start: size.saturating_sub(last), end: size },
        };
        prop_assert_eq!(suffix, expected);
        let chunk = content_range(&format!("{first}-{last}"));
        prop_assert_eq!(chunk, (first <= last).then_some((first, last)));
    }

    #[test]
    fn sets_of_ranges_hold_what_was_asked_for(
        set in vec((option::of(0..60_u64), option::of(0..60_u64)), 1..8),
        size in 0..50_u64,
        huge in any::<u64>(),
    ) {
        let text = |at: &Option<u64>| at.map(|at| at.to_string()).unwrap_or_default();
        let set: Vec<_> = set.iter().map(|(a, b)| format!("{}-{}", text(a), text(b))).collect();
        let header = format!("bytes={}", set.join(","));
        ranges::range(format!("{size} {header}").as_bytes());
        ranges::range(format!("{huge} {header}").as_bytes());
        let mut input = format!("{header}\n").into_bytes();
        input.extend(content(huge, size as usize));
        ranges::multipart(&input);
    }

    #[test]
    fn descriptors_and_indexes_round_trip(
        digests in vec((digest(), any::<u64>(), option::of("[a-z/+]{1,20}")), 0..5),
        key in "\\PC{0,10}",
    ) {
        let list: Vec<Descriptor> = digests
            .into_iter()
            .map(|(digest, size, artifact_type)| {
                let mut one = Descriptor::new("a/b", digest, size);
                one.annotations.insert(key.clone(), key.clone());
                one.artifact_type = artifact_type;
                one
            })
            .collect();
        let read = Manifest::parse(None, &referrers::index(&list)).unwrap();
        prop_assert_eq!(read.manifests, list);
    }

    #[test]
    fn decoders_survive_any_bytes(data in vec(any::<u8>(), 0..300)) {
        targets::digest(&data);
        targets::reference(&data);
        targets::route(&data);
        ranges::range(&data);
        targets::manifest(&data);
        targets::piece_chain(&data);
    }

    #[test]
    fn decoders_survive_likely_text(data in "(GET|PUT|9)? ?/?(v2|a|[:@%&=?/,.-]|bytes|sha256|[0-9]|blobs|é){0,30}") {
        targets::reference(data.as_bytes());
        targets::route(data.as_bytes());
        ranges::range(data.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chain_hasher_equals_the_plain_hash_for_any_split(
        is_sha512 in any::<bool>(),
        seed in any::<u64>(),
        len in prop_oneof![0..300_usize, 65_000..66_000_usize, 0..700_000_usize],
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = content(seed, len);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        let algorithm = if is_sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let mut hasher = ChainHasher::new(algorithm);
        for pair in cuts.windows(2) {
            hasher.update(&bytes[pair[0]..pair[1]]);
        }
        prop_assert_eq!(hasher.len(), len as u64);
        let (digest, chain) = hasher.finish();
        prop_assert_eq!(digest, Digest::of(algorithm, &bytes));

        let pieces: Vec<&[u8]> = (0..chain.pieces())
            .map(|index| {
                let range = chain.piece_range(index).unwrap();
                &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
            })
            .collect();
        let (tail, inner) = pieces.split_last().unwrap();
        for (index, piece) in inner.iter().enumerate() {
            prop_assert!(chain.verify_piece(index, piece));
        }
        prop_assert!(chain.proves(&digest, tail));
        prop_assert_eq!(PieceChain::from_bytes(&chain.to_bytes()), Ok(chain));
    }

    #[test]
    fn a_flipped_bit_never_passes(
        is_sha512 in any::<bool>(), seed in any::<u64>(), len in 1..300_000_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let bytes = content(seed, len);
        let algorithm = if is_sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let mut hasher = ChainHasher::new(algorithm);
        hasher.update(&bytes);
        let (digest, chain) = hasher.finish();
        let at = at.index(len);
        let mut wrong = bytes;
        wrong[at] ^= 1_u8 << bit;
        let index = usize::try_from(at as u64 / chain.piece_len()).unwrap();
        let range = chain.piece_range(index).unwrap();
        let piece =
            &wrong[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        prop_assert!(!chain.verify_piece(index, piece));
        prop_assert!(!chain.proves(&digest, piece));
    }
}
