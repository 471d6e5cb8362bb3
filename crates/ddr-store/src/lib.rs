//! Content on one disk: uploads, commits, blobs, and the index of manifests and tags.
//!
//! Decides when content counts as stored: a blob is served only if its file was written whole,
//! made durable and then recorded in the index; an answer `Ok` of any changing call means that
//! the change survives a power cut. It must never trust a name or length from outside, hold a
//! whole blob in memory, or know of peers and HTTP. `docs/store.md` has the on-disk format, the
//! invariants and the orders that follow from them.
//!
//! All calls block; an asynchronous caller runs them on threads of their own.

#![forbid(unsafe_code)]

mod blob;
mod commit;
pub mod disk;
mod error;
mod evict;
mod fetch;
mod gc;
mod index;
mod layout;
mod open;
mod outside;
mod partial;
mod recover;
mod running;
mod staged;
mod store;
mod upload;
mod uses;
mod verify;

pub use blob::BlobReader;
pub use commit::Committed;
pub use disk::Space;
pub use error::{IndexError, OpenError, PartialError, PieceError, UploadError};
pub use evict::{Evict, EvictOptions, EvictReport, EvictStep, MAX_CANDIDATES};
pub use fetch::{Fetch, FetchReader, MAX_FETCHES};
pub use gc::{Gc, GcOptions, GcPhase, GcReport, GcStep};
pub use index::{
    Batch, KeptEntry, KeptName, MAX_MEMBER_BYTES, MAX_NAME_RECORD_BYTES, MAX_OLD_RECORDS,
    MAX_OLD_ROWS, MAX_PIN_LABEL_BYTES, MAX_PINNED_PARTS, MAX_PINS, MAX_REPLICA_RECORD_BYTES,
    MAX_SETTING_BYTES, MAX_SETTING_KEY_BYTES, ManifestEntry, NamePage, Outcome, PinnedImage,
    ReplicaRecord, SetPage, SetRows, StoredManifest,
};
pub use outside::{Outside, OutsideBlob};
pub use partial::{
    Checked, IdlePartial, MAX_IDLE_PARTIAL_BYTES, MAX_IDLE_PARTIALS, PARTIAL_IDLE_MS, PartialBlob,
    PartialReader, PieceSet, Written,
};
pub use running::Hashing;
pub use store::{Store, StoreConfig, now_ms};
pub use upload::{
    EMPTY_UPLOAD_IDLE_MS, MAX_UPLOADS, MAX_WARM_UPLOADS, UPLOAD_IDLE_MS, UPLOAD_TTL_MS, Upload,
};
pub use uses::{MAX_LINGERING, MAX_PENDING_TOUCHES, Pin};
pub use verify::{MAX_LISTED, Verify, VerifyOptions, VerifyPhase, VerifyReport, VerifyStep};
