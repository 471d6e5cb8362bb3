//! From an HTTP request to the module that answers it, and back.
//!
//! Decides what holds for every request: the header limit, the span, the counts, HEAD, and that a
//! request which changes something is never dropped half-way when its client goes away.

use std::sync::Arc;
use std::time::Instant;

use ddr_oci::range::MAX_RANGE_HEADER_BYTES;
use ddr_oci::route::{self, Request};
use futures_util::future::{BoxFuture, ready};
use http::Method;
use http::header::{EXPECT, HeaderMap, HeaderName, ORIGIN, RANGE};
use http::request::Parts;
use hyper::body::Incoming;
use tracing::Instrument as _;

use crate::body::RequestBody;
use crate::connection::Activity;
use crate::error::ApiError;
use crate::lane::Lane;
use crate::limits::MAX_HEADER_BYTES;
use crate::naming::Namespace;
use crate::respond::{self, Reply};
use crate::server::Shared;
use crate::{blobs, catalog, host, manifests, metrics, naming, referrers, tags, uploads};

/// Bytes of the request target that are written to the log.
const MAX_LOGGED_TARGET: usize = 512;

/// Whether a connection is served or told that there are too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Admission {
    Serve,
    Refuse,
}

/// What a request needs to know about the connection it came by.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) activity: Activity,
    pub(crate) admission: Admission,
    /// The way for content past this process, where the connection has one.
    pub(crate) lane: Option<Lane>,
}

/// What the modules get of a request beside its route.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// See [`Client::lane`].
    pub(crate) lane: Option<Lane>,
}

/// Answers one request. Never fails: an error is an answer.
pub(crate) async fn answer(client: Client, request: http::Request<Incoming>) -> Reply {
    let started = Instant::now();
    let in_flight = metrics::InFlight::begin(client.activity.begin());
    let method = request.method().clone();
    let target: String = request.uri().path().chars().take(MAX_LOGGED_TARGET).collect();
    let span = tracing::info_span!("request", %method, target);
    async {
        let (route, result) = route(client, request).await;
        let mut reply = result.unwrap_or_else(ApiError::into_reply);
        if method == Method::HEAD {
            reply.body_mut().clear();
        }
        reply.body_mut().attach(in_flight);
        metrics::answered(route, reply.status(), started);
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::debug!(status = reply.status().as_u16(), took_ms, "answered");
        reply
    }
    .instrument(span)
    .await
}

/// Finds out what is asked and lets it be done; also the route's name for the counts.
async fn route(
    client: Client,
    request: http::Request<Incoming>,
) -> (&'static str, Result<Reply, ApiError>) {
    if client.admission == Admission::Refuse {
        return ("refused", Err(ApiError::too_many_connections()));
    }
    let (head, incoming) = request.into_parts();
    let held_back = head.headers.contains_key(EXPECT);
    let buffers = client.shared.node.buffers().clone();
    let body = RequestBody::new(incoming, &client.shared.limits, buffers, held_back);
    let parsed = if header_bytes(&head.headers) > MAX_HEADER_BYTES {
        Err(ApiError::header_too_large())
    } else if head.headers.contains_key(ORIGIN) {
        // The port has no authentication: a page in a browser on this machine must not push here.
        Err(ApiError::from_web_page())
    } else if let Err(error) = host::check(&head, &client.shared.limits.hosts) {
        Err(error)
    } else {
        understand(&head, &client.shared.limits.hosts)
    };
    let call = Call {
        shared: client.shared,
        method: head.method,
        headers: head.headers,
        body,
        lane: client.lane,
    };
    match parsed {
        Ok((request, namespace)) => {
            let mut result = perform(call, &request).await;
            if let Ok(reply) = &mut result {
                namespace.mark(reply);
            }
            (label(&request), result)
        }
        Err(error) => {
            let mut call = call;
            call.body.discard().await;
            ("none", Err(error))
        }
    }
}

/// What is asked, of which repository.
fn understand(head: &Parts, hosts: &[String]) -> Result<(Request, Namespace), ApiError> {
    let query = head.uri.query();
    let mut request = route::parse(head.method.as_str(), head.uri.path(), query)?;
    let namespace = Namespace::read(query, hosts)?;
    namespace.place(&mut request)?;
    Ok((request, namespace))
}

/// Does what is asked. What changes something runs on a task of its own, which outlives the
/// connection: it is done or it fails, whatever becomes of the client.
async fn perform(mut call: Call, request: &Request) -> Result<Reply, ApiError> {
    if !request.changes() {
        let result = read(&mut call, request).await;
        call.body.discard().await;
        return result;
    }
    let request = request.clone();
    let work = async move {
        let result = dispatch(&mut call, &request).await;
        // A client that is still sending would see a reset in place of the answer.
        call.body.discard().await;
        result
    };
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or_else(|failed| Err(ApiError::task_failed(&failed)))
}

