//! Reads `multipart/byteranges` by its boundary alone, as RFC 2046 says.

/// The `Content-Range` and the bytes of each part.
pub(crate) fn read_parts<'a>(content_type: &str, body: &'a [u8]) -> Vec<(String, &'a [u8])> {
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("the type");
    let next = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&next.as_bytes()[2..]).expect("begins with a delimiter");
    let mut parts = Vec::new();
    while rest != b"--\r\n" {
        rest = rest.strip_prefix(b"\r\n").expect("a line break after the delimiter");
        let end = find(rest, next.as_bytes()).expect("a delimiter after the part");
        let blank = find(&rest[..end], b"\r\n\r\n").expect("a blank line after the fields");
        let fields = std::str::from_utf8(&rest[..blank]).expect("fields are text");
        let mut fields = fields.lines().filter_map(|line| line.split_once(": "));
        let place = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-range"));
        parts.push((place.expect("a place").1.to_owned(), &rest[blank + 4..end]));
        rest = &rest[end + next.len()..];
    }
    parts
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
