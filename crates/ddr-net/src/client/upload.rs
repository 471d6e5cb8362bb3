//! Content that goes to a peer while it comes in here: one HTTP/1.1 connection for each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::RepositoryName;
use ddr_proto::id::NodeId;
use futures_util::stream::{BoxStream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{DialError, GetError, Inner};
use crate::carrier::Alpn;
use crate::certificate::SERVER_NAME;
use crate::path::{self, DIGEST_TRAILER};
use crate::service::UploadFrame;

type Frames = BoxStream<'static, io::Result<Frame<Bytes>>>;

/// See [`super::Client::upload`].
pub(super) async fn upload(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: NodeId,
    repository: &RepositoryName,
    frames: BoxStream<'static, io::Result<UploadFrame>>,
) -> Result<(), GetError> {
    let wait = inner.limits.dial_timeout;
    let permit = timeout(wait, inner.transfers.clone().acquire_owned()).await;
    let Ok(Ok(_transfer)) = permit else { return Err(GetError::TooMany) };
    let dialled = timeout(wait, inner.carrier.dial(addr, Alpn::Content, Some(expect))).await;
    let connection = dialled
        .map_err(|_| DialError::timed_out(addr))?
        .map_err(|error| DialError::new(addr, &error))?;
    if connection.peer.node != expect {
        return Err(GetError::WrongNode { found: connection.peer.node });
    }
    let io = TokioIo::new(connection.stream);
    let shaken = http1::handshake::<_, StreamBody<Frames>>(io).await;
    let (mut sender, driver) =
        shaken.map_err(|error| DialError::new(addr, &io::Error::other(error)))?;
    let driver = tokio::spawn(driver);
    let request = Request::put(path::upload_path(repository))
        .header(header::HOST, SERVER_NAME)
        .header(header::TRAILER, DIGEST_TRAILER)
        .body(StreamBody::new(frames.map(frame).boxed()))
        .map_err(|_| GetError::Malformed("not a path"))?;
    let answer = sender.send_request(request).await;
    driver.abort();
    match answer.map_err(|error| GetError::Broken(error.to_string()))?.status() {
        StatusCode::CREATED => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => Err(GetError::Busy(Box::default())),
        other => Err(GetError::Status(other)),
    }
}

fn frame(given: io::Result<UploadFrame>) -> io::Result<Frame<Bytes>> {
    match given? {
        UploadFrame::Bytes(bytes) => Ok(Frame::data(bytes)),
        UploadFrame::End(digest) => {
            let digest = HeaderValue::try_from(digest.to_string()).map_err(io::Error::other)?;
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert(DIGEST_TRAILER, digest);
            Ok(Frame::trailers(trailers))
        }
    }
}
