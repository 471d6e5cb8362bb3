//! Who this node is at the registry.
//!
//! Decides where name and password come from: the settings, docker's file, or a credential helper that the
//! file names. Answers of helpers are kept for [`HELPER_LIFE`], the file is read anew when it changes. Never
//! shows a secret: the types here have no `Debug`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ddr_oci::UpstreamHost;
use http::HeaderValue;
use tokio::sync::Mutex;

use crate::api::UpstreamError;
use crate::config::{Credentials, Settings, SettingsError};

mod docker;
mod helper;

/// How long a helper's answer is used again.
const HELPER_LIFE: Duration = Duration::from_mins(5);

/// Somebody.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum Login {
    /// Name and password.
    Basic { user: String, password: String },
    /// A token that only buys tokens (docker's `identitytoken`).
    Identity(String),
}

impl Login {
    /// The `Authorization` header, where there is a password.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Basic { user, password } = self else { return None };
        let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// Where to look for a [`Login`].
pub(crate) struct Logins {
    credentials: Credentials,
    host: UpstreamHost,
    /// Where helpers are; else in `PATH`.
    helper_directory: Option<PathBuf>,
    known: Mutex<Known>,
}

/// What was read last.
#[derive(Default)]
struct Known {
    stamp: Option<Stamp>,
    file: docker::File,
    helped: Option<(Instant, Option<Login>)>,
}

/// A file's length and time of change; another stamp is another content.
type Stamp = (u64, SystemTime);

impl Logins {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        match &settings.credentials {
            Credentials::Basic { user, .. } if user.contains(':') => {
                let text = "the user name has a colon, which HTTP cannot carry";
                return Err(SettingsError::Invalid(text.to_owned()));
            }
            Credentials::DockerConfig(path) => {
                let failed = |reason| SettingsError::File { path: path.clone(), reason };
                let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
                docker::File::parse(&bytes).map_err(failed)?;
            }
            Credentials::Basic { .. } | Credentials::Anonymous => {}
        }
        Ok(Self::with_helpers_in(None, settings))
    }

    fn with_helpers_in(helper_directory: Option<PathBuf>, settings: &Settings) -> Self {
        let (credentials, host) = (settings.credentials.clone(), settings.host.clone());
        Self { credentials, host, helper_directory, known: Mutex::default() }
    }

    /// Who to be now. `anew`: what a helper said before was refused.
    pub(crate) async fn login(&self, anew: bool) -> Result<Option<Login>, UpstreamError> {
        match &self.credentials {
            Credentials::Anonymous => Ok(None),
            Credentials::Basic { user, password } => {
                Ok(Some(Login::Basic { user: user.clone(), password: password.clone() }))
            }
            Credentials::DockerConfig(path) => self.docker(path, anew).await,
        }
    }

    async fn docker(&self, path: &Path, anew: bool) -> Result<Option<Login>, UpstreamError> {
        let mut known = self.known.lock().await;
        known.refresh(path).await.map_err(|reason| {
            UpstreamError::Denied(format!("no credentials: {}: {reason}", path.display()))
        })?;
        let Some(name) = known.file.helper(&self.host).map(str::to_owned) else {
            return Ok(known.file.login(&self.host));
        };
        if let Some(kept) = known.kept(Instant::now()).filter(|_| !anew) {
            return Ok(kept);
        }
        let server = docker::server_of(&self.host);
        let helped = helper::ask(self.helper_directory.as_deref(), &name, server).await;
        let helped = helped.map_err(UpstreamError::Denied)?;
        let login = helped.or_else(|| known.file.login(&self.host));
        known.helped = Some((Instant::now(), login.clone()));
        Ok(login)
    }
}

impl Known {
    /// Reads the file if it is another than before.
    async fn refresh(&mut self, path: &Path) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let metadata = tokio::fs::metadata(path).await.map_err(text)?;
        let stamp = (metadata.len(), metadata.modified().map_err(text)?);
        if self.stamp != Some(stamp) {
            let bytes = tokio::fs::read(path).await.map_err(text)?;
            let file = docker::File::parse(&bytes)?;
            *self = Self { stamp: Some(stamp), file, helped: None };
        }
        Ok(())
    }

    fn kept(&self, now: Instant) -> Option<Option<Login>> {
        let (since, login) = self.helped.as_ref()?;
        (now.saturating_duration_since(*since) < HELPER_LIFE).then(|| login.clone())
    }
}

#[cfg(test)]
mod tests;
