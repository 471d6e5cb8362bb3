//! The kinds of malformed request. Each maker breaks one rule on purpose, so it knows the answer
//! without asking the code under test.

use ddr_oci::digest::Digest;

use crate::chance::Chance;
use crate::manifests;

/// What the requests can be about.
pub(crate) struct World {
    /// A blob of 100 bytes in `good/name`.
    pub(crate) blob: Digest,
    /// An upload session of `good/name` that holds nothing.
    pub(crate) session: String,
}

/// A request and the answer that it deserves.
pub(crate) struct Case {
    pub(crate) arm: &'static str,
    line: String,
    headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) code: Option<&'static str>,
}

impl Case {
    fn new(arm: &'static str, line: String, status: u16, code: &'static str) -> Self {
        Self { arm, line, headers: Vec::new(), body: Vec::new(), status, code: Some(code) }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The request as it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} HTTP/1.1\r\n", self.line);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            head.push_str("host: localhost:5000\r\n");
        }
        for (name, value) in self.headers.iter().filter(|(_, value)| *value != ABSENT) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        [head.as_bytes(), &self.body].concat()
    }
}

/// A header that is not sent.
const ABSENT: &str = "\0";

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &str = "0123456789abcdef";
const DIGITS: &str = "0123456789";

/// The makers, in the order in which they take turns.
const ARMS: [fn(&World, &mut Chance) -> Case; 18] = [
    name,
    path,
    method,
    digest,
    digest_parameter,
    tag,
    page,
    encoding,
    too_long,
    range,
    content_range,
    session,
    closing_put,
    mount,
    header,
    host,
    manifest,
    manifest_digest,
];

/// Large manifests are slow to send: one in so many turns.
const LARGE_EVERY: usize = 600;

pub(crate) fn make(number: usize, world: &World, chance: &mut Chance) -> Case {
    if number % LARGE_EVERY == LARGE_EVERY - 1 {
        return large_manifest(chance);
    }
    ARMS[number % ARMS.len()](world, chance)
}

fn good_digest(chance: &mut Chance) -> String {
    format!("sha256:{}", chance.text(HEX, 64))
}

/// One request line of each endpoint that has a name in its path.
fn about(name: &str, chance: &mut Chance) -> String {
    let digest = good_digest(chance);
    match chance.below(10) {
        0 => format!("GET /v2/{name}/tags/list"),
        1 => format!("GET /v2/{name}/manifests/latest"),
        2 => format!("PUT /v2/{name}/manifests/latest"),
        3 => format!("DELETE /v2/{name}/manifests/{digest}"),
        4 => format!("GET /v2/{name}/blobs/{digest}"),
        5 => format!("DELETE /v2/{name}/blobs/{digest}"),
        6 => format!("POST /v2/{name}/blobs/uploads/"),
        7 => format!("PATCH /v2/{name}/blobs/uploads/abc"),
        8 => format!("GET /v2/{name}/referrers/{digest}"),
        _ => format!("POST /v2/{name}/blobs/uploads/?digest={digest}"),
    }
}

/// A name that the grammar does not have: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/...)*`.
fn bad_name(chance: &mut Chance) -> String {
    let len = chance.range(1..12);
    let good = chance.text(LOWER, len);
    match chance.below(9) {
        0 => chance.insert(&good, "A"),
        1 => format!("{}{good}", chance.one_of(&["-", ".", "_", "__"])),
        2 => format!("{good}{}", chance.one_of(&["-", ".", "_", "__"])),
        3 => format!("{good}{}x", chance.one_of(&["..", "___", "-_", "._", ".-", "_-"])),
        4 => format!("{good}//x"),
        5 => format!("{good}/"),
        6 => chance.text(LOWER, 300),
        7 => {
            let strange =
                chance.one_of(&["%20", "%C3%A9", "%2F", "%41", "+", "~", "@", "!", "%3A"]);
            format!("{good}{strange}x")
        }
        _ => format!("{good}/{}", chance.one_of(&["..", ".", "%2e%2e", "A/b", "-"])),
    }
}

