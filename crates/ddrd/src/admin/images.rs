//! `/api/v1/images` and `/api/v1/history`: what is here, what is deleted, what tags pointed to.

use ddr_node::{DeleteError, ReadError};
use ddr_oci::{ImageReference, Reference};
use http::{Method, StatusCode};

use super::Admin;
use super::answer::{self, Answer};
use super::jobs::flag;
use super::routes::{parameter, result};

/// `/api/v1/images`: GET lists the local index, DELETE takes `ref` out of the whole swarm.
pub(super) async fn answer(admin: &Admin, method: &Method, query: &str) -> Answer {
    match *method {
        Method::GET | Method::HEAD => result(admin.node.images().await),
        Method::DELETE => remove(admin, query).await,
        _ => answer::not_allowed("GET, HEAD, DELETE"),
    }
}

/// `/api/v1/history`: the tag `ref` through time.
pub(super) async fn history(admin: &Admin, query: &str) -> Answer {
    let image = match reference(query) {
        Ok(image) => image,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, &reason),
    };
    let Reference::Tag(tag) = &image.reference else {
        return answer::error(StatusCode::BAD_REQUEST, "a tag has a history, a digest has none");
    };
    match admin.node.tag_history(&image.repository, tag).await {
        Ok(versions) => answer::json(StatusCode::OK, &versions),
        Err(ReadError::Store(why)) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &why),
        Err(error) => answer::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn remove(admin: &Admin, query: &str) -> Answer {
    let image = match reference(query) {
        Ok(image) => image,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, &reason),
    };
    let by_digest = match flag(query, "digest") {
        Ok(by_digest) => by_digest,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, &reason),
    };
    match admin.node.remove_image(&image, by_digest).await {
        Ok(Some(removed)) => answer::json(StatusCode::OK, &removed),
        Ok(None) => answer::error(StatusCode::NOT_FOUND, &format!("there is no {image}")),
        Err(error) => {
            let status = match error {
                DeleteError::TagImmutable { .. } => StatusCode::FORBIDDEN,
                DeleteError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                DeleteError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            answer::error(status, &error.to_string())
        }
    }
}

fn reference(query: &str) -> Result<ImageReference, String> {
    let text = parameter(query, "ref").ok_or("say which image: ref=REF")?;
    text.parse().map_err(|_| format!("{text:?} is not an image reference"))
}
