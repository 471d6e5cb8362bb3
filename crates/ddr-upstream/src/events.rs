//! What registries tell when their content changes: CNCF distribution's notifications ("Work with notifications",
//! one of [`NOTIFICATIONS`]) and zot's events, which are CloudEvents 1.0 over HTTP in binary or structured mode.
//!
//! Decides which manifests are meant, by tag or by digest, and nothing else: events are hints where to look, and anybody
//! may have written them. Of what puts no manifest anywhere, such as pulls, blobs and deletes, nothing is told.

use std::collections::BTreeSet;

use ddr_oci::{Reference, RepositoryName, media_type};
use serde::Deserialize;

/// Longest message, in bytes.
pub const MAX_EVENTS_BYTES: usize = 1024 * 1024;
/// Most events in one message.
pub const MAX_EVENTS: usize = 1000;
/// Media types of distribution's notifications, of 2.8 and of later ones: what is read of them is the same.
pub const NOTIFICATIONS: [&str; 2] = [
    "application/vnd.docker.distribution.events.v1+json",
    "application/vnd.docker.distribution.events.v2+json",
];
/// A CloudEvent in structured mode.
const CLOUD_EVENT: &str = "application/cloudevents+json";
/// The type of a CloudEvent in binary mode.
const CLOUD_EVENT_TYPE: &str = "ce-type";

/// Why a message tells nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EventsError {
    /// Longer than [`MAX_EVENTS_BYTES`], or of more than [`MAX_EVENTS`].
    #[error("a message of events has at most {MAX_EVENTS_BYTES} bytes and {MAX_EVENTS} events")]
    TooLong,
    /// Neither distribution's nor zot's.
    #[error("want notifications of distribution ({}) or a CloudEvent of zot", NOTIFICATIONS[0])]
    Unknown,
    /// It is not what its headers say.
    #[error("the events cannot be read")]
    Malformed,
}

#[derive(Deserialize)]
struct Notifications {
    events: Vec<Notification>,
}

#[derive(Deserialize)]
struct Notification {
    action: String,
    target: Target,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Target {
    media_type: String,
    digest: String,
    repository: String,
    tag: String,
}

impl Target {
    /// The tag, or the digest of a manifest that was put without one.
    fn reference(&self) -> &str {
        use media_type as M;
        let manifests = [M::OCI_MANIFEST, M::OCI_INDEX, M::DOCKER_MANIFEST, M::DOCKER_LIST];
        let is_manifest = manifests.contains(&self.media_type.as_str());
        if self.tag.is_empty() && is_manifest { &self.digest } else { &self.tag }
    }
}

#[derive(Deserialize)]
struct Structured {
    #[serde(rename = "type")]
    kind: String,
    data: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    name: String,
    /// A tag or a digest.
    #[serde(default)]
    reference: String,
}

/// A manifest of a repository.
pub type Pushed = (RepositoryName, Reference);

/// The manifests that were pushed, by the headers and the body of a request. `header` gives the value of
/// one by its name in lower case.
///
/// # Errors
/// [`EventsError`].
pub fn pushed<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
) -> Result<BTreeSet<Pushed>, EventsError> {
    if body.len() > MAX_EVENTS_BYTES {
        return Err(EventsError::TooLong);
    }
    let content_type = header("content-type").unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    if NOTIFICATIONS.iter().any(|known| content_type.eq_ignore_ascii_case(known)) {
        return notified(body);
    }
    if content_type.eq_ignore_ascii_case(CLOUD_EVENT) {
        let Structured { kind, data } = read(body)?;
        return Ok(changed(&kind, &data));
    }
    let kind = header(CLOUD_EVENT_TYPE).ok_or(EventsError::Unknown)?;
    Ok(changed(kind, &read(body)?))
}

fn notified(body: &[u8]) -> Result<BTreeSet<Pushed>, EventsError> {
    let Notifications { events } = read(body)?;
    if events.len() > MAX_EVENTS {
        return Err(EventsError::TooLong);
    }
    let pushes = events.iter().filter(|event| event.action == "push");
    let told = pushes.map(|event| named(&event.target.repository, event.target.reference()));
    Ok(told.flatten().collect())
}

fn changed(kind: &str, image: &Image) -> BTreeSet<Pushed> {
    let is_push = kind == "zotregistry.image.updated";
    named(&image.name, &image.reference).filter(|_| is_push).into_iter().collect()
}

