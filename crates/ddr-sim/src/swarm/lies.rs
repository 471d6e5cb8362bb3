//! Chains, true and false, as far as a simulation without bytes needs them.
//!
//! Claim 0 is the true chain. A liar signs a chain of its own in which the state before one piece, its
//! *fork*, is wrong. Under that chain the true pieces on both sides of the state fail; the liar
//! has made up a piece before the fork that passes, nobody can make one behind it.

use ddr_proto::swarm::ClaimId;

/// What a liar does with requests.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Lie {
    /// Gives wrong bytes, and signs a chain of its own.
    Chain,
    /// Never answers.
    Silence,
    /// Has nothing of what it said it has.
    Nothing,
    /// Gives wrong bytes, and signs the true chain.
    Bytes,
}

/// The true chain, or that of a liar with its fork.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Chain {
    /// 0 for the true one, else one more than the number of the liar.
    author: u32,
    fork: u32,
}

impl Chain {
    pub(super) const TRUE: Self = Self { author: 0, fork: 0 };

    /// The chain of a liar.
    pub(super) const fn of_liar(node: usize, pieces: usize, chance: u64) -> Self {
        let forks = if pieces > 1 { pieces as u64 - 1 } else { 1 };
        Self { author: node as u32 + 1, fork: 1 + (chance % forks) as u32 }
    }

    pub(super) fn id(self) -> ClaimId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&self.author.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.fork.to_be_bytes());
        ClaimId(bytes)
    }

    pub(super) fn from_id(id: ClaimId) -> Self {
        let number =
            |at: usize| id.0[at..at + 4].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
        Self { author: number(0), fork: number(4) }
    }

    /// Who made it up.
    pub(super) fn liar(self) -> Option<usize> {
        self.author.checked_sub(1).map(|author| author as usize)
    }

    /// The last piece before which the states of two chains differ.
    pub(super) fn differs(self, other: Self) -> Option<u32> {
        match (self == other, self.author, other.author) {
            (true, ..) => None,
            (false, 0, _) => Some(other.fork),
            (false, _, 0) => Some(self.fork),
            (false, ..) => Some(self.fork.max(other.fork)),
        }
    }

    /// Whether a piece passes under this chain. `made_by` is the liar that made it up, if any.
    pub(super) fn passes(self, piece: u32, made_by: Option<usize>) -> bool {
        match (self.author, made_by) {
            (0, None) => true,
            (0, Some(_)) => false,
            (_, None) => piece != self.fork && piece + 1 != self.fork,
            (author, Some(liar)) => author == liar as u32 + 1 && piece + 1 == self.fork,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_decides() {
        let liar = Chain::of_liar(4, 100, 8);
        assert_eq!(Chain::from_id(liar.id()), liar);
        assert_eq!((liar.differs(Chain::TRUE), liar.differs(liar)), (Some(9), None));
        let passes = |chain: Chain, made_by| (0..100).filter(move |p| chain.passes(*p, made_by));
        assert_eq!(passes(Chain::TRUE, None).count(), 100);
        assert_eq!(passes(Chain::TRUE, Some(4)).count(), 0);
        assert_eq!(passes(liar, None).count(), 98);
        assert_eq!(passes(liar, Some(4)).collect::<Vec<_>>(), [8]);
        assert_eq!(passes(liar, Some(5)).count(), 0);
    }
}