fn name(_: &World, chance: &mut Chance) -> Case {
    let name = bad_name(chance);
    Case::new("name", about(&name, chance), 400, "NAME_INVALID")
}

fn path(_: &World, chance: &mut Chance) -> Case {
    let len = chance.range(1..20);
    let word = format!("q{}", chance.text(LOWER, len));
    let path = match chance.below(8) {
        0 => format!("/v1/{word}/tags/list"),
        1 => format!("/{word}"),
        2 => format!("/v2/{word}"),
        3 => format!("/v2/{word}/{word}"),
        4 => format!("/v2/{word}/tags/{word}"),
        5 => format!("/v2/{word}/blobs/uploads/x/{word}"),
        6 => format!("/v2{word}/"),
        _ => format!("/v2/tags/list/{word}/_catalog"),
    };
    Case::new("path", format!("GET {path}"), 404, "UNSUPPORTED")
}

fn method(world: &World, chance: &mut Chance) -> Case {
    let digest = good_digest(chance);
    let strange = format!("Q{}", chance.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 6));
    let (path, wrong) = match chance.below(7) {
        0 => ("/v2/".to_owned(), vec!["POST", "PUT", "DELETE", "PATCH"]),
        1 => ("/v2/_catalog".to_owned(), vec!["POST", "PUT", "DELETE"]),
        2 => ("/v2/a/tags/list".to_owned(), vec!["POST", "PUT", "DELETE", "PATCH"]),
        3 => (format!("/v2/a/blobs/{digest}"), vec!["POST", "PUT", "PATCH", "OPTIONS"]),
        4 => ("/v2/a/blobs/uploads/".to_owned(), vec!["GET", "PUT", "DELETE", "PATCH"]),
        5 => (world.session.clone(), vec!["POST", "OPTIONS", "TRACE"]),
        _ => ("/v2/a/manifests/latest".to_owned(), vec!["POST", "PATCH", "TRACE"]),
    };
    let method = if chance.below(3) == 0 { strange.as_str() } else { chance.one_of(&wrong) };
    Case::new("method", format!("{method} {path}"), 405, "UNSUPPORTED")
}

/// Text with a colon that is no digest of an algorithm that is known.
fn bad_digest(chance: &mut Chance) -> String {
    match chance.below(9) {
        0 => {
            let len = chance.range(0..64);
            format!("sha256:{}", chance.text(HEX, len))
        }
        1 => {
            let len = chance.range(65..200);
            format!("sha256:{}", chance.text(HEX, len))
        }
        2 => format!("sha256:{}A", chance.text(HEX, 63)),
        3 => format!("sha256:{}g", chance.text(HEX, 63)),
        4 => format!("sha512:{}", chance.text(HEX, 64)),
        5 => format!(
            "{}:{}",
            chance.one_of(&["md5", "sha1", "SHA256", "sha", ""]),
            chance.text(HEX, 64)
        ),
        6 => format!("sha256:{}:{}", chance.text(HEX, 32), chance.text(HEX, 31)),
        7 => format!("sha256::{}", chance.text(HEX, 64)),
        _ => format!("sha256:{}%20", chance.text(HEX, 63)),
    }
}

fn digest(_: &World, chance: &mut Chance) -> Case {
    let mut bad = bad_digest(chance);
    if chance.below(3) == 0 {
        bad = bad.replace(':', "%3A");
    }
    let line = match chance.below(6) {
        0 => format!("GET /v2/a/blobs/{bad}"),
        1 => format!("DELETE /v2/a/blobs/{bad}"),
        2 => format!("GET /v2/a/manifests/{bad}"),
        3 => format!("PUT /v2/a/manifests/{bad}"),
        4 => format!("DELETE /v2/a/manifests/{bad}"),
        _ => format!("GET /v2/a/referrers/{bad}"),
    };
    Case::new("digest", line, 400, "DIGEST_INVALID")
}

