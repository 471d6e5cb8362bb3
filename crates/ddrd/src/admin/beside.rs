//! What the registry beside this node tells of itself: `POST /api/v1/driver/events`.
//!
//! Decides nothing: what is to be looked at is in the message, and nothing else of it counts.

use ddr_upstream::events::{self, MAX_EVENTS_BYTES};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;

use super::Admin;
use super::answer::{self, Answer};

pub(super) async fn answer<B>(admin: &Admin, request: Request<B>) -> Answer
where
    B: Body<Error: std::error::Error + Send + Sync + 'static>,
{
    if *request.method() != Method::POST {
        return answer::not_allowed("POST");
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_EVENTS_BYTES).collect().await else {
        return answer::error(StatusCode::PAYLOAD_TOO_LARGE, "1 MiB of events at most");
    };
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let pushed = match events::pushed(header, &body.to_bytes()) {
        Ok(pushed) => pushed,
        Err(error) => return answer::error(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    for (repository, reference) in pushed {
        if !admin.node.look_beside(repository.clone(), reference.clone()) {
            tracing::debug!(%repository, %reference, "a registry tells of what is not looked at now");
        }
    }
    answer::text(StatusCode::ACCEPTED, "")
}
