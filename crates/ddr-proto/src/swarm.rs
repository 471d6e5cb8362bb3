//! The swarm as a pure state machine: whom to ask for which piece, whom to serve, who lied.
//!
//! One [`Swarm`] per node, for all blobs it fetches or holds. `docs/swarm.md` states the rules.
//!
//! The driver hands inputs to [`Swarm::handle`], then takes outputs from [`Swarm::poll_output`]
//! until there are none, and calls again with [`Input::Tick`] at [`Swarm::next_deadline`]. It moves
//! the bytes and checks them; the core sees numbers of pieces only. The core draws chance from its
//! seed alone and keeps every list below a named limit; the output queue grows with what the
//! driver hands in between two drains.

mod bits;
mod io;
mod limits;

pub use self::bits::Bits;
pub use self::io::{
    AskId, Blame, BlobView, ClaimId, Class, Failure, GroupId, Input, Output, Refusal, UploadId,
    Wanted,
};
pub use self::limits::*;