fn digest_parameter(world: &World, chance: &mut Chance) -> Case {
    let (bad, good) = (bad_digest(chance), good_digest(chance));
    let line = match chance.below(6) {
        0 => format!("POST /v2/a/blobs/uploads/?digest={bad}"),
        1 => format!("PUT {}?digest={bad}", world.session),
        2 => format!("POST /v2/a/blobs/uploads/?mount={bad}&from=b"),
        3 => format!("POST /v2/a/blobs/uploads/?from=b&mount={bad}"),
        4 => format!("PUT {}?digest={good}&digest={bad}", world.session),
        _ => {
            let len = chance.range(1..9);
            let other = chance.text(LOWER, len);
            format!("POST /v2/a/blobs/uploads/?digest-algorithm=x{other}")
        }
    };
    Case::new("digest parameter", line, 400, "DIGEST_INVALID")
}

fn tag(_: &World, chance: &mut Chance) -> Case {
    let len = chance.range(1..20);
    let good = chance.text(LOWER, len);
    let bad = match chance.below(5) {
        0 => format!(".{good}"),
        1 => format!("-{good}"),
        2 => chance.text(LOWER, 129),
        3 => format!("{good}{}", chance.one_of(&["%20", "+", "~", "%C3%A9", "@", "!", "%2F"])),
        _ => String::new(),
    };
    let (line, status, code) = match chance.below(4) {
        0 => (format!("PUT /v2/a/manifests/{bad}"), 400, "MANIFEST_INVALID"),
        1 => {
            let digest = good_digest(chance);
            (format!("PUT /v2/a/manifests/{digest}?tag=ok&tag={bad}"), 400, "MANIFEST_INVALID")
        }
        2 => (format!("DELETE /v2/a/manifests/{bad}"), 404, "MANIFEST_UNKNOWN"),
        _ => (format!("GET /v2/a/manifests/{bad}"), 404, "MANIFEST_UNKNOWN"),
    };
    Case::new("tag", line, status, code)
}

fn page(_: &World, chance: &mut Chance) -> Case {
    let number = chance.range(1..1_000_000);
    let bad = match chance.below(9) {
        0 => format!("n=-{number}"),
        1 => format!("n={number}x"),
        2 => format!("n={number}.5"),
        3 => "n=".to_owned(),
        4 => format!("n=0x{number}"),
        5 => format!("n=%20{number}"),
        6 => format!("n={number}&n={}", number + 1),
        7 => format!("n=+{number}"),
        _ => {
            let len = chance.range(256..2000);
            format!("last={}", chance.text(LOWER, len))
        }
    };
    let digest = good_digest(chance);
    let list = match chance.below(3) {
        0 => "/v2/a/tags/list".to_owned(),
        1 => "/v2/_catalog".to_owned(),
        _ => format!("/v2/a/referrers/{digest}"),
    };
    let query = match chance.below(6) {
        0 if list.contains("referrers") => format!("last={}", bad_digest(chance)),
        1 if list.contains("referrers") => format!("artifactType={}", chance.text(LOWER, 256)),
        _ => bad,
    };
    Case::new("page", format!("GET {list}?{query}"), 400, "UNSUPPORTED")
}

fn encoding(_: &World, chance: &mut Chance) -> Case {
    let broken = chance.one_of(&["%", "%4", "%zz", "%ff", "%00", "%C3", "%g1", "%%"]);
    let word = chance.text(LOWER, 5);
    let line = match chance.below(5) {
        0 => format!("GET /v2/{word}{broken}/tags/list"),
        1 => format!("GET /v2/a/blobs/{word}{broken}"),
        2 => format!("PUT /v2/a/manifests/{word}{broken}"),
        3 => format!("GET /v2/a/tags/list?last={word}{broken}"),
        _ => format!("GET /v2/_catalog?n=1{broken}"),
    };
    Case::new("encoding", line, 400, "UNSUPPORTED")
}

