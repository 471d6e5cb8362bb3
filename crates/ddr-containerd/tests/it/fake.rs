//! A server that answers as it is told: what no containerd says.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ddr_containerd::{Containerd, ContainerdError, Settings};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::UnixListener;

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

/// An answer. [`Reply::ok`] is a good one.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<Vec<(&'static str, String)>>,
}

impl Reply {
    pub(crate) fn ok(messages: &[&[u8]]) -> Self {
        let frame = |message: &&[u8]| {
            let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
            [&[0], length.as_slice(), message].concat()
        };
        Self {
            status: 200,
            headers: vec![("content-type", "application/grpc".to_owned())],
            body: messages.iter().flat_map(frame).collect(),
            trailers: Some(vec![("grpc-status", "0".to_owned())]),
        }
    }

    fn response(self) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let mut frames = Vec::new();
        if !self.body.is_empty() {
            frames.push(Ok(Frame::data(self.body.into())));
        }
        if let Some(trailers) = self.trailers {
            let pair = |(name, value): (&str, String)| {
                (name.parse().expect("a name"), value.parse().expect("a value"))
            };
            frames.push(Ok(Frame::trailers(trailers.into_iter().map(pair).collect::<HeaderMap>())));
        }
        response.body(StreamBody::new(stream::iter(frames).boxed())).expect("a response")
    }
}

/// A server that lives as long as this.
pub(crate) struct Fake {
    dir: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Gives `reply` to whatever is asked, but a good answer to the question that connecting asks.
    /// After `connections` it listens no more, and every connection ends after `questions`.
    pub(crate) fn start(reply: Reply, connections: usize, questions: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("sock")).expect("a socket");
        let task = tokio::spawn(serve(listener, Arc::new(reply), connections, questions));
        Self { dir, task }
    }

    pub(crate) fn always(reply: Reply) -> Self {
        Self::start(reply, usize::MAX, usize::MAX)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub(crate) async fn connect(&self) -> Containerd {
        self.connect_to(&["one"]).await.expect("a connection")
    }

    pub(crate) async fn connect_to(
        &self,
        namespaces: &[&str],
    ) -> Result<Containerd, ContainerdError> {
        let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        Containerd::connect(Settings { socket: self.socket(), namespaces }).await
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, reply: Arc<Reply>, connections: usize, questions: usize) {
    for _ in 0..connections {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (reply, count) = (Arc::clone(&reply), Arc::new(tokio::sync::Semaphore::new(0)));
        let asked = Arc::clone(&count);
        let service = service_fn(move |request: Request<Incoming>| {
            asked.add_permits(1);
            let connecting = request.uri().path().ends_with("Namespaces/List");
            let reply = if connecting { Reply::ok(&[b""]) } else { Reply::clone(&reply) };
            async move { Ok::<_, std::convert::Infallible>(reply.response()) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let serving = async move {
            let mut connection = std::pin::pin!(connection);
            let enough = u32::try_from(questions).unwrap_or(u32::MAX);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = count.acquire_many(enough) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        };
        if connections == usize::MAX {
            tokio::spawn(serving);
        } else {
            serving.await;
        }
    }
}
