//! Invariants of what a registry tells of its content.

use std::collections::BTreeSet;

use ddr_upstream::events::{EventsError, MAX_EVENTS, Pushed, pushed};

const NOTIFICATIONS: &str = "application/vnd.docker.distribution.events.v1+json";
const CLOUD_EVENT: &str = "application/cloudevents+json";
const JSON: &str = "application/json";

type Told = Result<BTreeSet<Pushed>, EventsError>;

/// Bytes as a message of each kind, and their first line as its headers.
pub(crate) fn events(data: &[u8]) {
    let notified = told(Some(NOTIFICATIONS), None, data);
    let shouted = format!("{} ; charset=utf-8", NOTIFICATIONS.to_ascii_uppercase());
    assert_eq!(told(Some(&shouted), Some("x"), data), notified);
    check(&notified, MAX_EVENTS);
    check(&told(Some(CLOUD_EVENT), None, data), 1);
    let updated = told(Some(JSON), Some("zotregistry.image.updated"), data);
    assert_eq!(told(None, Some("zotregistry.image.updated"), data), updated);
    check(&updated, 1);
    let created = told(Some(JSON), Some("zotregistry.repository.created"), data);
    assert!(created.is_ok_and(|names| names.is_empty()) == updated.is_ok());
    assert_eq!(told(Some(JSON), None, data), Err(EventsError::Unknown));
    let first = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Ok(header) = std::str::from_utf8(first) {
        check(&told(Some(header), Some(header), data), MAX_EVENTS);
    }
}

fn told(content_type: Option<&str>, kind: Option<&str>, body: &[u8]) -> Told {
    let header = |name: &str| match name {
        "content-type" => content_type,
        "ce-type" => kind,
        _ => None,
    };
    pushed(header, body)
}

fn check(told: &Told, most: usize) {
    let Ok(told) = told else { return };
    assert!(told.len() <= most);
    for (repository, reference) in told {
        assert_eq!(repository.as_str().parse().as_ref(), Ok(repository));
        assert_eq!(reference.to_string().parse().as_ref(), Ok(reference));
    }
}