fn too_long(_: &World, chance: &mut Chance) -> Case {
    let line = match chance.below(4) {
        0 => {
            let len = chance.range(2049..6000);
            format!("GET /v2/{}/tags/list", chance.text(LOWER, len))
        }
        1 => {
            let len = chance.range(8193..20_000);
            format!("GET /v2/a/tags/list?x={}", chance.text(LOWER, len))
        }
        2 => format!("GET /v2/a/tags/list?{}", "a=b&".repeat(chance.range(128..900))),
        _ => {
            let digest = good_digest(chance);
            let tags: Vec<_> = (0..chance.range(51..100)).map(|n| format!("tag=t{n}")).collect();
            format!("PUT /v2/a/manifests/{digest}?{}", tags.join("&"))
        }
    };
    Case::new("too long", line, 414, "UNSUPPORTED")
}

fn range(world: &World, chance: &mut Chance) -> Case {
    let line = format!("GET /v2/good/name/blobs/{}", world.blob);
    let at = chance.range(100..100_000);
    let digits = chance.range(20..60);
    let unsatisfiable = match chance.below(6) {
        0 => format!("bytes={at}-"),
        1 => format!("bytes={at}-{}", at + chance.below(1000)),
        2 => format!("bytes={at}-{}", chance.below(100)),
        3 => "bytes=-0".to_owned(),
        4 => format!("bytes={at}-,{}-", at + 1),
        _ => format!("bytes=9{}-", chance.text(DIGITS, digits)),
    };
    if chance.below(2) == 0 {
        return Case::new("range", line, 416, "SIZE_INVALID").header("range", unsatisfiable);
    }
    // RFC 9110, section 14.2: what is not understood is not looked at.
    let garbage = match chance.below(7) {
        0 => format!("lines=0-{at}"),
        1 => format!("bytes={}", chance.text("abc-", 4)),
        2 => "bytes".to_owned(),
        3 => format!("bytes=0-1;{at}-"),
        4 => format!("bytes=+1-{at}"),
        5 => format!("bytes=0-{}", chance.text("-", 3)),
        _ => format!("bytes={}", "0-0,".repeat(chance.range(1025..1500))),
    };
    let mut case = Case::new("range", line, 200, "").header("range", garbage);
    case.code = None;
    case
}

fn content_range(world: &World, chance: &mut Chance) -> Case {
    let line = match chance.below(2) {
        0 => format!("PATCH {}", world.session),
        _ => format!("PUT {}?digest={}", world.session, good_digest(chance)),
    };
    let number = chance.range(5..1_000_000);
    let digits = chance.range(20..40);
    let (place, status, code) = match chance.below(9) {
        0 => (format!("bytes 0-{number}/{}", number + 1), 400, "BLOB_UPLOAD_INVALID"),
        1 => (format!("bytes=0-{number}"), 400, "BLOB_UPLOAD_INVALID"),
        2 => (format!("{number}-{}", number - 1), 400, "BLOB_UPLOAD_INVALID"),
        3 => (chance.text("abc-/*", 5), 400, "BLOB_UPLOAD_INVALID"),
        4 => (format!("0-9{}", chance.text(DIGITS, digits)), 400, "BLOB_UPLOAD_INVALID"),
        5 => (format!("{number}-"), 400, "BLOB_UPLOAD_INVALID"),
        6 => (format!("0-{number}"), 400, "SIZE_INVALID"),
        7 => ("0-3".to_owned(), 400, "SIZE_INVALID"),
        _ => (format!("{number}-{}", number + 4), 416, "BLOB_UPLOAD_INVALID"),
    };
    let case = Case::new("content range", line, status, code).header("content-range", place);
    case.body(&b"12345"[..])
}

