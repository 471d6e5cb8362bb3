//! What a fetch tells its readers, and what a reader may see of it.
//!
//! The rule: until the digest is proven the last [`HOLD_BACK`] bytes stay hidden, so nobody ever
//! holds a complete blob that is wrong. A blob no larger than that is hidden until it is proven.
//! The same holds for the end of a range, so no answer is complete before the proof; unless two nodes
//! vouch for the piece chain that the range passed under.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use ddr_store::{FetchReader, PartialReader};
use tokio::sync::watch;

use super::places::{Place, Purpose};

/// Bytes at the end of a blob, or of a range of it, that no client gets before the digest is proven.
pub(crate) const HOLD_BACK: u64 = 64 * 1024;

/// The state of one fetch, as published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Size as the first holder told it.
    pub(crate) size: Option<u64>,
    /// What may be read, and from what.
    pub(crate) here: Here,
    /// How it stands.
    pub(crate) phase: Phase,
    /// True once a client was answered: nothing can be taken back.
    pub(crate) handed_out: bool,
}

/// What of a blob may be read.
#[derive(Clone, Debug, Default)]
pub(crate) enum Here {
    /// Nothing.
    #[default]
    Nothing,
    /// The bytes before `visible`.
    Start { reader: FetchReader, visible: u64 },
    /// Proven pieces, in any order. Without `is_settled` none of them may be given now.
    Pieces { reader: PartialReader, trust: Trust },
}

/// What is known of the chain that pieces passed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// It is in doubt: no piece may be given now.
    Doubted,
    /// One node vouches for it: all but the end may be given.
    Settled,
    /// Two nodes do: parts may be given to their end.
    Vouched,
    /// It has closed on the digest.
    Proven,
}

/// Reads what [`Here`] tells of.
#[derive(Clone, Debug)]
pub(crate) enum HereReader {
    Start(FetchReader),
    Pieces(PartialReader),
}

impl HereReader {
    /// Reads at most `buffer.len()` bytes from `offset`; 0 if there are none now.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Start(reader) => reader.read_at(offset, buffer),
            Self::Pieces(reader) => reader.read_at(offset, buffer),
        }
    }
}

/// How a fetch stands.
#[derive(Clone, Debug, Default)]
pub(crate) enum Phase {
    /// Under way.
    #[default]
    Running,
    /// Proven, stored, linked.
    Committed,
    /// Nobody has it.
    Absent,
    /// Given up.
    Failed(Arc<str>),
    /// Given up because nobody reads it any more. What is here stays for the next one.
    Left,
}

impl Progress {
    /// Of `written` bytes, those that may be read before the digest is proven.
    pub(crate) fn visible_of(written: u64, size: u64) -> u64 {
        written.min(size.saturating_sub(HOLD_BACK))
    }

    /// Bytes that are here, also those that no client may have yet; about, where they come in order.
    pub(crate) fn bytes_here(&self) -> u64 {
        match &self.here {
            Here::Nothing => 0,
            Here::Start { visible, .. } => *visible,
            Here::Pieces { reader, .. } => {
                let (chain, here) = (reader.chain(), reader.have());
                let ranges = here.iter().filter_map(|piece| chain.piece_range(piece));
                ranges.map(|range| range.end - range.start).sum()
            }
        }
    }

    /// The end of what may be read from `at` on of `range`, and the reader. `None`: nothing.
    fn readable(&self, at: u64, range: &Range<u64>) -> Option<(HereReader, u64)> {
        let is_part = self.size.is_some_and(|size| *range != (0..size));
        let held = range.start.max(range.end.saturating_sub(HOLD_BACK));
        let (reader, end, is_proven) = match &self.here {
            Here::Nothing => return None,
            Here::Start { reader, visible } => {
                let is_proven = self.size == Some(*visible);
                (HereReader::Start(reader.clone()), *visible, is_proven)
            }
            Here::Pieces { trust: Trust::Doubted, .. } => return None,
            Here::Pieces { reader, trust } => {
                let is_proven = *trust == Trust::Proven || (is_part && *trust == Trust::Vouched);
                (HereReader::Pieces(reader.clone()), reader.readable_from(at), is_proven)
            }
        };
        let end = if is_proven { end } else { end.min(held) };
        (end > at).then_some((reader, end))
    }

