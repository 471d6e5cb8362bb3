//! The admin API as the commands see it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Empty;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::CliError;
use crate::client::{self, ClientError};

/// Asks one daemon.
#[derive(Debug)]
pub(crate) struct AdminClient {
    address: SocketAddr,
    /// True when the user wants the answer as JSON.
    pub(crate) json: bool,
}

impl AdminClient {
    pub(crate) fn new(address: SocketAddr, json: bool) -> Self {
        Self { address, json }
    }

    /// Where the daemon is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path`, as JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, CliError> {
        self.ask(Method::GET, path).await
    }

    /// Sends a request without a body and reads the JSON answer.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> Result<Value, CliError> {
        let foreign = || CliError::Foreign(self.address);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Empty::<Bytes>::new())
            .map_err(|error| CliError::Refused(error.to_string()))?;
        let answer = client::send(self.address, request).await.map_err(CliError::from)?;
        let status = answer.status();
        let body = client::read(self.address, answer).await.map_err(CliError::from)?;
        let value: Value = serde_json::from_slice(&body).map_err(|_| foreign())?;
        if status.is_success() {
            return Ok(value);
        }
        match value.get("error").and_then(Value::as_str) {
            Some(message) => Err(CliError::Refused(message.to_owned())),
            None => Err(foreign()),
        }
    }

    /// Reads an answer into the fields that a table shows; unknown fields are left out, so that
    /// this program and a newer daemon understand each other.
    pub(crate) fn view<T: DeserializeOwned>(&self, value: Value) -> Result<T, CliError> {
        serde_json::from_value(value).map_err(|_| CliError::Foreign(self.address))
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoServer(address) => Self::NoDaemon(address),
            other => Self::Client(other),
        }
    }
}

/// Percent-encodes what may not stand in a query value (RFC 3986 section 2.3).
pub(crate) fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/@".contains(&b);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn only_plain_characters_stay() {
        assert_eq!(encode("team/app:1.0@sha256:ab"), "team/app:1.0@sha256:ab");
        assert_eq!(encode("a b&q=%é"), "a%20b%26q%3D%25%C3%A9");
    }
}
