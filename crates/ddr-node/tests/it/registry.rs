//! Another registry, over real HTTP on loopback: what it has, how it fails, and what it was asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ddr_node::MirrorSettings;
use ddr_oci::{Digest, media_type};
use ddr_upstream::{Settings, Upstream};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::bed::{content, image};

/// Bytes of a blob that go out before the gate is looked at.
const STEP: usize = 64 * 1024;

/// How it answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Right,
    /// Connections are closed without an answer.
    Dead,
    /// 429 to everything.
    Limited,
    /// 403 to everything.
    Closed,
    /// Blobs with one wrong byte in the middle.
    Lying,
    /// Blobs that end after half of what was promised, unless the rest is asked for.
    Short,
}

#[derive(Default)]
struct State {
    mood: Mood,
    content: BTreeMap<String, (&'static str, Bytes)>,
    asked: BTreeMap<String, usize>,
}

/// See the module comment. It ends with the test.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Bytes of each blob that go out.
    gate: watch::Sender<usize>,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let registry = Self { addr, state: Arc::default(), gate: watch::Sender::new(usize::MAX) };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if serving.mood() == Mood::Dead {
                    continue;
                }
                let registry = serving.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let registry = registry.clone();
                    async move { Ok::<_, Infallible>(registry.answer(&request)) }
                });
                let http = http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
            }
        });
        registry
    }

    /// How nodes mirror it as `up.test`.
    pub(crate) fn mirrored(&self, fresh: Duration) -> MirrorSettings {
        let usual = Settings::named("up.test".parse().expect("a host"));
        let endpoint = format!("http://{}", self.addr);
        let upstream = Upstream::new(Settings { endpoint, private: true, ..usual });
        let upstreams = vec![upstream.expect("settings that are right")];
        MirrorSettings { upstreams, fresh, ..MirrorSettings::default() }
    }

    /// An image of one config and one layer as `app:TAG`.
    pub(crate) fn image(
        &self,
        tag: &str,
        (seed, len): (u64, usize),
    ) -> (Digest, Vec<(Digest, Bytes)>) {
        let mut blobs = Vec::new();
        for bytes in [content(seed, 300), content(seed + 1, len)] {
            let digest = Digest::sha256(&bytes);
            self.put(&format!("/v2/app/blobs/{digest}"), media_type::OCTET_STREAM, &bytes);
            blobs.push((digest, bytes));
        }
        let sizes: Vec<_> =
            blobs.iter().map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect();
        let manifest = image(&sizes);
        let digest = Digest::sha256(&manifest);
        for name in [tag, &digest.to_string()] {
            self.put(&format!("/v2/app/manifests/{name}"), media_type::OCI_MANIFEST, &manifest);
        }
        (digest, blobs)
    }

    pub(crate) fn put(&self, path: &str, media_type: &'static str, bytes: &Bytes) {
        self.state().content.insert(path.to_owned(), (media_type, bytes.clone()));
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state().content.remove(path);
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// From now on so many bytes of each blob go out.
    pub(crate) fn gate(&self, bytes: usize) {
        self.gate.send_replace(bytes);
    }

    /// How often it was asked for paths that begin like this, whatever it answered.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let state = self.state();
        state.asked.iter().filter(|(asked, _)| asked.starts_with(path)).map(|(_, n)| n).sum()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("unpoisoned")
    }

    fn mood(&self) -> Mood {
        self.state().mood
    }

    fn answer(
        &self,
        request: &Request<Incoming>,
    ) -> Response<UnsyncBoxBody<Bytes, std::io::Error>> {
        let path = request.uri().path().to_owned();
        let (mood, found) = {
            let mut state = self.state();
            *state.asked.entry(path.clone()).or_default() += 1;
            (state.mood, state.content.get(&path).cloned())
        };
        let is_blob = path.contains("/blobs/");
        let refused = match mood {
            Mood::Limited => Some(StatusCode::TOO_MANY_REQUESTS),
            Mood::Closed => Some(StatusCode::FORBIDDEN),
            // A connection from before.
            Mood::Dead => Some(StatusCode::SERVICE_UNAVAILABLE),
            _ => None,
        };
        let plain = |status| {
            let empty = Full::default().map_err(|never: Infallible| match never {});
            let retry = (header::RETRY_AFTER, "30");
            let response = Response::builder().status(status).header(retry.0, retry.1);
            response.body(empty.boxed_unsync()).expect("a response")
        };
        if let Some(status) = refused {
            return plain(status);
        }
        let Some((media_type, bytes)) = found else { return plain(StatusCode::NOT_FOUND) };
        let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
        let start =
            range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let start: usize = start.unwrap_or(0);
        let size = bytes.len();
        let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let response = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, media_type)
            .header(header::CONTENT_LENGTH, size - start)
            .header("docker-content-digest", Digest::sha256(&bytes).to_string());
        let response = match start {
            0 => response,
            _ => {
                let range = format!("bytes {start}-{}/{size}", size - 1);
                response.header(header::CONTENT_RANGE, range)
            }
        };
        let body = match request.method() {
            &Method::HEAD => {
                Full::default().map_err(|never: Infallible| match never {}).boxed_unsync()
            }
            _ => self.body(bytes, start, if is_blob { mood } else { Mood::Right }),
        };
        response.body(body).expect("a response")
    }

    fn body(&self, bytes: Bytes, start: usize, mood: Mood) -> UnsyncBoxBody<Bytes, std::io::Error> {
        let bytes = match mood {
            Mood::Lying => {
                let mut wrong = bytes.to_vec();
                let middle = wrong.len() / 2;
                wrong[middle] ^= 1;
                Bytes::from(wrong)
            }
            _ => bytes,
        };
        let is_cut = mood == Mood::Short && start == 0;
        let end = if is_cut { bytes.len() / 2 } else { bytes.len() };
        let gate = self.gate.subscribe();
        let steps = futures_util::stream::unfold((start, gate), move |(at, mut gate)| {
            let bytes = bytes.clone();
            async move {
                if at >= end {
                    // Short of what the length says, if it is to be.
                    return (end < bytes.len()).then(|| {
                        let gone = std::io::Error::other("cut off");
                        (Err(gone), (bytes.len(), gate))
                    });
                }
                let open = *gate.wait_for(|open| *open > at).await.ok()?;
                let next = end.min(at + STEP).min(open);
                Some((Ok(Frame::data(bytes.slice(at..next))), (next, gate)))
            }
        });
        BodyExt::boxed_unsync(StreamBody::new(steps.boxed()))
    }
}
