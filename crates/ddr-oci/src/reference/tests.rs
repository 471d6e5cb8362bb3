use super::*;

#[test]
fn table_of_names() {
    for good in [
        "a",
        "0",
        "team/app",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a---b",
        "a/b/c/d",
        "library/busy-box",
        "a1.2-3__4",
    ] {
        let name: RepositoryName = good.parse().unwrap();
        assert_eq!(name.as_str(), good);
        assert_eq!(name.to_string(), good);
    }
    for bad in [
        "", "/", "a/", "/a", "a//b", "A", "a/B", "-a", "a-", ".a", "a.", "_a", "a_", "a..b",
        "a___b", "a._b", "a.-b", "a-_b", "a b", "a:b", "a@b", "é", "a\0", "a\n", "..", "a/../b",
        "a%2fb",
    ] {
        assert_eq!(bad.parse::<RepositoryName>(), Err(ReferenceError::Name), "{bad:?}");
    }
}

#[test]
fn name_limit_is_255_bytes() {
    let longest = "a".repeat(MAX_NAME_BYTES);
    assert!(longest.parse::<RepositoryName>().is_ok());
    assert!(format!("{longest}a").parse::<RepositoryName>().is_err());
}

#[test]
fn table_of_tags() {
    let longest = "x".repeat(MAX_TAG_BYTES);
    for good in ["latest", "_", "1.0", "V1.0-rc.1", "a..b", "a--", "0", longest.as_str()] {
        assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
    }
    let too_long = "x".repeat(MAX_TAG_BYTES + 1);
    for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "é", "a+b", "a\n", too_long.as_str()] {
        assert_eq!(bad.parse::<Tag>(), Err(ReferenceError::Tag), "{bad:?}");
    }
    assert_eq!(Tag::latest().as_str(), "latest");
}

#[test]
fn a_colon_makes_a_reference_a_digest() {
    let digest = Digest::sha256(b"x");
    assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
    let tag: Tag = "sha256".parse().unwrap();
    assert_eq!("sha256".parse(), Ok(Reference::Tag(tag)));
    assert_eq!("a:b".parse::<Reference>(), Err(DigestError::UnsupportedAlgorithm.into()));
    assert_eq!("sha256:0".parse::<Reference>(), Err(DigestError::Malformed.into()));
    for text in [digest.to_string(), "v1".to_owned()] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
    }
}

#[test]
fn table_of_image_references() {
    let digest = Digest::sha256(b"x").to_string();
    for (text, host, name, reference) in [
        ("app".to_owned(), None, "app", "latest"),
        ("team/app:1.0".to_owned(), None, "team/app", "1.0"),
        ("localhost/app".to_owned(), Some("localhost"), "app", "latest"),
        ("localhost:5000/team/app:1".to_owned(), Some("localhost:5000"), "team/app", "1"),
        ("Registry.Example/app".to_owned(), Some("Registry.Example"), "app", "latest"),
        ("127.0.0.1:5000/a".to_owned(), Some("127.0.0.1:5000"), "a", "latest"),
        ("[::1]:5000/a:b".to_owned(), Some("[::1]:5000"), "a", "b"),
        (format!("app@{digest}"), None, "app", digest.as_str()),
        (format!("h.x/app:1@{digest}"), Some("h.x"), "app", digest.as_str()),
    ] {
        let read: ImageReference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(read.host.as_deref(), host, "{text}");
        assert_eq!(read.repository.as_str(), name, "{text}");
        assert_eq!(read.reference.to_string(), reference, "{text}");
        assert_eq!(read.to_string().parse::<ImageReference>().unwrap(), read, "{text}");
    }
}

#[test]
fn bad_image_references() {
    use ReferenceError::{Host, Name, Tag};
    let long_host = format!("{}.x/app", "h".repeat(MAX_HOST_BYTES));
    for (text, expected) in [
        ("", Name),
        (":tag", Name),
        ("App", Name),
        ("app:", Tag),
        ("app:a:b", Tag),
        ("h.x:/app", Host),
        ("h.x:99999/app", Host),
        ("h.x:+1/app", Host),
        (":5000/app", Host),
        ("[::1/app", Host),
        ("[x]:1/app", Host),
        ("h é.x/app", Host),
        ("https://h.x/app", Host),
        (long_host.as_str(), Host),
        ("app@", ReferenceError::Digest(DigestError::Malformed)),
        ("app@sha256:00", ReferenceError::Digest(DigestError::Malformed)),
        ("app@md5:00", ReferenceError::Digest(DigestError::UnsupportedAlgorithm)),
    ] {
        assert_eq!(text.parse::<ImageReference>(), Err(expected), "{text:?}");
    }
}
