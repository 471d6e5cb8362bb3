use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn digest() -> Digest {
    Digest::sha256(b"")
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn get(path: &str) -> Result<Request, RouteError> {
    match path.split_once('?') {
        Some((path, query)) => parse("GET", path, Some(query)),
        None => parse("GET", path, None),
    }
}

fn post(query: &str) -> Result<Request, RouteError> {
    parse("POST", "/v2/a/blobs/uploads/", Some(query))
}

#[test]
fn paths_are_read_from_the_right() {
    for (path, expected_name) in [
        ("/v2/a/b/manifests/x", "a/b"),
        ("/v2/manifests/manifests/x", "manifests"),
        ("/v2/a/blobs/uploads/manifests/x", "a/blobs/uploads"),
        ("/v2/a/tags/list/manifests/x", "a/tags/list"),
        ("/v2/v2/manifests/x", "v2"),
    ] {
        let Ok(Request::Manifest { name, .. }) = get(path) else { panic!("{path}") };
        assert_eq!(name.as_str(), expected_name);
    }
    let list = Request::TagList { name: name("blobs/uploads"), n: None, last: None };
    assert_eq!(get("/v2/blobs/uploads/tags/list"), Ok(list));
    let upload = Request::UploadStatus { name: name("a/tags"), id: "list".to_owned() };
    assert_eq!(get("/v2/a/tags/blobs/uploads/list"), Ok(upload));
}

#[test]
fn unknown_paths() {
    for path in [
        "",
        "/",
        "/v1/",
        "v2/",
        "/v2x",
        "/v22/",
        "/v2//",
        "/v2/a",
        "/v2/a/b",
        "/v2/a/tags",
        "/v2/a/tags/list/",
        "/v2/a/tags/other",
        "/v2/tags/list",
        "/v2/blobs/uploads/",
        "/v2/manifests/x",
        "/v2/_catalog/",
        "/v2/_catalogue",
        "/v2/a/manifests/x/",
        "/v2/a/bl%6Fbs/x",
        "/V2/",
    ] {
        assert_eq!(get(path), Err(RouteError::NotFound), "{path}");
    }
    assert_eq!(RouteError::NotFound.status(), 404);
}

#[test]
fn methods_are_checked_before_names() {
    let path_of = |tail: &str| format!("/v2/BAD{tail}");
    for (tail, allow) in [
        ("/tags/list", "GET, HEAD"),
        ("/referrers/x", "GET, HEAD"),
        ("/blobs/x", "GET, HEAD, DELETE"),
        ("/blobs/uploads/", "POST"),
        ("/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"),
        ("/manifests/x", "GET, HEAD, PUT, DELETE"),
    ] {
        for method in ["OPTIONS", "TRACE", "get", "", "PROPFIND"] {
            let error = parse(method, &path_of(tail), None).unwrap_err();
            assert_eq!(error, RouteError::MethodNotAllowed { allow }, "{method} {tail}");
            assert_eq!((error.status(), error.code()), (405, ErrorCode::Unsupported));
        }
        for method in allow.split(", ") {
            let error = parse(method, &path_of(tail), None).unwrap_err();
            assert_eq!(error, RouteError::NameInvalid, "{method} {tail}");
        }
    }
    for path in ["/v2/", "/v2", "/v2/_catalog"] {
        assert!(matches!(parse("PUT", path, None), Err(RouteError::MethodNotAllowed { .. })));
        assert!(parse("HEAD", path, None).is_ok());
    }
}

#[test]
fn names_are_checked() {
    let long = "a".repeat(256);
    for bad in ["A", "a//b", "a%2Fb", "%2e%2e", "a%20b", "_a", "", long.as_str()] {
        let error = get(&format!("/v2/{bad}/tags/list")).unwrap_err();
        assert_eq!((error, error.status()), (RouteError::NameInvalid, 400), "{bad}");
        assert_eq!(error.code(), ErrorCode::NameInvalid);
    }
    assert_eq!(get("/v2/%ff/tags/list"), Err(RouteError::Encoding));
    assert_eq!(get("/v2/a%00/tags/list"), Err(RouteError::Encoding));
    let encoded = Request::TagList { name: name("a-b"), n: None, last: None };
    assert_eq!(get("/v2/a%2Db/tags/list"), Ok(encoded));
}

#[test]
fn digests_may_be_percent_encoded() {
    let expected = Request::Blob { name: name("a"), digest: digest() };
    for text in [format!("sha256:{HEX}"), format!("sha256%3A{HEX}"), format!("sha256%3a{HEX}")] {
        assert_eq!(get(&format!("/v2/a/blobs/{text}")).as_ref(), Ok(&expected));
    }
    let by_digest = Request::Manifest { name: name("a"), reference: Reference::Digest(digest()) };
    assert_eq!(get(&format!("/v2/a/manifests/sha256%3A{HEX}")), Ok(by_digest));
    for bad in ["sha256:00", "md5:00", "latest", "sha256%253A00", "sha256:%C3%A9", ""] {
        let error = get(&format!("/v2/a/blobs/{bad}")).unwrap_err();
        assert_eq!((error, error.status()), (RouteError::DigestInvalid, 400), "{bad}");
        assert_eq!(error.code(), ErrorCode::DigestInvalid);
        assert_eq!(get(&format!("/v2/a/referrers/{bad}")), Err(RouteError::DigestInvalid));
    }
}

#[test]
fn malformed_tag_is_unknown_when_read_and_invalid_when_written() {
    let path = "/v2/a/manifests/.INVALID";
    for method in ["GET", "HEAD", "DELETE"] {
        let error = parse(method, path, None).unwrap_err();
        assert_eq!((error, error.status()), (RouteError::ManifestUnknown, 404));
        assert_eq!(error.code(), ErrorCode::ManifestUnknown);
    }
    let error = parse("PUT", path, None).unwrap_err();
    assert_eq!((error, error.status()), (RouteError::TagInvalid, 400));
    for method in ["GET", "PUT", "DELETE"] {
        let error = parse(method, "/v2/a/manifests/sha256:totallywrong", None);
        assert_eq!(error, Err(RouteError::DigestInvalid), "{method}");
    }
}

#[test]
fn pages() {
    let list = |n, last: Option<&str>| {
        Ok(Request::TagList { name: name("a"), n, last: last.map(str::to_owned) })
    };
    for (query, expected) in [
        ("", list(None, None)),
        ("n=0", list(Some(0), None)),
        ("n=10&last=v1", list(Some(10), Some("v1"))),
        ("last=v1", list(None, Some("v1"))),
        ("last=", list(None, None)),
        ("last=a%2Fb&ns=docker.io", list(None, Some("a/b"))),
        ("n=007", list(Some(7), None)),
        ("n=99999999999999999999999", list(Some(u64::MAX), None)),
        ("n=1&n=1", list(Some(1), None)),
        ("n=1&n=2", Err(RouteError::QueryInvalid)),
        ("n=", Err(RouteError::PageInvalid)),
        ("n", Err(RouteError::PageInvalid)),
        ("n=-1", Err(RouteError::PageInvalid)),
        ("n=+1", Err(RouteError::PageInvalid)),
        ("n=1.5", Err(RouteError::PageInvalid)),
        ("n=x", Err(RouteError::PageInvalid)),
        ("last=%ff", Err(RouteError::Encoding)),
        ("x=%ff", list(None, None)),
        ("%ff=x", list(None, None)),
    ] {
        assert_eq!(get(&format!("/v2/a/tags/list?{query}")), expected, "{query}");
    }
    let last = "l".repeat(MAX_LAST_BYTES);
    assert!(get(&format!("/v2/_catalog?last={last}")).is_ok());
    let error = get(&format!("/v2/_catalog?last={last}l")).unwrap_err();
    assert_eq!((error, error.status()), (RouteError::PageInvalid, 400));
    let all = Request::Catalog { n: Some(5), last: Some("a/b".to_owned()) };
    assert_eq!(get("/v2/_catalog?n=5&last=a%2Fb"), Ok(all));
}

#[test]
fn mounts() {
    let started =
        |mount| Ok(Request::UploadStart { name: name("a"), digest: None, algorithm: None, mount });
    let mount = format!("mount=sha256%3A{HEX}");
    let from = Some(name("b/one"));
    assert_eq!(post(&format!("from=b%2Fone&{mount}")), started(Some((digest(), from.clone()))));
    assert_eq!(post(&format!("{mount}&from=b/one&origin=x.y")), started(Some((digest(), from))));
    assert_eq!(post(&mount), started(Some((digest(), None))));
    assert_eq!(post(&format!("{mount}&from=")), started(Some((digest(), None))));
    assert_eq!(post("from=b"), started(None));
    assert_eq!(post(&format!("{mount}&from=B")), Err(RouteError::NameInvalid));
    assert_eq!(post("mount=sha256:00&from=b"), Err(RouteError::DigestInvalid));
    assert_eq!(post("mount=&from=b"), Err(RouteError::DigestInvalid));
}

#[test]
fn upload_starts() {
    let started = |digest, algorithm| {
        Ok(Request::UploadStart { name: name("a"), digest, algorithm, mount: None })
    };
    assert_eq!(post(""), started(None, None));
    assert_eq!(parse("POST", "/v2/a/blobs/uploads", None), started(None, None));
    assert_eq!(post(&format!("digest=sha256:{HEX}")), started(Some(digest()), None));
    assert_eq!(post("digest-algorithm=sha512"), started(None, Some(Algorithm::Sha512)));
    for bad in ["digest=", "digest=sha256:0", "digest-algorithm=md5", "digest-algorithm="] {
        assert_eq!(post(bad), Err(RouteError::DigestInvalid), "{bad}");
    }
}

#[test]
fn closing_put_needs_one_digest() {
    let put = |query: Option<&str>| parse("PUT", "/v2/a/blobs/uploads/id-1_X", query);
    let id = "id-1_X".to_owned();
    let closed = Ok(Request::UploadPut { name: name("a"), id, digest: digest() });
    assert_eq!(put(Some(&format!("digest=sha256:{HEX}"))), closed);
    assert_eq!(put(Some(&format!("_state=xyz&digest=sha256%3A{HEX}"))), closed);
    assert_eq!(put(Some(&format!("digest=sha256:{HEX}&digest=sha256%3A{HEX}"))), closed);
    let other = Digest::sha256(b"other");
    let error = put(Some(&format!("digest=sha256:{HEX}&digest={other}"))).unwrap_err();
    assert_eq!((error, error.status()), (RouteError::DigestInvalid, 400));
    for query in [None, Some(""), Some("x=y")] {
        let error = put(query).unwrap_err();
        assert_eq!((error, error.status()), (RouteError::DigestMissing, 400));
        assert_eq!(error.code(), ErrorCode::DigestInvalid);
    }
}

#[test]
fn impossible_session_ids_are_unknown() {
    let long = "x".repeat(MAX_UPLOAD_ID_BYTES + 1);
    for id in ["..", "a%2Fb", "a.b", "%20", "a%5C", long.as_str()] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let error = parse(method, &format!("/v2/a/blobs/uploads/{id}"), None).unwrap_err();
            assert_eq!((error, error.status()), (RouteError::UploadUnknown, 404), "{id}");
            assert_eq!(error.code(), ErrorCode::BlobUploadUnknown);
        }
    }
}

