//! One call: the request, and the messages of its answer until the status.
//!
//! Decides what counts as an answer (200, gRPC, uncompressed, with a status), what a status means, and how long
//! containerd may be silent.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::decode::{DecodeError, Frames, status};
use crate::error::ContainerdError;

/// Longest wait for the head of an answer, and longest silence within one.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The host of every URI, because HTTP/2 wants one.
const ORIGIN: &str = "http://localhost";
/// The namespace that a question is about.
const NAMESPACE_HEADER: &str = "containerd-namespace";
/// Codes of `google.rpc.Code`.
const OK: u32 = 0;
const CANCELLED: u32 = 1;
const DEADLINE_EXCEEDED: u32 = 4;
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;

/// A question, as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: &'static str,
    namespace: Option<HeaderValue>,
    body: Bytes,
}

impl Call {
    /// `message` for `method` of all containerd.
    pub(crate) fn new(method: &'static str, message: &impl prost::Message) -> Self {
        Self { method, namespace: None, body: Frames::frame(message) }
    }

    /// The same for one namespace.
    pub(crate) fn within(self, namespace: &str) -> Result<Self, ContainerdError> {
        let namespace = HeaderValue::from_str(namespace)
            .map_err(|_| ContainerdError::Settings("not a namespace of containerd".to_owned()))?;
        Ok(Self { namespace: Some(namespace), ..self })
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = http::Method::POST;
        // Origin and methods are constants that make a URI.
        *request.uri_mut() = format!("{ORIGIN}{}", self.method).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, HeaderValue::from_static("ddr"));
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE_HEADER, namespace.clone());
        }
        request
    }
}

/// The messages of an answer, in order.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    frames: Frames,
    ended: bool,
}

impl Answer {
    pub(crate) fn of(response: Response<Incoming>) -> Result<Self, ContainerdError> {
        let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        let headers = response.headers();
        if response.status() != StatusCode::OK || !headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            let text = format!("this is no containerd: it answers {}", response.status());
            return Err(ContainerdError::Failed(text));
        }
        let ended = ended(headers)?;
        Ok(Self { body: response.into_body(), frames: Frames::default(), ended })
    }

    /// The next message; `None` after the last one of an answer that ended well. Can be dropped while it
    /// waits and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ContainerdError> {
        loop {
            if let Some(message) = self.frames.pop()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            let frame = self.body.frame().await.ok_or(DecodeError::Status)?;
            let frame = frame.map_err(|error| broke(&error))?;
            match frame.into_data() {
                Ok(piece) => self.frames.push(&piece),
                Err(frame) => self.end(frame.trailers_ref())?,
            }
        }
    }

    /// The same, for answers that do not wait for something to happen.
    pub(crate) async fn next_soon(&mut self) -> Result<Option<Bytes>, ContainerdError> {
        timeout(ANSWER_TIME, self.next()).await.map_err(|_| silent())?
    }

    /// The message of an answer that has one.
    pub(crate) async fn only(mut self) -> Result<Bytes, ContainerdError> {
        let message = self.next_soon().await?.ok_or(DecodeError::Message)?;
        match self.next_soon().await? {
            None => Ok(message),
            Some(_) => Err(DecodeError::Message.into()),
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), ContainerdError> {
        if !trailers.map_or(Ok(false), ended)? {
            return Err(DecodeError::Status.into());
        }
        self.ended = true;
        Ok(self.frames.finish()?)
    }
}

/// Whether these headers end an answer; an error if it ends with one.
fn ended(headers: &HeaderMap) -> Result<bool, ContainerdError> {
    let Some(status) = status(headers)? else { return Ok(false) };
    let text = || format!("containerd answers: {} (code {})", status.text, status.code);
    match status.code {
        OK => Ok(true),
        NOT_FOUND => Err(ContainerdError::Absent),
        CANCELLED | DEADLINE_EXCEEDED | UNAVAILABLE => Err(ContainerdError::Unreachable(text())),
        UNIMPLEMENTED => {
            let old = "this containerd is too old, or is none";
            Err(ContainerdError::Failed(format!("{old}: {}", status.text)))
        }
        _ => Err(ContainerdError::Failed(text())),
    }
}

pub(crate) fn silent() -> ContainerdError {
    let secs = ANSWER_TIME.as_secs();
    ContainerdError::Unreachable(format!("containerd says nothing for {secs} s"))
}

pub(crate) fn broke(error: &hyper::Error) -> ContainerdError {
    ContainerdError::Unreachable(format!("the connection to containerd broke: {error}"))
}

impl From<DecodeError> for ContainerdError {
    fn from(error: DecodeError) -> Self {
        Self::Failed(error.to_string())
    }
}
