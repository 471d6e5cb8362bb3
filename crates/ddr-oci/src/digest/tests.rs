use super::*;

const EMPTY_SHA256: &str =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC_SHA512: &str = concat!(
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a",
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
);

#[test]
fn known_answers() {
    // FIPS 180-4 example values.
    assert_eq!(Digest::sha256(b"").to_string(), EMPTY_SHA256);
    assert_eq!(Digest::of(Algorithm::Sha512, b"abc").to_string(), ABC_SHA512);
    assert_eq!(ABC_SHA512.len(), MAX_DIGEST_TEXT_BYTES);
}

#[test]
fn text_round_trip_and_parts() {
    for text in [EMPTY_SHA256, ABC_SHA512] {
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!(format!("{digest:?}"), text);
        assert_eq!(digest.hex(), text[7..]);
        assert_eq!(digest.short(), text[7..19]);
        assert_eq!(Digest::from_parts(digest.algorithm(), digest.as_bytes()), Some(digest));
    }
    assert_eq!(Digest::from_parts(Algorithm::Sha256, &[0; 64]), None);
    assert_eq!(Digest::from_parts(Algorithm::Sha512, &[0; 32]), None);
}

#[test]
fn malformed_is_told_from_unsupported() {
    let hex = &EMPTY_SHA256[7..];
    for (text, expected) in [
        (String::new(), DigestError::Malformed),
        ("sha256".to_owned(), DigestError::Malformed),
        ("sha256:".to_owned(), DigestError::Malformed),
        (format!(":{hex}"), DigestError::Malformed),
        (format!("SHA256:{hex}"), DigestError::Malformed),
        (format!("sha256:{}", hex.to_uppercase()), DigestError::Malformed),
        (format!("sha256:{}", &hex[1..]), DigestError::Malformed),
        (format!("sha256:{hex}0"), DigestError::Malformed),
        (format!("sha512:{hex}"), DigestError::Malformed),
        (format!("sha256:{hex}\n"), DigestError::Malformed),
        (format!(" sha256:{hex}"), DigestError::Malformed),
        (format!("sha256::{}", &hex[1..]), DigestError::Malformed),
        (format!("sha256:{}é", &hex[2..]), DigestError::Malformed),
        (format!("sha+:{hex}"), DigestError::Malformed),
        ("sha256:totallywrong".to_owned(), DigestError::Malformed),
        ("md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), DigestError::UnsupportedAlgorithm),
        (format!("sha384:{hex}"), DigestError::UnsupportedAlgorithm),
        (format!("sha256+b64u:{hex}"), DigestError::UnsupportedAlgorithm),
    ] {
        assert_eq!(text.parse::<Digest>(), Err(expected), "{text:?}");
    }
}

#[test]
fn hasher_in_parts_equals_one_shot() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut hasher = Hasher::new(algorithm);
        for part in [&b"hello"[..], b"", b" ", b"world"] {
            hasher.update(part);
        }
        assert_eq!(hasher.finish(), Digest::of(algorithm, b"hello world"));
    }
}

#[test]
fn serde_is_the_text() {
    let digest: Digest = ABC_SHA512.parse().unwrap();
    let json = serde_json::to_string(&digest).unwrap();
    assert_eq!(json, format!("\"{ABC_SHA512}\""));
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
    assert!(serde_json::from_str::<Digest>("7").is_err());
}

#[test]
fn order_is_algorithm_then_hash() {
    let low = Digest::from_parts(Algorithm::Sha256, &[0; 32]).unwrap();
    let high = Digest::from_parts(Algorithm::Sha256, &[255; 32]).unwrap();
    let long = Digest::from_parts(Algorithm::Sha512, &[0; 64]).unwrap();
    assert!(low < high && high < long);
}
