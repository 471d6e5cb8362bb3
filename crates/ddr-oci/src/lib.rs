//! The words of OCI: digest, reference, descriptor, manifest, route, range, error codes.
//!
//! This crate decides what a well-formed name, digest, path, range or manifest is, and nothing
//! else. It is pure: no runtime, sockets, files, clock or randomness, so every decoder can be
//! fuzzed and every answer repeats. Each decoder takes bytes of a stranger and has a named limit.
//!
//! The grammar follows the OCI distribution specification (after 1.1.1) and the OCI image
//! specification 1.1. What is deliberately absent: HTTP types, stored state, and any conversion
//! between media types.

#![forbid(unsafe_code)]

pub mod descriptor;
pub mod digest;
pub mod error;
mod json;
pub mod manifest;
pub mod media_type;
pub mod multipart;
pub mod pattern;
pub mod piece_chain;
pub mod platform;
pub mod range;
pub mod reference;
pub mod referrers;
pub mod route;
mod text;
pub mod upstream;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error::ErrorCode;
pub use manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError, ManifestKind};
pub use pattern::{MAX_PATTERNS, PatternError, RepositoryPattern, TagPattern};
pub use piece_chain::{ChainError, ChainHasher, PieceChain};
pub use platform::{Platform, PlatformError};
pub use range::{RangeOutcome, byte_range, content_range};
pub use reference::{ImageReference, Reference, ReferenceError, RepositoryName, Tag};
pub use route::{Request, RouteError};
pub use upstream::{Mirrored, UpstreamHost};