    /// True once a client can be answered with bytes; of a part they need not be here yet.
    pub(crate) fn has_bytes(&self, purpose: Purpose) -> bool {
        let size = self.size.unwrap_or(0);
        match &self.here {
            Here::Nothing => false,
            Here::Start { visible, .. } => *visible > 0,
            Here::Pieces { trust: Trust::Doubted, .. } => false,
            Here::Pieces { trust: Trust::Proven, .. } => true,
            Here::Pieces { .. } if purpose == Purpose::ReadPart => true,
            Here::Pieces { reader, .. } => size > HOLD_BACK && !reader.have().is_empty(),
        }
    }

    /// True when a client can be answered: bytes to read, or the end, good or bad.
    pub(crate) fn is_telling(&self, purpose: Purpose) -> bool {
        self.has_bytes(purpose) || !matches!(self.phase, Phase::Running)
    }
}

/// A reader's side of a running fetch. While one exists the fetch knows that somebody waits.
#[derive(Clone, Debug)]
pub(crate) struct Arriving {
    progress: watch::Receiver<Progress>,
    place: Place,
}

impl Arriving {
    pub(crate) fn new(progress: watch::Receiver<Progress>, place: Place) -> Self {
        Self { progress, place }
    }

    /// Waits until the fetch has something to tell; see [`Progress::is_telling`].
    pub(crate) async fn wait_telling(&mut self) -> Progress {
        let purpose = self.place.purpose();
        match self.progress.wait_for(|progress| progress.is_telling(purpose)).await {
            Ok(progress) => progress.clone(),
            Err(_) => gone(),
        }
    }

    /// Waits for the end, good or bad.
    pub(crate) async fn wait_ended(&mut self) -> Phase {
        let ended = |progress: &Progress| !matches!(progress.phase, Phase::Running);
        match self.progress.wait_for(ended).await {
            Ok(progress) => progress.phase.clone(),
            Err(_) => gone().phase,
        }
    }

    /// Waits until byte `at` of `range` may be read; answers the reader and the end of what may
    /// be read.
    pub(crate) async fn wait_beyond(
        &mut self,
        at: u64,
        range: &Range<u64>,
    ) -> io::Result<(HereReader, u64)> {
        self.place.set(at..range.end);
        let ready = |progress: &Progress| {
            progress.readable(at, range).is_some() || !matches!(progress.phase, Phase::Running)
        };
        let progress = match self.progress.wait_for(ready).await {
            Ok(progress) => progress.clone(),
            Err(_) => gone(),
        };
        match (progress.readable(at, range), progress.phase) {
            (_, Phase::Failed(why)) => Err(io::Error::other(why.to_string())),
            (None, Phase::Left) => Err(io::Error::other("the fetch was given up; try again")),
            (Some(found), Phase::Running | Phase::Committed | Phase::Left) => Ok(found),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the fetch ended early")),
        }
    }
}

fn gone() -> Progress {
    Progress { phase: Phase::Failed("the fetch was stopped".into()), ..Progress::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_stays_hidden() {
        assert_eq!(Progress::visible_of(10, 10), 0);
        assert_eq!(Progress::visible_of(HOLD_BACK, HOLD_BACK), 0);
        assert_eq!(Progress::visible_of(HOLD_BACK + 1, HOLD_BACK + 1), 1);
        assert_eq!(Progress::visible_of(5, 10 * HOLD_BACK), 5);
        assert_eq!(Progress::visible_of(10 * HOLD_BACK, 10 * HOLD_BACK), 9 * HOLD_BACK);
    }
}
