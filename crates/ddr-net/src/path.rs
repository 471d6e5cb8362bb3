//! The paths of the peer port, written and read in one place.
//!
//! ```text
//! POST     /ddr/v1/message
//! POST     /ddr/v1/join
//! POST     /ddr/v1/swarm/DIGEST
//! PUT      /ddr/v1/uploads?repository=NAME
//! GET HEAD /ddr/v1/blobs/DIGEST?repository=NAME[&piece=any][&class=background]
//! GET      /ddr/v1/blobs/DIGEST?repository=NAME&source=upstream
//! GET HEAD /ddr/v1/chains/DIGEST?repository=NAME
//! GET HEAD /ddr/v1/manifests/DIGEST?repository=NAME[&source=upstream]
//! ```
//!
//! Digests and repository names need no escape in a URL, so none is understood: any `%` is an
//! unknown path.

use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;

use crate::service::{ContentKind, ContentRequest};

/// Where messages go.
pub(crate) const MESSAGE: &str = "/ddr/v1/message";
/// Where joiners go.
pub(crate) const JOIN: &str = "/ddr/v1/join";
const SWARM: &str = "/ddr/v1/swarm/";
const UPLOADS: &str = "/ddr/v1/uploads";
const BLOBS: &str = "/ddr/v1/blobs/";
const MANIFESTS: &str = "/ddr/v1/manifests/";
const CHAINS: &str = "/ddr/v1/chains/";
const REPOSITORY: &str = "repository=";
/// Leaves the choice of the piece to the peer.
const ANY_PIECE: &str = "&piece=any";

/// Nobody waits for what is asked for.
const BACKGROUND: &str = "&class=background";
/// What is not there is brought from the registry that it belongs to.
const FROM_UPSTREAM: &str = "&source=upstream";

/// The trailer (RFC 9110, section 6.5) of content that is sent: its digest.
pub(crate) const DIGEST_TRAILER: &str = "ddr-digest";

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Message,
    Join,
    /// What is said about the blob with this digest.
    Swarm(Digest),
    /// Where content for a repository is sent.
    Upload(RepositoryName),
    /// Content; method and headers say the rest of the request.
    Content(ContentRequest),
}

/// Path and query of a blob at a peer.
pub fn blob_path(digest: &Digest, repository: Option<&RepositoryName>) -> String {
    content_path(BLOBS, digest, repository)
}

/// Path and query of a manifest at a peer.
pub fn manifest_path(digest: &Digest, repository: Option<&RepositoryName>) -> String {
    content_path(MANIFESTS, digest, repository)
}

/// Path and query of any piece of a blob that a peer likes to give. For `HEAD`: of a blob that may
/// be there in part.
pub fn any_piece_path(digest: &Digest, repository: &RepositoryName) -> String {
    content_path(BLOBS, digest, Some(repository)) + ANY_PIECE
}

/// The same for content that nobody waits for: it gives way to other requests. Only of a path with a
/// repository.
#[must_use]
pub fn in_background(path: String) -> String {
    path + BACKGROUND
}

/// The same for content that the peer brings from the registry that it belongs to, if it is not there:
/// of a blob or manifest, of a path with a repository.
#[must_use]
pub fn from_upstream(path: String) -> String {
    path + FROM_UPSTREAM
}

/// Path and query of the signed piece chain of a blob at a peer.
pub fn chain_path(digest: &Digest, repository: &RepositoryName) -> String {
    content_path(CHAINS, digest, Some(repository))
}

/// Path and query of where content for a repository is sent.
pub(crate) fn upload_path(repository: &RepositoryName) -> String {
    format!("{UPLOADS}?{REPOSITORY}{repository}")
}

/// Path of what is said to a peer about a blob.
pub(crate) fn swarm_path(digest: &Digest) -> String {
    format!("{SWARM}{digest}")
}

fn content_path(prefix: &str, digest: &Digest, repository: Option<&RepositoryName>) -> String {
    match repository {
        Some(name) => format!("{prefix}{digest}?{REPOSITORY}{name}"),
        None => format!("{prefix}{digest}"),
    }
}

/// Reads a request's path and query; `None` if it names nothing here.
pub(crate) fn parse(path: &str, query: Option<&str>) -> Option<Target> {
    match path {
        MESSAGE => return query.is_none().then_some(Target::Message),
        JOIN => return query.is_none().then_some(Target::Join),
        UPLOADS => {
            let repository = query?.strip_prefix(REPOSITORY)?.parse().ok()?;
            return Some(Target::Upload(repository));
        }
        _ => {}
    }
    if let Some(digest) = path.strip_prefix(SWARM) {
        return query.is_none().then_some(Target::Swarm(digest.parse().ok()?));
    }
    let kinds = [
        (BLOBS, ContentKind::Blob),
        (MANIFESTS, ContentKind::Manifest),
        (CHAINS, ContentKind::Chain),
    ];
    let (kind, digest) = kinds
        .into_iter()
        .find_map(|(prefix, kind)| path.strip_prefix(prefix).map(|digest| (kind, digest)))?;
    let digest = digest.parse().ok()?;
    let (query, background) = match query.and_then(|query| query.strip_suffix(BACKGROUND)) {
        Some(query) if kind == ContentKind::Blob => (Some(query), true),
        Some(_) => return None,
        None => (query, false),
    };
    let (query, any_piece) = match query.and_then(|query| query.strip_suffix(ANY_PIECE)) {
        Some(query) if kind == ContentKind::Blob => (Some(query), true),
        Some(_) => return None,
        None => (query, false),
    };
    let (query, from_upstream) = match query.and_then(|query| query.strip_suffix(FROM_UPSTREAM)) {
        Some(_) if any_piece || background || kind == ContentKind::Chain => return None,
        Some(query) => (Some(query), true),
        None => (query, false),
    };
    let repository = match query {
        Some(query) => Some(query.strip_prefix(REPOSITORY)?.parse().ok()?),
        None => None,
    };
    let request = ContentRequest::new(kind, digest, repository);
    Some(Target::Content(ContentRequest { any_piece, background, from_upstream, ..request }))
}

