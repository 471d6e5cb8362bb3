//! Tokens: asked for at the registry's token service, kept by scope (distribution, "Token
//! Authentication").
//!
//! Decides how long a token is used and that for one scope at most one is asked for at a time. It asks
//! for what the request needs and nothing more, whatever the registry suggests. Never follows a redirect.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Request, Url};
use serde::Deserialize;

use crate::api::UpstreamError;
use crate::challenge::Bearer;
use crate::credentials::{Login, Logins};
use crate::scope::Scope;
use crate::wire::{self, Wire};

/// Most scopes whose tokens are kept; the one that was first asked for goes first.
const MAX_TOKENS: usize = 256;
/// Largest answer of a token service, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Life of a token whose service says nothing.
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// Longest use of one token.
const MAX_LIFE: Duration = Duration::from_hours(1);
/// What name this client has there.
const CLIENT_ID: &str = "ddr";

/// A token and when to ask for the next.
struct Token {
    header: HeaderValue,
    until: Instant,
}

/// What is known for one scope.
#[derive(Default)]
pub(crate) struct Slot {
    bearer: Option<Bearer>,
    token: Option<Token>,
}

impl Slot {
    /// The token, while it lasts.
    fn fresh(&self, now: Instant) -> Option<HeaderValue> {
        self.token.as_ref().filter(|token| now < token.until).map(|token| token.header.clone())
    }
}

/// Held while a token is asked for: whoever waits finds it then.
type Entry = Arc<tokio::sync::Mutex<Slot>>;

/// Tokens by scope.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<VecDeque<(Scope, Entry)>>);

impl Tokens {
    /// The entry of `scope`, if one was made.
    fn find(&self, scope: &Scope) -> Option<Entry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().find(|(known, _)| known == scope);
        found.map(|(_, entry)| entry.clone())
    }

    fn find_or_make(&self, scope: &Scope) -> Entry {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entry)) = entries.iter().find(|(known, _)| known == scope) {
            return entry.clone();
        }
        if entries.len() == MAX_TOKENS {
            entries.pop_front();
        }
        let entry = Entry::default();
        entries.push_back((scope.clone(), entry.clone()));
        entry
    }

    /// A token for the scope, if it is known that and where one is asked for.
    pub(crate) async fn ready(
        &self,
        asking: &Asking<'_>,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        let Some(entry) = self.find(asking.scope) else { return Ok(None) };
        let mut slot = entry.lock().await;
        if let Some(header) = slot.fresh(Instant::now()) {
            return Ok(Some(header));
        }
        let Some(bearer) = slot.bearer.clone() else { return Ok(None) };
        let token = Box::pin(asking.ask(&bearer)).await?;
        let header = token.header.clone();
        slot.token = Some(token);
        Ok(Some(header))
    }

    /// Another token than the `refused` one.
    pub(crate) async fn renew(
        &self,
        asking: &Asking<'_>,
        bearer: Bearer,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, UpstreamError> {
        let entry = self.find_or_make(asking.scope);
        let mut slot = entry.lock().await;
        let others = slot.fresh(Instant::now()).filter(|header| Some(header) != refused);
        if let Some(header) = others {
            return Ok(header);
        }
        let token = Box::pin(asking.ask(&bearer)).await?;
        let header = token.header.clone();
        *slot = Slot { bearer: Some(bearer), token: Some(token) };
        Ok(header)
    }
}

/// What a token is asked for with.
pub(crate) struct Asking<'a> {
    pub(crate) wire: &'a Wire,
    pub(crate) scope: &'a Scope,
    pub(crate) logins: &'a Logins,
    /// What the logins said before was refused.
    pub(crate) anew: bool,
}

