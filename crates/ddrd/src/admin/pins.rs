//! `/api/v1/pins`: GET lists the pinned images, POST pins one that is here, DELETE takes it back.

use ddr_node::{PinError, ReadError};
use ddr_oci::ImageReference;
use http::{Method, StatusCode};

use super::Admin;
use super::answer::{self, Answer};
use super::routes::parameter;

pub(super) async fn answer(admin: &Admin, method: &Method, query: &str) -> Answer {
    match *method {
        Method::GET | Method::HEAD => match admin.node.pins().await {
            Ok(pins) => answer::json(StatusCode::OK, &pins),
            Err(error) => failed(&error.into()),
        },
        Method::POST | Method::DELETE => match image(query) {
            Ok(image) if *method == Method::POST => pin(admin, &image).await,
            Ok(image) => unpin(admin, image).await,
            Err(reason) => answer::error(StatusCode::BAD_REQUEST, &reason),
        },
        _ => answer::not_allowed("GET, HEAD, POST, DELETE"),
    }
}

fn image(query: &str) -> Result<ImageReference, String> {
    let image = parameter(query, "ref").ok_or("say which image: /api/v1/pins?ref=IMAGE")?;
    image.parse().map_err(|error: <ImageReference as std::str::FromStr>::Err| error.to_string())
}

async fn pin(admin: &Admin, image: &ImageReference) -> Answer {
    match admin.node.pin(image).await {
        Ok(pin) => answer::json(StatusCode::CREATED, &pin),
        Err(error) => failed(&error),
    }
}

async fn unpin(admin: &Admin, image: ImageReference) -> Answer {
    match admin.node.unpin(image).await {
        Ok(pins) if pins.is_empty() => {
            answer::error(StatusCode::NOT_FOUND, "no such image is pinned; see: ddr pin --list")
        }
        Ok(pins) => answer::json(StatusCode::OK, &pins),
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &PinError) -> Answer {
    let status = match error {
        PinError::Unknown(_) => StatusCode::NOT_FOUND,
        PinError::NotHere { .. } | PinError::TooLarge(_) => StatusCode::CONFLICT,
        PinError::Read(ReadError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
        PinError::Read(ReadError::Busy(_)) => StatusCode::TOO_MANY_REQUESTS,
        PinError::Read(ReadError::Denied(_)) => StatusCode::FORBIDDEN,
        PinError::Read(ReadError::Store(_)) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    answer::error(status, &error.to_string())
}
