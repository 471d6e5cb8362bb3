//! The node: pull, push and names, and the tasks that drive the pure cores.
//!
//! A [`Node`] is what the registry and the programs talk to. It decides who is asked for content,
//! in which order things become durable and visible, and when a name is settled. It must never
//! hand out a byte that its repository does not link, complete a blob whose digest is not proven,
//! or speak HTTP.
//!
//! The shape: one task drives the overlay core (`overlay`), one task per digest fetches
//! (`pull`), and everything else runs in the task of whoever asked. Blocking disk work runs in
//! `spawn_blocking`.
#![forbid(unsafe_code)]

mod announce;
mod api;
mod blob;
mod bootstrap;
pub mod budget;
mod caller;
mod clock;
mod copies;
mod deleted;
mod driver;
mod entry;
mod flight;
mod forget;
mod images;
mod job;
mod lists;
pub mod metrics;
mod mirror;
mod names;
mod node;
mod overlay;
mod peers;
mod pins;
mod preheat;
mod pull;
mod push;
mod reach;
mod seed;
mod spread;
pub mod status;
mod swarm;
mod throttle;
pub mod tokens;
pub mod upkeep;
mod writer;

use std::io;

pub use api::{
    DeleteError, FindError, FindReport, HolderStatus, ImageBytes, ImageStatus, ManifestContent,
    PeerStatus, PutManifest, PutManifestError, ReadError, RemovedImage, SourceBytes, SourceStatus,
    StartError, Status, SwarmSource, SwarmStatus, TagStatus, TagVersion, TagWriteError, TokenError,
    TokenInfo, Traffic,
};
pub use blob::{Blob, BlobStream};
pub use bootstrap::{Rhythm, Sources};
pub use budget::Budget;
pub use copies::{
    COPIES, COPIES_GRACE, CopiesStatus, CopySettings, Durability, MAX_COPIES, spare_bytes,
};
pub use ddr_store::{BlobReader, Committed, UploadError};
pub use driver::{
    ContainerdDriver, DRIVER_EVERY, Driver, DriverError, DriverSettings, DriverStatus, Given,
    RegistryDriver, Root,
};
pub use job::{JobBusy, JobKind, JobState, JobStatus};
pub use lists::{ListedBy, MAX_REFERRERS, MAX_REFERRERS_BYTES, Referrers};
pub use mirror::{MIRROR_FRESH, MirrorSettings};
pub use names::{TagList, TagReads, TagRules};
pub use node::{Bandwidth, Limits, MAX_BLOB_BYTES, MAX_FETCHES, Node, NodeConfig};
pub use pins::{PinError, PinStatus};
pub use preheat::{PullNodes, PullNodesError, PullRequest};
pub use push::Upload;
pub use reach::{DialReport, MAX_ASKED, PeerReach, Reach};
pub use throttle::MIN_RATE;
pub use upkeep::{
    CACHE_HIGH, CACHE_LOW, CacheSettings, CacheStatus, GcRequest, UpkeepSettings, VerifyRequest,
};

/// Runs disk work where it may block. The error is of the task itself: it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// The same for the store's upload calls.
pub(crate) async fn upload_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    blocking(work).await.map_err(UploadError::Io)?
}
