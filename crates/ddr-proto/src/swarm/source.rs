//! What a source gives away when the choice is left to it: every piece of its share once before any
//! twice, in index order (super-seeding, BEP 16, in an order that lets clients read early).

use super::bits::Bits;

/// The state of a source of one blob.
#[derive(Debug)]
pub(super) struct Source {
    /// Pieces that were handed out, or that others were seen to have.
    given: Bits,
    /// Of `sources` sources this one has the pieces with this remainder.
    rank: usize,
    sources: usize,
}

impl Source {
    /// A source of `pieces` pieces that is number `rank` of `sources`.
    pub(super) fn new(pieces: usize, rank: usize, sources: usize) -> Self {
        Self { given: Bits::new(pieces), rank, sources: sources.max(1) }
    }

    /// Another number of sources became known.
    pub(super) const fn share(&mut self, rank: usize, sources: usize) {
        (self.rank, self.sources) = (rank, if sources == 0 { 1 } else { sources });
    }

    /// The next piece for who has `theirs`, of those that `others` have not.
    pub(super) fn choose(&self, theirs: Option<&Bits>, others: &[u8]) -> Option<usize> {
        self.open(others).find(|piece| theirs.is_none_or(|theirs| !theirs.has(*piece)))
    }

    /// A piece was handed out.
    pub(super) fn gave(&mut self, piece: usize) {
        self.given.insert(piece);
    }

    /// A piece that was handed out did not get there.
    pub(super) fn failed(&mut self, piece: usize) {
        self.given.remove(piece);
    }

    /// Whether pieces of its share are left that nobody else is known to have.
    pub(super) fn has_more(&self, others: &[u8]) -> bool {
        self.open(others).next().is_some()
    }

    fn open(&self, others: &[u8]) -> impl Iterator<Item = usize> {
        let all = self.rank..self.given.len();
        all.step_by(self.sources).filter(|piece| !self.given.has(*piece) && others[*piece] == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_goes_out_once_in_order() {
        let mut source = Source::new(10, 0, 1);
        let mut out = Vec::new();
        while let Some(piece) = source.choose(None, &[0; 10]) {
            source.gave(piece);
            out.push(piece);
        }
        assert_eq!(out, (0..10).collect::<Vec<_>>());
        assert!(!source.has_more(&[0; 10]));
        source.failed(4);
        assert_eq!(source.choose(None, &[0; 10]), Some(4));
    }

    #[test]
    fn sources_share_the_pieces() {
        let mut out = Vec::new();
        for rank in 0..3 {
            let mut source = Source::new(10, rank, 3);
            while let Some(piece) = source.choose(None, &[0; 10]) {
                source.gave(piece);
                out.push(piece);
            }
        }
        out.sort_unstable();
        assert_eq!(out, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_asking_node_or_others_have_is_not_given() {
        let mut theirs = Bits::new(4);
        theirs.insert(0);
        let source = Source::new(4, 0, 1);
        assert_eq!(source.choose(Some(&theirs), &[0, 1, 0, 0]), Some(2));
        assert_eq!(source.choose(Some(&Bits::full(4)), &[0; 4]), None);
        assert!(source.has_more(&[0; 4]));
    }
}
