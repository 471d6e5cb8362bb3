//! Content that a peer sends while it takes it in itself.

use std::io;
use std::time::Duration;

use ddr_oci::RepositoryName;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::time::timeout;

use super::Server;
use super::answer::{Body, plain};
use crate::carrier::PeerInfo;
use crate::path::DIGEST_TRAILER;
use crate::service::{UploadFrame, UploadReply};

/// How long a peer may send nothing in the middle of content: its client may be slow.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

pub(super) async fn upload(
    server: &Server,
    peer: PeerInfo,
    repository: RepositoryName,
    request: Request<Incoming>,
) -> Response<Body> {
    match server.service.upload(peer, repository, frames(request.into_body())).await {
        UploadReply::Stored => plain(StatusCode::CREATED, ""),
        UploadReply::Busy => plain(StatusCode::SERVICE_UNAVAILABLE, ""),
        UploadReply::Refused => plain(StatusCode::FORBIDDEN, ""),
        UploadReply::Full => plain(StatusCode::INSUFFICIENT_STORAGE, ""),
        UploadReply::Broken => plain(StatusCode::BAD_REQUEST, "what was sent is not what was said"),
        UploadReply::Failed => plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
    }
}

/// The body as bytes and an end with a digest. A body that ends without one ends the stream without one.
fn frames(body: Incoming) -> BoxStream<'static, io::Result<UploadFrame>> {
    unfold(body, |mut body| async move {
        let next = match timeout(IDLE_LIMIT, body.frame()).await {
            Ok(None) => return None,
            Ok(Some(Ok(frame))) => read(frame),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        Some((next, body))
    })
    .boxed()
}

fn read(frame: Frame<bytes::Bytes>) -> io::Result<UploadFrame> {
    let trailers = match frame.into_data() {
        Ok(bytes) => return Ok(UploadFrame::Bytes(bytes)),
        Err(frame) => frame.into_trailers().unwrap_or_default(),
    };
    let digest = trailers.get(DIGEST_TRAILER).and_then(|value| value.to_str().ok());
    let digest = digest.and_then(|text| text.parse().ok());
    digest.map(UploadFrame::End).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
