//! Join tokens: made here, remembered by id, revoked everywhere.
//!
//! Decides who may not join any more. A revoked serial is kept until the token would have ended
//! anyway, is told to every node that is met, and is never taken back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_net::{JoinToken, Swarm};
use ddr_store::Store;

use crate::clock::Clock;
use crate::{TokenError, TokenInfo, blocking};

/// Tokens that are remembered, live or revoked.
pub const MAX_TOKENS: usize = 1024;
/// How long a revocation that came from a peer is kept: its token's end is not known here, and no
/// token lives longer.
const KEEP_REVOKED_MS: u64 = MAX_TTL.as_secs() * 1000;
/// The longest life of a token: 90 days.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Where tokens lie in the store's settings.
const SETTING: &str = "tokens";

type Serial = [u8; 16];
type Known = BTreeMap<String, TokenInfo>;

/// See the module comment.
pub(crate) struct Tokens {
    store: Store,
    swarm: Swarm,
    clock: Clock,
    known: Mutex<Known>,
}

impl Tokens {
    /// Reads what is remembered. Blocks.
    pub(crate) fn load(
        store: Store,
        swarm: Swarm,
        clock: Clock,
    ) -> Result<Self, ddr_store::IndexError> {
        let saved = store.get_setting(SETTING)?.unwrap_or_default();
        let rows: Vec<TokenInfo> = serde_json::from_slice(&saved).unwrap_or_default();
        let known = rows.into_iter().map(|token| (token.id.clone(), token)).collect();
        Ok(Self { store, swarm, clock, known: Mutex::new(known) })
    }

    /// See [`crate::Node::create_token`].
    pub(crate) async fn create(
        &self,
        addrs: Vec<std::net::SocketAddr>,
        ttl: Duration,
    ) -> Result<String, TokenError> {
        let token: JoinToken = self
            .swarm
            .create_token(addrs, ttl.min(MAX_TTL))
            .map_err(|error| TokenError::Create(error.to_string()))?;
        let info =
            TokenInfo { id: hex(&token.serial()), expires_ms: token.expires_ms(), revoked: false };
        if !self.insert(info) {
            return Err(TokenError::TooMany);
        }
        self.save().await?;
        Ok(token.to_string())
    }

    /// See [`crate::Node::tokens`].
    pub(crate) fn list(&self) -> Vec<TokenInfo> {
        let now_ms = self.clock.now_ms();
        self.known().values().filter(|token| token.expires_ms > now_ms).cloned().collect()
    }

    /// See [`crate::Node::revoke_token`].
    pub(crate) async fn revoke(&self, id: &str) -> Result<bool, TokenError> {
        let serial = parse(id).ok_or(TokenError::BadId)?;
        let fresh = self.revoke_all(&[serial]) > 0;
        if fresh {
            self.save().await?;
        }
        Ok(fresh)
    }

    /// What a peer says is revoked; answers how many were news. What is news is on disk then.
    pub(crate) async fn learn(&self, serials: &[Serial]) -> usize {
        let news = self.revoke_all(serials);
        if news > 0
            && let Err(error) = self.save().await
        {
            tracing::error!(%error, "revoked tokens could not be saved");
        }
        news
    }

    /// True when nobody may join with this token any more.
    pub(crate) fn is_revoked(&self, serial: &Serial) -> bool {
        self.known().get(&hex(serial)).is_some_and(|token| token.revoked)
    }

    /// Serials that are revoked, to tell others.
    pub(crate) fn revoked(&self) -> Vec<Serial> {
        let known = self.known();
        known.values().filter(|token| token.revoked).filter_map(|token| parse(&token.id)).collect()
    }

    fn revoke_all(&self, serials: &[Serial]) -> usize {
        let now_ms = self.clock.now_ms();
        let mut news = 0;
        for serial in serials {
            let id = hex(serial);
            let mut known = self.known();
            if let Some(token) = known.get_mut(&id) {
                news += usize::from(!token.revoked);
                token.revoked = true;
                continue;
            }
            drop(known);
            let expires_ms = now_ms + KEEP_REVOKED_MS;
            news += usize::from(self.insert(TokenInfo { id, expires_ms, revoked: true }));
        }
        news
    }

    /// False: too many.
    fn insert(&self, token: TokenInfo) -> bool {
        let now_ms = self.clock.now_ms();
        let mut known = self.known();
        known.retain(|_, token| token.expires_ms > now_ms);
        if known.len() >= MAX_TOKENS {
            return false;
        }
        known.insert(token.id.clone(), token);
        true
    }

    async fn save(&self) -> Result<(), TokenError> {
        let rows: Vec<TokenInfo> = self.known().values().cloned().collect();
        let rows = serde_json::to_vec(&rows).expect("texts and numbers have a JSON form");
        let store = self.store.clone();
        let saved = blocking(move || store.set_setting(SETTING, &rows)).await;
        saved
            .map_err(|error| TokenError::Store(error.to_string()))?
            .map_err(|error| TokenError::Store(error.to_string()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hex(serial: &Serial) -> String {
    format!("{:032x}", u128::from_be_bytes(*serial))
}

fn parse(id: &str) -> Option<Serial> {
    let well_formed = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = well_formed.then(|| u128::from_str_radix(id, 16).ok())??;
    Some(number.to_be_bytes())
}
