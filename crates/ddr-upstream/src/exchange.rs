//! A question to the registry and its answer, with credentials and redirects between.
//!
//! Decides which redirects are followed, where `Authorization` goes and what a status means. Once a redirect
//! has left the registry's own origin no credentials are sent any more, even if it leads back.

use ddr_oci::RepositoryName;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Request, Response, Url};

use crate::api::UpstreamError;
use crate::auth::Auth;
use crate::config::{Settings, SettingsError};
use crate::wire::{self, Wire, discard};

/// Most redirects in a row.
pub(crate) const MAX_REDIRECTS: usize = 5;
/// Longest target of one, in bytes.
const MAX_LOCATION_BYTES: usize = 8 * 1024;

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) repository: &'a RepositoryName,
    pub(crate) url: Url,
    pub(crate) accept: &'static str,
    /// `Range` header.
    pub(crate) range: Option<String>,
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
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Response, UpstreamError> {
        let shown = Box::pin(self.auth.ready(&self.wire, ask.repository)).await?;
        let answer = self.follow(ask, shown.as_ref()).await?;
        let is_challenge = answer.status() == StatusCode::UNAUTHORIZED;
        if !is_challenge || !self.wire.reach.is_origin(answer.url()) {
            return Ok(answer);
        }
        let headers = answer.headers().clone();
        discard(answer).await;
        let show = self.auth.answer(&self.wire, ask.repository, &headers, shown.as_ref());
        let show = Box::pin(show).await?;
        self.follow(ask, Some(&show)).await
    }

    async fn follow(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, UpstreamError> {
        let (mut url, mut authorization) = (ask.url.clone(), authorization);
        for _ in 0..=MAX_REDIRECTS {
            if !self.wire.reach.is_origin(&url) {
                authorization = None;
            }
            let answer = self.wire.send(request(ask, url, authorization)).await?;
            let Some(next) = target(&answer)? else { return Ok(answer) };
            self.wire.reach.may_follow(&next)?;
            discard(answer).await;
            url = next;
        }
        Err(UpstreamError::Failed(format!(
            "the registry redirects more than {MAX_REDIRECTS} times"
        )))
    }
}

fn request(ask: &Ask<'_>, url: Url, authorization: Option<&HeaderValue>) -> Request {
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
