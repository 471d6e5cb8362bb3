//! The OCI distribution API over HTTP: what docker, containerd, podman and skopeo talk to.
//!
//! Decides how a request becomes a call to [`ddr_node::Node`] and how the answer becomes headers,
//! status and body (OCI distribution-spec, spec.md, endpoint table). It must never look into the
//! store, the overlay or a peer, and it must never convert or re-encode content: bytes and media
//! types leave as they came in.
//!
//! One module per kind of request: `blobs`, `uploads`, `manifests`, `tags`, `catalog`,
//! `referrers`; `error` is the only file that turns errors into status codes.

#![forbid(unsafe_code)]

mod blobs;
mod body;
mod catalog;
mod conditions;
mod connection;
mod error;
mod fallback;
mod host;
mod lane;
pub mod limits;
mod manifests;
mod metrics;
mod multipart;
mod naming;
mod page;
mod referrers;
mod respond;
mod router;
mod sendfile;
mod server;
mod streams;
mod tags;
mod tls;
mod untaken;
mod uploads;
mod warning;

pub use limits::Limits;
pub use metrics::describe as describe_metrics;
pub use server::{serve, serve_all};
pub use tls::{Tls, TlsError};