/// Reads what is asked for. Before a blob is opened it has its place among those that are sent,
/// and keeps it to its last byte.
async fn read(call: &mut Call, request: &Request) -> Result<Reply, ApiError> {
    if !matches!(request, Request::Blob { .. }) || call.method == Method::HEAD {
        return find(call, request).await;
    }
    let place = call.shared.streams.place().await?;
    let mut reply = find(call, request).await?;
    reply.body_mut().hold(place);
    Ok(reply)
}

/// Looks for what is asked; under a bare name that nobody pushed also at the registry that is set for those.
async fn find(call: &mut Call, request: &Request) -> Result<Reply, ApiError> {
    let found = dispatch(call, request).await;
    let shared = Arc::clone(&call.shared);
    let Some(bare) = &shared.limits.bare else { return found };
    match naming::at_bare(request, bare) {
        Some(there) if found.as_ref().is_err_and(ApiError::is_not_found) => {
            dispatch(call, &there).await
        }
        _ => found,
    }
}

/// Each kind of request is a future of its own on the heap: a ping does not pay for an upload's
/// state.
fn dispatch<'a>(
    call: &'a mut Call,
    request: &'a Request,
) -> BoxFuture<'a, Result<Reply, ApiError>> {
    match request {
        Request::Ping => Box::pin(ready(Ok(respond::ping()))),
        Request::Catalog { n, last } => Box::pin(catalog::list(call, *n, last.as_deref())),
        Request::TagList { name, n, last } => Box::pin(tags::list(call, name, *n, last.as_deref())),
        Request::Blob { name, digest } => Box::pin(blobs::get(call, name, digest)),
        Request::BlobDelete { name, digest } => Box::pin(blobs::delete(call, name, digest)),
        // The algorithm is only a hint: the closing digest says which one counts.
        Request::UploadStart { name, digest, mount, algorithm: _ } => {
            Box::pin(uploads::start(call, name, digest.as_ref(), mount.as_ref()))
        }
        Request::UploadStatus { name, id } => Box::pin(uploads::status(call, name, id)),
        Request::UploadPatch { name, id } => Box::pin(uploads::patch(call, name, id)),
        Request::UploadPut { name, id, digest } => Box::pin(uploads::put(call, name, id, digest)),
        Request::UploadCancel { name, id } => Box::pin(uploads::cancel(call, name, id)),
        Request::Manifest { name, reference } => Box::pin(manifests::get(call, name, reference)),
        Request::ManifestPut { name, reference, tags } => {
            Box::pin(manifests::put(call, name, reference, tags))
        }
        Request::ManifestDelete { name, reference } => {
            Box::pin(manifests::delete(call, name, reference))
        }
        Request::Referrers { name, digest, artifact_type, n, last } => {
            let artifact_type = artifact_type.as_deref();
            let asked = referrers::Asked { artifact_type, n: *n, last: last.as_ref() };
            Box::pin(referrers::list(call, name, digest, asked))
        }
    }
}

const fn label(request: &Request) -> &'static str {
    match request {
        Request::Ping => "ping",
        Request::Catalog { .. } => "catalog",
        Request::TagList { .. } => "tag-list",
        Request::Blob { .. } => "blob",
        Request::BlobDelete { .. } => "blob-delete",
        Request::UploadStart { .. } => "upload-start",
        Request::UploadStatus { .. } => "upload-status",
        Request::UploadPatch { .. } => "upload-patch",
        Request::UploadPut { .. } => "upload-put",
        Request::UploadCancel { .. } => "upload-cancel",
        Request::Manifest { .. } => "manifest",
        Request::ManifestPut { .. } => "manifest-put",
        Request::ManifestDelete { .. } => "manifest-delete",
        Request::Referrers { .. } => "referrers",
    }
}

/// Bytes of the header fields as they stand on the wire; the route parser bounds the target. A
/// `Range` has a limit of its own, because podman asks for a thousand parts of a layer in one.
fn header_bytes(headers: &HeaderMap) -> usize {
    const SEPARATORS: usize = ": \r\n".len();
    let counts = |name: &HeaderName, len: usize| *name != RANGE || len > MAX_RANGE_HEADER_BYTES;
    headers
        .iter()
        .filter(|(name, value)| counts(name, value.len()))
        .map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS)
        .sum()
}
