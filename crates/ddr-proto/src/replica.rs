//! Copies of pushed content: who shall hold one, who is lost, what is mended first.
//!
//! Plain values and pure functions; the driver owns messages, rows and transfers. The rules are those of
//! `docs/copies.md`: copies stay where they are, a new holder is chosen only for one that is lost, and a
//! holder lets go only when enough of higher rank have told it that they keep the part.

mod pace;
mod plan;
mod vigil;

pub use self::pace::{MAX_MENDING, Pace, Task};
pub use self::plan::{Candidate, Need, is_surplus, place_in_line, plan, rank};
pub use self::vigil::{MAX_WATCHED, Vigil};
