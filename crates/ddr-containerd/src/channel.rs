//! The connection to containerd's socket: one, made when it is needed, and made anew when it broke.
//!
//! Decides when a question is sent a second time. All questions only read, so that does no harm.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::ContainerdError;
use crate::grpc::{ANSWER_TIME, Answer, Call, broke, silent};

/// Longest wait for a connection.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Longest headers of an answer, in bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// What of one answer may be on its way, in bytes: two parts of content as containerd sends them.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// And of all answers: no limit of its own, the most that HTTP/2 has. Else answers that nobody reads
/// on would hold up all others. How many are read at once is up to the caller.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

type Sender = http2::SendRequest<Full<Bytes>>;
/// An answer that has not begun.
pub(crate) type Waiting = BoxFuture<'static, hyper::Result<Response<Incoming>>>;

/// The way to one containerd.
pub(crate) struct Channel {
    socket: PathBuf,
    /// The lock is held while a connection is made, so that many callers make one.
    sender: Mutex<Option<Sender>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Channel {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, sender: Mutex::new(None) }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a question and waits for the head of its answer.
    pub(crate) async fn ask(&self, call: &Call) -> Result<Answer, ContainerdError> {
        let answer = match self.begin(call).await? {
            Ok(response) => Ok(response),
            // A kept connection may have been closed meanwhile.
            Err(_) => self.begin(call).await?,
        };
        Answer::of(answer.map_err(|error| broke(&error))?)
    }

    /// A connection that fails is not kept.
    async fn begin(
        &self,
        call: &Call,
    ) -> Result<hyper::Result<Response<Incoming>>, ContainerdError> {
        let waiting = self.send(call).await?;
        let answer = timeout(ANSWER_TIME, waiting).await;
        if !matches!(answer, Ok(Ok(_))) {
            *self.sender.lock().await = None;
        }
        answer.map_err(|_| silent())
    }

    /// Sends a question. Its answer may begin much later.
    pub(crate) async fn send(&self, call: &Call) -> Result<Waiting, ContainerdError> {
        let mut sender = self.sender().await?;
        Ok(Box::pin(sender.send_request(call.request())))
    }

    async fn sender(&self) -> Result<Sender, ContainerdError> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let slow = |_| {
            let text = format!("{}: no connection in time", self.socket.display());
            ContainerdError::Unreachable(text)
        };
        let sender = timeout(CONNECT_TIME, connect(&self.socket)).await.map_err(slow)??;
        *kept = Some(sender.clone());
        Ok(sender)
    }
}

/// The connection ends when all its senders and answers have been dropped.
async fn connect(socket: &Path) -> Result<Sender, ContainerdError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| no_way(socket, &error))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broke(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to containerd ended");
        }
    });
    Ok(sender)
}

fn no_way(socket: &Path, error: &io::Error) -> ContainerdError {
    match error.kind() {
        io::ErrorKind::NotFound => ContainerdError::NoSocket(socket.to_path_buf()),
        io::ErrorKind::PermissionDenied => ContainerdError::Denied(socket.to_path_buf()),
        _ => {
            let text = format!("{}: {error}; is containerd running?", socket.display());
            ContainerdError::Unreachable(text)
        }
    }
}