/// Reads `bytes=A-B` or `bytes=A-` as first byte and exclusive end. Everything else is `None`,
/// which means the whole (RFC 9110, section 14.2: a server may ignore a range).
pub(crate) fn parse_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (start, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let start = digits(start)?;
    if last.is_empty() {
        return Some((start, None));
    }
    let end = digits(last)?.checked_add(1)?;
    (start < end).then_some((start, Some(end)))
}

/// Reads `bytes A-B/SIZE` as first byte, exclusive end and size, if they fit each other.
pub(crate) fn parse_content_range(header: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, end, size) = (digits(start)?, digits(last)?.checked_add(1)?, digits(size)?);
    (start < end && end <= size).then_some((start, end, size))
}

/// Digits only: `parse` alone would take a sign.
pub(crate) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let digest = Digest::sha256(b"content");
        let name: RepositoryName = "team/app-1_2.x".parse().unwrap();
        for repository in [None, Some(&name)] {
            for (path, kind) in [
                (blob_path(&digest, repository), ContentKind::Blob),
                (manifest_path(&digest, repository), ContentKind::Manifest),
            ] {
                let (path, query) = match path.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (path.as_str(), None),
                };
                let repository = repository.cloned();
                let wanted = content(kind, digest, repository);
                assert_eq!(parse(path, query), Some(wanted));
            }
        }
    }

    fn content(kind: ContentKind, digest: Digest, repository: Option<RepositoryName>) -> Target {
        Target::Content(ContentRequest::new(kind, digest, repository))
    }

    #[test]
    fn the_paths_of_the_swarm_are_read() {
        let digest = Digest::sha256(b"content");
        let name: RepositoryName = "team/app".parse().unwrap();
        let repository = Some(name.clone());
        let read = |text: &str| {
            let (path, query) = text.split_once('?').unwrap_or((text, ""));
            parse(path, Some(query).filter(|query| !query.is_empty()))
        };
        let kind = ContentKind::Blob;
        for background in [false, true] {
            let any = ContentRequest::new(kind, digest, repository.clone());
            let any = Target::Content(ContentRequest { any_piece: true, background, ..any });
            let path = any_piece_path(&digest, &name);
            let path = if background { in_background(path) } else { path };
            assert_eq!(read(&path), Some(any));
        }
        let path = chain_path(&digest, &name);
        assert_eq!(read(&path), Some(content(ContentKind::Chain, digest, repository.clone())));
        assert_eq!(read(&from_upstream(path.clone())), None, "a registry has no chains");
        assert_eq!(read(&(path + ANY_PIECE)), None, "a chain has no pieces");
        for (path, kind) in [
            (blob_path(&digest, Some(&name)), ContentKind::Blob),
            (manifest_path(&digest, Some(&name)), ContentKind::Manifest),
        ] {
            let asked = read(&from_upstream(path.clone()));
            let wanted = ContentRequest::new(kind, digest, repository.clone());
            let wanted = ContentRequest { from_upstream: true, ..wanted };
            assert_eq!(asked, Some(Target::Content(wanted)), "{path}");
        }
        assert_eq!(read(&from_upstream(any_piece_path(&digest, &name))), None);
        assert_eq!(read(&from_upstream(in_background(blob_path(&digest, Some(&name))))), None);
        assert_eq!(read(&swarm_path(&digest)), Some(Target::Swarm(digest)));
        assert_eq!(read("/ddr/v1/swarm/sha256:00"), None);
        assert_eq!(read(&upload_path(&name)), Some(Target::Upload(name)));
        assert_eq!(read("/ddr/v1/uploads"), None);
        assert_eq!(read("/ddr/v1/uploads?repository=UP"), None);
        assert_eq!(read(&format!("{}?piece=any", swarm_path(&digest))), None);
    }

    #[test]
    fn unknown_paths_name_nothing() {
        let blob = blob_path(&Digest::sha256(b"x"), None);
        for path in ["/", "", "/ddr/v1/blobs/", "/ddr/v1/blobs/sha256:00", "/ddr/v1/messages"] {
            assert_eq!(parse(path, None), None, "{path}");
        }
        assert_eq!(parse(&format!("{blob}/.."), None), None);
        assert_eq!(parse(&blob.replace(':', "%3A"), None), None);
        for query in ["", "repository=", "repository=UP", "repository=../x", "name=a", "x"] {
            assert_eq!(parse(&blob, Some(query)), None, "{query}");
        }
        assert_eq!(parse(MESSAGE, Some("x")), None);
    }

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(parse_range("bytes=0-0"), Some((0, Some(1))));
        assert_eq!(parse_range("bytes=5-"), Some((5, None)));
        for bad in ["bytes=-5", "bytes=5-4", "bytes=+1-2", "bytes=1-2,3-4", "1-2", "bytes=a-b", ""]
        {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
        assert_eq!(parse_range("bytes=0-18446744073709551615"), None);
        assert_eq!(parse_content_range("bytes 0-9/10"), Some((0, 10, 10)));
        for bad in ["bytes 0-10/10", "bytes 4-3/10", "bytes */10", "bytes 0-9/*", "0-9/10"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