#[test]
fn tag_parameters() {
    let put = |query: &str| parse("PUT", &format!("/v2/a/manifests/sha256:{HEX}"), Some(query));
    let Ok(Request::ManifestPut { tags, .. }) = put("tag=b&tag=a&tag=b&tag=1.0") else { panic!() };
    let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["b", "a", "1.0"]);
    assert_eq!(put("tag="), Err(RouteError::TagInvalid));
    assert_eq!(put("tag=a&tag=.b"), Err(RouteError::TagInvalid));

    let many = |count: usize| {
        let tags: Vec<String> = (0..count).map(|i| format!("tag=t{i}")).collect();
        put(&tags.join("&"))
    };
    assert!(many(10).is_ok());
    assert!(many(MAX_TAG_PARAMETERS).is_ok());
    let error = many(MAX_TAG_PARAMETERS + 1).unwrap_err();
    assert_eq!((error, error.status()), (RouteError::TooLong, 414));
    let widest = vec![format!("tag={}", "w".repeat(128)); MAX_TAG_PARAMETERS].join("&");
    assert!(put(&widest).is_ok(), "the query limit leaves room for the most and longest tags");
}

#[test]
fn artifact_types_keep_their_plus() {
    let ask = |query: &str| get(&format!("/v2/a/referrers/sha256:{HEX}?artifactType={query}"));
    let answer = |artifact_type: Option<&str>| {
        let artifact_type = artifact_type.map(str::to_owned);
        Ok(Request::Referrers {
            name: name("a"),
            digest: digest(),
            artifact_type,
            n: None,
            last: None,
        })
    };
    assert_eq!(ask("application/vnd.x+json"), answer(Some("application/vnd.x+json")));
    assert_eq!(ask("application%2Fvnd.x%2Bjson"), answer(Some("application/vnd.x+json")));
    assert_eq!(ask(""), answer(None));
    assert_eq!(ask(&"x".repeat(MAX_ARTIFACT_TYPE_BYTES + 1)), Err(RouteError::QueryInvalid));
}

#[test]
fn lengths_are_limited() {
    let path = format!("/v2/{}", "a".repeat(MAX_PATH_BYTES));
    assert_eq!(get(&path), Err(RouteError::TooLong));
    let query = "x".repeat(MAX_QUERY_BYTES);
    assert_eq!(parse("GET", "/v2/", Some(&query)), Ok(Request::Ping));
    assert_eq!(parse("GET", "/v2/", Some(&format!("{query}x"))), Err(RouteError::TooLong));
    let crowd = "&".repeat(MAX_QUERY_PARAMETERS);
    assert_eq!(parse("GET", "/v2/", Some(&crowd)), Err(RouteError::TooLong));

    let longest_name = "%61".repeat(255);
    let longest_digest = Digest::of(Algorithm::Sha512, b"");
    let path = format!("/v2/{longest_name}/referrers/{longest_digest}");
    assert!(get(&path).is_ok(), "the path limit leaves room for the longest request");
}
