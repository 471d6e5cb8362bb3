//! Asking a member to be let in: one request, over a connection that shows the token.
//!
//! The joining node signs a leaf for its own key with the token's key, and shows the chain of both.
//! It must never send the token itself anywhere, nor anything to a node of another swarm.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, ClientConfig};
use tokio::time::timeout;

use super::SwarmError;
use crate::carrier::tls::{config, connect};
use crate::carrier::{Alpn, Connection};
use crate::certificate::{self, SERVER_NAME};
use crate::identity::Identity;
use crate::path;
use crate::service::{JoinRefusal, JoinReply, JoinRequest};
use crate::token::{JoinToken, TokenError};

/// Time to connect to one of the token's addresses.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one member's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A membership is never longer.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// Why a node did not join. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// A member said no.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// None of the token's addresses led to an answer.
    #[error("no member answered at {tried}: {last}: check that one runs and its peer port is open")]
    Unreachable {
        /// The addresses, in the order in which they were asked.
        tried: String,
        /// What the last one said.
        last: String,
    },
    /// The member closed the connection instead of answering.
    #[error(
        "{addr} refused the join token: it was revoked or has expired, or the clocks differ: make \
         a new one with `ddr token create`"
    )]
    Denied {
        /// Who refused.
        addr: SocketAddr,
    },
    /// A member's answer does not fit the token or this node.
    #[error("a member gave an answer that does not fit the token: do not use that token")]
    BadAnswer,
}

/// Asks the token's addresses, then `more`, one after the other until a member admits.
pub(super) async fn ask(
    identity: &Identity,
    token: &JoinToken,
    more: &[SocketAddr],
) -> Result<JoinReply, JoinError> {
    let config = client_config(identity, token)?;
    let mut error = None;
    let addrs = || token.addresses().iter().chain(more);
    for &addr in addrs() {
        match Box::pin(ask_one(identity, token, addr, config.clone())).await {
            Ok(reply) => return Ok(reply),
            // Silence elsewhere must not hide what somebody said.
            Err(JoinError::Unreachable { .. }) if error.is_some() => {}
            Err(next) => error = Some(next),
        }
    }
    let mut error = error.unwrap_or(JoinError::BadAnswer);
    if let JoinError::Unreachable { tried, .. } = &mut error {
        let all: Vec<String> = addrs().map(ToString::to_string).collect();
        *tried = all.join(", ");
    }
    Err(error)
}

async fn ask_one(
    identity: &Identity,
    token: &JoinToken,
    addr: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<JoinReply, JoinError> {
    let unreachable = |last: String| JoinError::Unreachable { tried: addr.to_string(), last };
    match timeout(DIAL_TIMEOUT, connect(addr, Alpn::Content, config)).await {
        Ok(Ok(connection)) => request(identity, addr, connection).await,
        Ok(Err(error)) if is_unknown_issuer(&error) => {
            Err(JoinError::Token(TokenError::WrongSwarm {
                token: token.swarm_id(),
                place: format!("the node at {addr}"),
                found: "another swarm".to_owned(),
            }))
        }
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable("no connection in time".to_owned())),
    }
}

fn client_config(identity: &Identity, token: &JoinToken) -> Result<Arc<ClientConfig>, JoinError> {
    let internal = |error: io::Error| SwarmError::Certificate(error.to_string());
    let leaf = certificate::joiner(&token.key()?, &token.serial(), &identity.public_key())
        .map_err(SwarmError::from)?;
    let key = identity.tls_key().map_err(internal)?;
    let chain = vec![leaf, token.authority()];
    Ok(config::client(&token.root(), chain, key, Alpn::Content).map_err(internal)?)
}

async fn request(
    identity: &Identity,
    addr: SocketAddr,
    connection: Connection,
) -> Result<JoinReply, JoinError> {
    let body = postcard::to_stdvec(&JoinRequest { public_key: identity.public_key() })
        .map_err(|error| SwarmError::Certificate(error.to_string()))?;
    let exchange = exchange(connection, body.into());
    let unreachable = |last: String| JoinError::Unreachable { tried: addr.to_string(), last };
    let (status, bytes) = match timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        // In TLS 1.3 the dialler hears only now that its certificate was refused.
        Ok(Err(error)) if is_denial(error.as_ref()) => return Err(JoinError::Denied { addr }),
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable("no answer in time".to_owned())),
    };
    match status {
        StatusCode::OK => postcard::from_bytes(&bytes).map_err(|_| JoinError::BadAnswer),
        StatusCode::FORBIDDEN => match postcard::from_bytes::<JoinRefusal>(&bytes) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(JoinError::BadAnswer),
        },
        other => Err(unreachable(format!("the answer was {other}"))),
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

async fn exchange(connection: Connection, body: Bytes) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection.stream)).await?;
    let request =
        Request::post(path::JOIN).header(header::HOST, SERVER_NAME).body(Full::new(body))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await?.to_bytes();
        drop(sender);
        Ok((status, bytes))
    };
    // The driver knows the cause when the connection fails; the request only that it did.
    let (answered, driven) = tokio::join!(answer, driver);
    match (answered, driven) {
        (Ok(answer), _) => Ok(answer),
        (Err(_), Err(cause)) => Err(cause.into()),
        (Err(error), Ok(())) => Err(error),
    }
}

fn is_unknown_issuer(error: &io::Error) -> bool {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)))
}

/// Whether the other end refused our certificate. Its alert says so; when the alert is lost, the
/// connection was closed or reset before the first byte of an answer.
fn is_denial(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            return is_certificate_alert(*alert);
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            return matches!(io.kind(), BrokenPipe | ConnectionReset | UnexpectedEof);
        }
        next = error.source();
    }
    false
}

fn is_certificate_alert(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}
