//! Registries that this node mirrors.
//!
//! Decides which registries are asked at all, which node asks, and how long a tag is not asked for again
//! (docs/mirror.md). What they send is kept by `pull`, which proves it. It must never ask a registry that is not
//! mirrored, and never let two nodes wait for each other.

mod lists;
mod tags;
mod warden;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_oci::{ImageReference, Mirrored, RepositoryName, UpstreamHost};
use ddr_proto::wire::Request;
use ddr_upstream::{Settings, Upstream, UpstreamError};

use crate::caller::Caller;
use crate::overlay::OverlayHandle;
use crate::peers::Peers;
use crate::{ReadError, spread};

pub(crate) use lists::tags as listed_tags;
pub(crate) use tags::{answer, resolve};
pub(crate) use warden::Warden;

/// Registries without settings of their own that are remembered.
const MAX_NAMED: usize = 256;
/// The longest pause that the word of another node brings about.
const MAX_TOLD_PAUSE: Duration = Duration::from_secs(5 * 60);
/// How long the answer of a registry holds for a tag, unless configured otherwise.
pub const MIRROR_FRESH: Duration = Duration::from_secs(60);

/// Which registries are mirrored.
#[derive(Clone, Debug)]
pub struct MirrorSettings {
    /// Those that have settings of their own.
    pub upstreams: Vec<Upstream>,
    /// Further ones, reached as is usual for their names.
    pub named: Vec<UpstreamHost>,
    /// Every other, too, if it has a public address.
    pub any_public: bool,
    /// How long the answer of a registry holds for a tag.
    pub fresh: Duration,
}

impl Default for MirrorSettings {
    fn default() -> Self {
        let (upstreams, named) = (Vec::new(), Vec::new());
        Self { upstreams, named, any_public: false, fresh: MIRROR_FRESH }
    }
}

/// Where a mirrored repository comes from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) host: UpstreamHost,
    pub(crate) upstream: Upstream,
    /// Its name there.
    pub(crate) repository: RepositoryName,
}

impl Source {
    /// What a client is told.
    pub(crate) fn read_error(&self, error: &UpstreamError) -> ReadError {
        let text = format!("{}: {error}", self.host);
        match error {
            UpstreamError::Denied(_) | UpstreamError::Forbidden(_) => ReadError::Denied(text),
            _ => ReadError::Unavailable(text),
        }
    }
}

/// See the module comment.
pub(crate) struct Mirror {
    settings: MirrorSettings,
    /// Made when they are asked for first.
    named: Mutex<BTreeMap<UpstreamHost, Upstream>>,
    overlay: OverlayHandle,
    caller: Caller,
    peers: Arc<Peers>,
    checks: tags::Checks,
    lists: lists::Lists,
}

impl Mirror {
    pub(crate) fn new(
        settings: MirrorSettings,
        overlay: OverlayHandle,
        caller: Caller,
        peers: Arc<Peers>,
    ) -> Self {
        let (checks, lists) =
            (tags::Checks::new(settings.fresh), lists::Lists::new(settings.fresh));
        Self { settings, named: Mutex::default(), overlay, caller, peers, checks, lists }
    }

    /// Where `repository` comes from; `None` for the swarm's own, and for those of registries that are not
    /// mirrored.
    pub(crate) fn source(&self, repository: &RepositoryName) -> Option<Source> {
        let Mirrored { host, repository } = Mirrored::of(repository)?;
        let upstream = self.upstream(&host)?;
        Some(Source { host, upstream, repository })
    }

    /// The image with the name that it has here, where a mirrored registry stands before it: `docker.io/alpine:3`.
    pub(crate) fn place(&self, image: &ImageReference) -> ImageReference {
        let host: Option<UpstreamHost> = image.host.as_ref().and_then(|host| host.parse().ok());
        let mirrored = host.filter(|host| self.upstream(host).is_some());
        match mirrored.and_then(|host| host.name_here(&image.repository).ok()) {
            Some(repository) => ImageReference { host: None, repository, ..image.clone() },
            None => image.clone(),
        }
    }

    fn upstream(&self, host: &UpstreamHost) -> Option<Upstream> {
        let settings = &self.settings;
        if let Some(upstream) = settings.upstreams.iter().find(|one| one.host() == host) {
            return Some(upstream.clone());
        }
        if !settings.any_public && !settings.named.contains(host) {
            return None;
        }
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = named.get(host) {
            return Some(upstream.clone());
        }
        if named.len() >= MAX_NAMED {
            tracing::warn!(%host, "not mirrored: {MAX_NAMED} registries are");
            return None;
        }
        match Upstream::new(Settings::named(host.clone())) {
            Ok(upstream) => {
                named.insert(host.clone(), upstream.clone());
                Some(upstream)
            }
            Err(error) => {
                tracing::error!(%host, %error, "a registry cannot be mirrored");
                None
            }
        }
    }

    /// Counts what a registry answered, and tells all others when it asks for a pause.
    pub(crate) fn heard<T>(
        &self,
        source: &Source,
        answer: Result<T, UpstreamError>,
    ) -> Result<T, UpstreamError> {
        let result = match &answer {
            Ok(_) => "ok",
            Err(UpstreamError::RateLimited(_)) => "limited",
            Err(UpstreamError::Denied(_)) => "denied",
            Err(_) => "failed",
        };
        metrics::counter!(crate::metrics::UPSTREAM_REQUESTS, "result" => result).increment(1);
        if let Err(error) = &answer {
            let host = &source.host;
            tracing::debug!(%host, repository = %source.repository, %error, "a registry failed");
            if let UpstreamError::RateLimited(pause) = error {
                self.tell_pause(host, *pause);
            }
        }
        answer
    }

    fn tell_pause(&self, host: &UpstreamHost, pause: Duration) {
        if !self.checks.tell_pause(host, pause) {
            return;
        }
        tracing::warn!(%host, for_s = pause.as_secs(), "a registry is asked too often");
        let for_s = u32::try_from(pause.as_secs()).unwrap_or(u32::MAX);
        let request = Request::Paused { host: host.clone(), for_s };
        let (overlay, caller) = (self.overlay.clone(), self.caller.clone());
        tokio::spawn(async move { spread::to_all(&overlay, &caller, &request).await });
    }

    /// Another node says that a registry is asked too often.
    pub(crate) fn told_pause(&self, host: &UpstreamHost, for_s: u32) {
        if let Some(upstream) = self.upstream(host) {
            let pause = Duration::from_secs(u64::from(for_s)).min(MAX_TOLD_PAUSE);
            upstream.pause(pause);
            // Who was told tells nobody: the one that the registry answered tells all.
            self.checks.tell_pause(host, pause);
        }
    }
}
