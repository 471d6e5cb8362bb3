//! A client of containerd that only reads: what its content store has, the bytes, and when that changes.
//!
//! Decides how containerd is spoken to: gRPC over HTTP/2 on its unix socket, in the six calls that are
//! needed, and what counts as an answer. It works with containerd 1.6 and later. It must never change anything
//! in containerd, never believe that bytes fit their digest, and never panic on an answer. It knows nothing
//! of peers, stores and clients.

#![forbid(unsafe_code)]

mod channel;
mod client;
mod content;
pub mod decode;
mod error;
mod grpc;
mod image;
mod listing;
mod messages;
mod namespaces;
mod reading;
mod watch;

pub use client::{Containerd, DEFAULT_SOCKET, Settings, blob_path};
pub use content::{Content, MAX_SOURCES, Source};
pub use error::ContainerdError;
pub use image::{Image, MAX_IMAGES};
pub use listing::{Listing, MAX_CONTENT};
pub use namespaces::MAX_NAMESPACES;
pub use reading::ContentBytes;
pub use watch::Watch;
