//! A small HTTP/1.1 client for one address on this machine, for the command line and the demo.
//!
//! One connection a request. It must never read an answer without a bound or wait without an end.

pub mod registry;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Wait for a connection on loopback.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait for the head of an answer, counted from the start of the request.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of an answer that is read as a whole.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("nothing answers on {0}")]
    NoServer(SocketAddr),
    /// The head of the answer did not come within [`ANSWER_TIMEOUT`].
    #[error("{0} did not answer in time")]
    TimedOut(SocketAddr),
    /// The connection broke, or what came is not HTTP.
    #[error("the connection to {address} failed: {reason}")]
    Broken {
        /// The server.
        address: SocketAddr,
        /// What the library said.
        reason: String,
    },
}

/// Sends `request` to `address` and waits for the head of the answer. The request's URI is a path;
/// `Host` is filled in.
///
/// # Errors
///
/// See [`ClientError`]. An HTTP error status is not an error here.
pub async fn send<B>(
    address: SocketAddr,
    request: Request<B>,
) -> Result<Response<Incoming>, ClientError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    upload(address, request, &AtomicU64::new(0)).await
}

/// The same for a body that takes long: it is given up when `sent`, which the body counts up, stands
/// still for [`ANSWER_TIMEOUT`].
///
/// # Errors
///
/// See [`ClientError`].
pub async fn upload<B>(
    address: SocketAddr,
    mut request: Request<B>,
    sent: &AtomicU64,
) -> Result<Response<Incoming>, ClientError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let mut answer = std::pin::pin!(connect(address).await?.send_request(request));
    let mut before = 0;
    loop {
        match timeout(ANSWER_TIMEOUT, &mut answer).await {
            Ok(answer) => return answer.map_err(|error| broken(address, &error)),
            Err(_) if sent.load(Ordering::Relaxed) == before => {
                return Err(ClientError::TimedOut(address));
            }
            Err(_) => before = sent.load(Ordering::Relaxed),
        }
    }
}

async fn connect<B>(address: SocketAddr) -> Result<SendRequest<B>, ClientError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let Ok(Ok(stream)) = stream else { return Err(ClientError::NoServer(address)) };
    let hello = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = hello.map_err(|error| broken(address, &error))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Reads the whole body, at most [`MAX_ANSWER_BYTES`].
///
/// # Errors
///
/// [`ClientError::Broken`] when it ends early or is longer.
pub async fn read(address: SocketAddr, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
    match timeout(ANSWER_TIMEOUT, body.collect()).await {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes()),
        Ok(Err(error)) => Err(broken(address, error.as_ref())),
        Err(_) => Err(ClientError::TimedOut(address)),
    }
}

/// The next bytes of a body; nothing at its end.
///
/// # Errors
///
/// [`ClientError::Broken`] when it ends early, [`ClientError::TimedOut`] when nothing comes for
/// [`ANSWER_TIMEOUT`].
pub async fn next(address: SocketAddr, body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
    loop {
        match timeout(ANSWER_TIMEOUT, body.frame()).await {
            Err(_) => return Err(ClientError::TimedOut(address)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(broken(address, &error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

fn broken(address: SocketAddr, error: &(dyn std::error::Error + 'static)) -> ClientError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    ClientError::Broken { address, reason }
}