impl Asking<'_> {
    async fn ask(&self, bearer: &Bearer) -> Result<Token, UpstreamError> {
        let failed = |text: String| Err(UpstreamError::Failed(text));
        let Ok(realm) = Url::parse(&bearer.realm) else {
            return failed("the registry's token service is no URL".to_owned());
        };
        let login = self.logins.login(self.anew).await?;
        self.wire.reach.may_ask_token(&realm, login.is_some())?;
        let (host, asked) = (wire::url_host(&realm), Instant::now());
        let answer = self.wire.send(self.request(realm, bearer, login.as_ref())).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = format!("{host} gives no token for {}", self.scope);
                return Err(UpstreamError::Denied(text));
            }
            status => return failed(format!("{host} answers {status} instead of a token")),
        }
        let body = wire::read(answer, MAX_ANSWER_BYTES).await?;
        let token = parse(&body).map(|(header, life)| Token { header, until: asked + life });
        token.map_or_else(|| failed(format!("{host} answers without a token")), Ok)
    }

    /// GET with name and password or with nothing; POST with an identity token.
    fn request(&self, mut realm: Url, bearer: &Bearer, login: Option<&Login>) -> Request {
        let scope = self.scope.to_string();
        let service = bearer.service.as_deref();
        let service = service.map(|service| ("service", service));
        let fields = service.into_iter().chain([("scope", scope.as_str())]);
        realm.set_fragment(None);
        let mut request = if let Some(Login::Identity(token)) = login {
            let identity = [
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", token.as_str()),
            ];
            post(realm, fields.chain(identity))
        } else {
            realm.query_pairs_mut().extend_pairs(fields);
            Request::new(Method::GET, realm)
        };
        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(basic) = login.and_then(Login::basic) {
            headers.insert(http::header::AUTHORIZATION, basic);
        }
        request
    }
}

fn post<'a>(realm: Url, fields: impl Iterator<Item = (&'a str, &'a str)>) -> Request {
    // A form is written as a query is.
    let mut form = realm.clone();
    form.query_pairs_mut().clear().extend_pairs(fields);
    let body = form.query().unwrap_or_default().to_owned();
    let mut request = Request::new(Method::POST, realm);
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(CONTENT_TYPE, form);
    *request.body_mut() = Some(body.into());
    request
}

/// The `Authorization` header and for how long to use it: three quarters of the token's life.
fn parse(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        #[serde(default)]
        expires_in: serde_json::Value,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let tokens = [answer.token, answer.access_token];
    let token = tokens.into_iter().flatten().find(|token| !token.is_empty())?;
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    let life = answer.expires_in.as_u64().map_or(DEFAULT_LIFE, Duration::from_secs);
    Some((header, life.min(MAX_LIFE) / 4 * 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Scope {
        Scope::Pull(text.parse().expect("a name"))
    }

    #[test]
    fn answers_of_token_services_are_read() {
        let secs = Duration::from_secs;
        for (body, token, life) in [
            (r#"{"token":"a"}"#, "Bearer a", secs(45)),
            (r#"{"access_token":"b","expires_in":300}"#, "Bearer b", secs(225)),
            (r#"{"token":"","access_token":"b","expires_in":"x"}"#, "Bearer b", secs(45)),
            (r#"{"token":"a","access_token":"b","expires_in":0,"more":[]}"#, "Bearer a", secs(0)),
            (r#"{"token":"a","access_token":null,"expires_in":1e99}"#, "Bearer a", secs(45)),
            (r#"{"token":"a","expires_in":99999999}"#, "Bearer a", secs(2700)),
        ] {
            let (header, found) = parse(body.as_bytes()).expect("a token");
            assert_eq!((header.to_str().expect("plain"), found), (token, life), "{body}");
            assert!(header.is_sensitive());
        }
        for bad in ["", "[]", "{}", r#"{"token":1}"#, r#"{"token":"a\nb"}"#, r#"{"token":""}"#] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_used_until_it_ends() {
        let now = Instant::now();
        let header = HeaderValue::from_static("Bearer x");
        let until = now + Duration::from_secs(45);
        let slot = Slot { bearer: None, token: Some(Token { header: header.clone(), until }) };
        assert_eq!(slot.fresh(now), Some(header.clone()));
        assert_eq!(slot.fresh(now + Duration::from_secs(44)), Some(header));
        assert_eq!(slot.fresh(until), None);
    }

    #[test]
    fn the_oldest_entry_makes_room() {
        let tokens = Tokens::default();
        let first = tokens.find_or_make(&name("r0"));
        for i in 1..MAX_TOKENS {
            tokens.find_or_make(&name(&format!("r{i}")));
        }
        assert!(Arc::ptr_eq(&first, &tokens.find_or_make(&name("r0"))));
        tokens.find_or_make(&name("one-more"));
        assert!(tokens.find(&name("r0")).is_none());
        assert!(tokens.find(&name("r1")).is_some());
        assert_eq!(tokens.0.lock().expect("unpoisoned").len(), MAX_TOKENS);
    }
}
