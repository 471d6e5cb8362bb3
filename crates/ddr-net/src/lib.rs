//! Identity and carriers: who a node is and how bytes reach it.
//!
//! This crate decides who may connect (mutual TLS 1.3 under the swarm's own authority), carries
//! messages over HTTP/2 and content over HTTP/1.1 on one port, and keeps the connections to other
//! nodes. It must never decide what a message means, look into the store, or let a byte of an
//! unauthenticated peer reach anything but the TLS handshake.
//!
//! Read `identity`, `token` and `swarm` for the credentials, `carrier` for the two ways to reach a
//! node, `server` and `client` for the two ends of a connection.

#![forbid(unsafe_code)]

pub mod carrier;
mod certificate;
pub mod client;
pub mod discover;
mod files;
pub mod identity;
pub mod metrics;
mod path;
pub mod server;
pub mod service;
mod stall;
pub mod swarm;
pub mod token;

pub use carrier::memory::{MemoryCarrier, MemoryNetwork};
pub use carrier::tls::{RevocationCheck, TlsCarrier};
pub use carrier::{Alpn, Carrier, Connection, PeerInfo, Standing};
pub use client::{CallError, Client, ClientLimits, ContentBody, ContentHead, DialError, GetError};
pub use identity::{Identity, IdentityError};
pub use path::{
    any_piece_path, blob_path, chain_path, from_upstream, in_background, manifest_path,
};
pub use server::{ServeLimits, serve};
pub use service::{
    ContentKind, ContentReply, ContentRequest, JoinRefusal, JoinReply, JoinRequest, Service,
    UploadFrame, UploadReply,
};
pub use swarm::{JoinError, Swarm, SwarmError, SwarmId};
pub use token::{JoinToken, TokenError};