fn named(repository: &str, reference: &str) -> Option<Pushed> {
    Some((repository.parse().ok()?, reference.parse().ok()?))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, EventsError> {
    serde_json::from_slice(body).map_err(|_| EventsError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&str, &'static str)], body: &str) -> Result<Vec<String>, EventsError> {
        let header = |name: &str| headers.iter().find(|(one, _)| *one == name).map(|one| one.1);
        let told = pushed(header, body.as_bytes())?;
        Ok(told.iter().map(|(repository, what)| format!("{repository}:{what}")).collect())
    }

    const DISTRIBUTION: (&str, &str) = ("content-type", NOTIFICATIONS[1]);

    #[test]
    fn distribution_tells_of_pushes() {
        let event = |action: &str, repository: &str| {
            format!(
                r#"{{"id":"x","timestamp":"2026-01-01T00:00:00Z","action":"{action}","target":{{"mediaType":"a/b",
                "size":1,"digest":"sha256:00","length":1,"repository":"{repository}","url":"http://x","tag":"1"}},
                "request":{{"id":"y"}},"actor":{{}},"source":{{"addr":"x:1"}}}}"#
            )
        };
        let events = [
            event("push", "team/app"),
            event("push", "team/app"),
            event("pull", "team/pulled"),
            event("delete", "team/gone"),
            event("push", "Not/A/Name"),
            event("mount", "team/mounted"),
        ];
        let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
        assert_eq!(told(&[DISTRIBUTION], &body), Ok(vec!["team/app:1".into()]));
        assert_eq!(
            told(&[DISTRIBUTION], r#"{"events":[{"action":"push","target":{}}]}"#),
            Ok(vec![])
        );
        assert_eq!(told(&[DISTRIBUTION], r#"{"events":[]}"#), Ok(Vec::new()));
    }

    #[test]
    fn a_manifest_without_a_tag_is_told_of_by_its_digest() {
        let digest = ddr_oci::Digest::sha256(b"").to_string();
        let event = |kind: &str| {
            let target =
                format!(r#"{{"mediaType":"{kind}","digest":"{digest}","repository":"team/app"}}"#);
            format!(r#"{{"events":[{{"action":"push","target":{target}}}]}}"#)
        };
        let named = vec![format!("team/app:{digest}")];
        for kind in [media_type::OCI_MANIFEST, media_type::DOCKER_LIST] {
            assert_eq!(told(&[DISTRIBUTION], &event(kind)), Ok(named.clone()));
        }
        assert_eq!(told(&[DISTRIBUTION], &event(media_type::OCTET_STREAM)), Ok(Vec::new()));
        let data = format!(r#"{{"name":"team/app","reference":"{digest}"}}"#);
        assert_eq!(told(&[("ce-type", "zotregistry.image.updated")], &data), Ok(named));
    }

    #[test]
    fn zot_tells_in_both_modes() {
        let data = r#"{"name":"team/app","reference":"1.0","digest":"sha256:00","mediaType":"a/b","manifest":"{}"}"#;
        let json = ("content-type", "application/json");
        let updated = ("ce-type", "zotregistry.image.updated");
        assert_eq!(told(&[json, updated], data), Ok(vec!["team/app:1.0".into()]));
        let no_digest = data.replace("1.0", "sha256:00");
        assert_eq!(told(&[json, updated], &no_digest), Ok(Vec::new()));
        let kinds = ["zotregistry.image.deleted", "zotregistry.repository.created", "other"];
        for kind in kinds {
            assert_eq!(told(&[json, ("ce-type", kind)], data), Ok(Vec::new()), "{kind}");
        }
        let structured = format!(r#"{{"type":"zotregistry.image.updated","data":{data}}}"#);
        let header = ("content-type", "application/cloudevents+json; charset=utf-8");
        assert_eq!(told(&[header], &structured), Ok(vec!["team/app:1.0".into()]));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        assert_eq!(told(&[], "{}"), Err(EventsError::Unknown));
        assert_eq!(told(&[("content-type", "application/json")], "{}"), Err(EventsError::Unknown));
        for body in ["", "[]", "{}", "{\"events\":1}", "{\"events\":[{}]}", "\u{0}"] {
            assert_eq!(told(&[DISTRIBUTION], body), Err(EventsError::Malformed), "{body:?}");
        }
        let one = r#"{"action":"push","target":{"repository":"a"}}"#;
        let many = format!(r#"{{"events":[{}]}}"#, vec![one; MAX_EVENTS + 1].join(","));
        assert_eq!(told(&[DISTRIBUTION], &many), Err(EventsError::TooLong));
        let long = " ".repeat(MAX_EVENTS_BYTES + 1);
        assert_eq!(told(&[DISTRIBUTION], &long), Err(EventsError::TooLong));
    }
}
