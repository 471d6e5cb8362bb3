//! What to show a registry so that it lets this node in.
//!
//! Decides which challenge is answered and with what. Only the registry's own origin is ever answered, and
//! only `Authorization` headers come out of here.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};

use crate::api::UpstreamError;
use crate::challenge::{self, Challenge};
use crate::config::{Settings, SettingsError};
use crate::credentials::{Login, Logins};
use crate::scope::Scope;
use crate::token::{Asking, Tokens};
use crate::wire::Wire;

/// Logins and tokens of one registry.
pub(crate) struct Auth {
    logins: Logins,
    tokens: Tokens,
    /// It has asked for name and password before: they are shown unasked.
    is_basic: AtomicBool,
}

impl Auth {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let logins = Logins::new(settings)?;
        Ok(Self { logins, tokens: Tokens::default(), is_basic: AtomicBool::new(false) })
    }

    /// What to show before it is asked for, as far as known.
    pub(crate) async fn ready(
        &self,
        wire: &Wire,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, UpstreamError> {
        if self.is_basic.load(Ordering::Relaxed) {
            return Ok(self.logins.login(false).await?.as_ref().and_then(Login::basic));
        }
        let asking = Asking { wire, scope, logins: &self.logins, anew: false };
        self.tokens.ready(&asking).await
    }

    /// What to show to the challenge in the `headers` of a 401, if there is more than was `shown`.
    pub(crate) async fn answer(
        &self,
        wire: &Wire,
        scope: &Scope,
        headers: &HeaderMap,
        shown: Option<&HeaderValue>,
    ) -> Result<HeaderValue, UpstreamError> {
        let denied = |text: &str| UpstreamError::Denied(text.to_owned());
        match challenge::of(headers) {
            None => Err(denied("it asks for credentials in no way that is known here")),
            Some(Challenge::Bearer(bearer)) => {
                let anew = shown.is_some();
                let asking = Asking { wire, scope, logins: &self.logins, anew };
                self.tokens.renew(&asking, bearer, shown).await
            }
            Some(Challenge::Basic) => {
                let login = self.logins.login(shown.is_some()).await?;
                let login = login.ok_or_else(|| denied("it wants credentials; none are known"))?;
                let basic = login.basic().filter(|basic| Some(basic) != shown);
                let basic = basic.ok_or_else(|| denied("it does not take the credentials"))?;
                self.is_basic.store(true, Ordering::Relaxed);
                Ok(basic)
            }
        }
    }
}
