//! A question to the registry and its answer, with credentials and redirects between.
//!
//! Decides which redirects are followed, where `Authorization` goes and what a status means. Once a redirect
//! has left the registry's own origin no credentials are sent any more, even if it leads back.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use ddr_oci::RepositoryName;
use futures_util::stream::BoxStream;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE,
};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Body, Request, Response, Url};

use crate::api::UpstreamError;
use crate::auth::Auth;
use crate::config::{Settings, SettingsError};
use crate::scope::Scope;
use crate::wire::{self, Wire, discard};

/// Most redirects in a row.
pub(crate) const MAX_REDIRECTS: usize = 5;
/// Longest target of one, in bytes.
const MAX_LOCATION_BYTES: usize = 8 * 1024;
/// What the bytes of a blob are sent as.
const OCTETS: &str = "application/octet-stream";

/// What is asked.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) scope: Scope,
    pub(crate) url: Url,
    pub(crate) accept: &'static str,
    /// `Range` header.
    pub(crate) range: Option<String>,
    pub(crate) payload: Option<Payload>,
}

/// A body that is sent.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

impl Ask {
    pub(crate) const fn new(method: Method, scope: Scope, url: Url) -> Self {
        Self { method, scope, url, accept: "*/*", range: None, payload: None }
    }

    /// Redirects of what changes something are not followed.
    fn may_be_redirected(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// One registry to be asked.
pub(crate) struct Exchange {
    pub(crate) wire: Wire,
    auth: Auth,
}

impl Exchange {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self { wire: Wire::new(settings)?, auth: Auth::new(settings)? })
    }

    /// The URL of `rest` of `repository`.
    pub(crate) fn url(&self, repository: &RepositoryName, rest: &str) -> Url {
        let mut url = self.wire.reach.endpoint().clone();
        url.set_path(&format!("/v2/{repository}/{rest}"));
        url
    }

    /// The answer's head, whatever its status; of a redirect, that of its target. A challenge is answered
    /// once, also where something was shown unasked before.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Response, UpstreamError> {
        let shown = Box::pin(self.auth.ready(&self.wire, &ask.scope)).await?;
        let answer = self.follow(ask, shown.as_ref()).await?;
        let is_challenge = answer.status() == StatusCode::UNAUTHORIZED;
        if !is_challenge || !self.wire.reach.is_origin(answer.url()) {
            return Ok(answer);
        }
        let headers = answer.headers().clone();
        discard(answer).await;
        let show = self.auth.answer(&self.wire, &ask.scope, &headers, shown.as_ref());
        let show = Box::pin(show).await?;
        self.follow(ask, Some(&show)).await
    }

    /// Sends `size` bytes with what is known to be shown; a challenge is not answered, for the bytes are gone.
    pub(crate) async fn stream(
        &self,
        ask: &Ask,
        body: BoxStream<'static, io::Result<Bytes>>,
        size: u64,
        time: Duration,
    ) -> Result<Response, UpstreamError> {
        let shown = Box::pin(self.auth.ready(&self.wire, &ask.scope)).await?;
        let mut request = request(ask, ask.url.clone(), shown.as_ref());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        headers.insert(CONTENT_LENGTH, size.into());
        *request.body_mut() = Some(Body::wrap_stream(body));
        self.wire.send_within(request, time).await
    }

    async fn follow(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, UpstreamError> {
        let (mut url, mut authorization) = (ask.url.clone(), authorization);
        for _ in 0..=MAX_REDIRECTS {
            if !self.wire.reach.is_origin(&url) {
                authorization = None;
            }
            let answer = self.wire.send(request(ask, url, authorization)).await?;
            let next = if ask.may_be_redirected() { target(&answer)? } else { None };
            let Some(next) = next else { return Ok(answer) };
            self.wire.reach.may_follow(&next)?;
            discard(answer).await;
            url = next;
        }
        Err(UpstreamError::Failed(format!(
            "the registry redirects more than {MAX_REDIRECTS} times"
        )))
    }
}

fn request(ask: &Ask, url: Url, authorization: Option<&HeaderValue>) -> Request {
    let mut request = Request::new(ask.method.clone(), url);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static(ask.accept));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if let Some(range) = ask.range.as_deref().and_then(|range| range.parse().ok()) {
        headers.insert(RANGE, range);
    }
    if let Some(Payload { media_type, bytes }) = &ask.payload {
        if let Ok(media_type) = media_type.parse() {
            headers.insert(CONTENT_TYPE, media_type);
        }
        *request.body_mut() = Some(bytes.clone().into());
    } else if ask.method == Method::POST {
        // RFC 9110, section 8.6; some answer 411 without.
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    request
}

/// Where a redirect leads.
fn target(answer: &Response) -> Result<Option<Url>, UpstreamError> {
    use StatusCode as S;
    let redirects = [
        S::MOVED_PERMANENTLY,
        S::FOUND,
        S::SEE_OTHER,
        S::TEMPORARY_REDIRECT,
        S::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&answer.status()) {
        return Ok(None);
    }
    let location = wire::text(answer.headers(), LOCATION);
    let location = location.filter(|location| location.len() <= MAX_LOCATION_BYTES);
    let url = location.and_then(|location| answer.url().join(location).ok());
    let failed = || UpstreamError::Failed(format!("{} redirects to no URL", wire::host(answer)));
    url.map(Some).ok_or_else(failed)
}

/// What the status means: a body to read, nothing there, or an error.
pub(crate) async fn judge(answer: Response) -> Result<Option<Response>, UpstreamError> {
    let (host, status) = (wire::host(&answer), answer.status());
    if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
        return Ok(Some(answer));
    }
    discard(answer).await;
    let text = format!("{host} answers {status}");
    match status {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(UpstreamError::Denied(text)),
        _ => Err(UpstreamError::Failed(text)),
    }
}
