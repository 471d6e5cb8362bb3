//! A client of registries that this swarm mirrors (Docker Hub, ghcr.io, one in the next room), and of one that runs
//! beside a node and is written to.
//!
//! Decides how another registry is spoken to: which credentials go where, which redirects are
//! followed, how long an answer may take, and that no manifest is believed before its digest
//! fits. It must never send a credential to a host that is not configured for it, never connect to a private
//! or link-local address unless that is configured, and never log a secret. It knows nothing of peers, stores
//! and clients.

#![forbid(unsafe_code)]

mod address;
mod api;
mod auth;
mod challenge;
mod client;
mod config;
mod credentials;
pub mod events;
mod exchange;
mod hosts;
mod known;
mod pause;
mod resolver;
mod scope;
mod token;
mod upstream;
mod wire;

pub use api::{BlobBody, Found, Manifest, Page, UpstreamError};
pub use config::{Credentials, Settings, SettingsError};
pub use known::well_known;
pub use pause::MAX_PAUSE;
pub use upstream::Upstream;