fn session(_: &World, chance: &mut Chance) -> Case {
    let len = chance.range(1..200);
    let id = chance.text("abcdefABCDEF0123456789-_", len);
    let id = match chance.below(4) {
        0 => format!("{id}.{}", chance.text(LOWER, 3)),
        1 => "..".to_owned(),
        _ => id,
    };
    let location = format!("/v2/good/name/blobs/uploads/{id}");
    let line = match chance.below(4) {
        0 => format!("GET {location}"),
        1 => format!("PATCH {location}"),
        2 => format!("PUT {location}?digest={}", good_digest(chance)),
        _ => format!("DELETE {location}"),
    };
    Case::new("session", line, 404, "BLOB_UPLOAD_UNKNOWN")
}

fn closing_put(world: &World, chance: &mut Chance) -> Case {
    let query = match chance.below(3) {
        0 => String::new(),
        1 => "?state=x&digests=y".to_owned(),
        _ => "?digest=".to_owned(),
    };
    Case::new("closing put", format!("PUT {}{query}", world.session), 400, "DIGEST_INVALID")
}

fn mount(world: &World, chance: &mut Chance) -> Case {
    let mut from = bad_name(chance);
    // In a query an encoded slash is a slash, and so is an encoded letter a letter.
    for (fine, bad) in [("%2F", "%5C"), ("%41", "A"), ("%2e", ".")] {
        from = from.replace(fine, bad);
    }
    let line = format!("POST /v2/to/here/blobs/uploads/?mount={}&from={from}", world.blob);
    Case::new("mount", line, 400, "NAME_INVALID")
}

fn header(_: &World, chance: &mut Chance) -> Case {
    let line = "GET /v2/".to_owned();
    let len = chance.range(8200..20_000);
    match chance.below(3) {
        0 => Case::new("header", line, 431, "SIZE_INVALID").header("x-long", "x".repeat(len)),
        1 => {
            let case = Case::new("header", line, 403, "DENIED");
            case.header("origin", format!("http://{}.example", chance.text(LOWER, 8)))
        }
        _ => {
            let line = format!("PUT /v2/a/manifests/{}", chance.text(LOWER, 8));
            Case::new("header", line, 403, "DENIED").header("origin", "null").body(&b"{}"[..])
        }
    }
}

fn host(_: &World, chance: &mut Chance) -> Case {
    let line = "GET /v2/_catalog".to_owned();
    let word = format!("q{}", chance.text(LOWER, 8));
    let (host, status, code) = match chance.below(6) {
        0 => (format!("{word}.example"), 421, "DENIED"),
        1 => (format!("localhost.{word}.example:5000"), 421, "DENIED"),
        2 => (format!("127.0.0.1.{word}.example"), 421, "DENIED"),
        3 => (format!("{word}@localhost"), 400, "UNSUPPORTED"),
        4 => (format!("{word} {word}"), 400, "UNSUPPORTED"),
        _ => (ABSENT.to_owned(), 400, "UNSUPPORTED"),
    };
    Case::new("host", line, status, code).header("host", host)
}

fn manifest(_: &World, chance: &mut Chance) -> Case {
    let (content_type, body) = manifests::bad(chance);
    let line = format!("PUT /v2/a/manifests/{}", chance.text(LOWER, 8));
    let case = Case::new("manifest", line, 400, "MANIFEST_INVALID");
    case.header("content-type", content_type).body(body)
}

fn manifest_digest(_: &World, chance: &mut Chance) -> Case {
    let (content_type, body) = manifests::good(chance);
    let line = format!("PUT /v2/a/manifests/{}", good_digest(chance));
    let case = Case::new("manifest digest", line, 400, "DIGEST_INVALID");
    case.header("content-type", content_type).body(body.to_string())
}

fn large_manifest(chance: &mut Chance) -> Case {
    let (content_type, body) = manifests::good(chance);
    let mut body = body.to_string().into_bytes();
    body.resize(4 * 1024 * 1024 + chance.range(1..100_000), b' ');
    let line = "PUT /v2/a/manifests/large".to_owned();
    let case = Case::new("large manifest", line, 413, "SIZE_INVALID");
    case.header("content-type", content_type).body(body)
}
