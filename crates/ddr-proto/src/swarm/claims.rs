//! Which piece chain of a blob is believed, and who vouches for which.
//!
//! A chain is a claim until it is complete. Two signers are wanted; where their chains differ, one
//! piece decides, because it cannot pass under both. Must never call a claim wrong but by such a
//! piece: two peers that lie about a piece look like one wrong chain.

use super::io::ClaimId;
use super::limits::{MAX_CHAIN_ASKS, MAX_CLAIMS, MAX_SIGNERS};
use crate::id::NodeId;
use crate::time::Timestamp;

/// Signers that make a chain as good as it gets before it is complete.
pub(super) const SIGNERS: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) id: ClaimId,
    pub(super) signers: Vec<NodeId>,
}

/// A dispute between the chain in use and another.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Doubt {
    pub(super) piece: usize,
    pub(super) other: ClaimId,
}

/// What a chain that came changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// Nothing.
    Nothing,
    /// It is the first: use it.
    Use,
    /// It vouches for the chain in use.
    Agrees,
    /// It stands against the chain in use, and this piece, which is not here yet, decides.
    Disputed(Doubt),
    /// It is known to be wrong; these nodes signed it.
    Wrong(Vec<NodeId>),
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The one in use comes first, if [`Self::in_use`].
    list: Vec<Claim>,
    in_use: bool,
    wrong: Vec<ClaimId>,
    pub(super) doubt: Option<Doubt>,
    /// Nodes that were asked and have not answered, and when.
    pub(super) pending: Vec<(NodeId, Timestamp)>,
    /// Nodes that were asked since the chain in use was taken up, answered or not.
    pub(super) asked: Vec<NodeId>,
    /// Pieces that were wrong, if the chain in use is right, and who gave them.
    pub(super) suspects: Vec<(usize, NodeId)>,
    /// Who was struck because of a piece that passed under the chain in use.
    pub(super) struck: Vec<NodeId>,
    /// When the chain in use was taken up.
    pub(super) since: Timestamp,
    /// The chain that the driver was last told to use.
    pub(super) told: Option<ClaimId>,
    /// The driver has not yet told which pieces do not pass under the chain in use.
    pub(super) checking: bool,
    /// Clients may be given what passed under the chain in use.
    pub(super) settled: bool,
    /// The driver was told that enough signers vouch for the chain in use.
    pub(super) vouched: bool,
    /// More claims are wanted than usual: a piece fails from whoever gives it.
    pub(super) uneasy: bool,
}

impl Claims {
    pub(super) fn used(&self) -> Option<ClaimId> {
        self.list.first().filter(|_| self.in_use).map(|claim| claim.id)
    }

    /// Signers of the chain in use.
    pub(super) fn signers(&self) -> &[NodeId] {
        self.list.first().filter(|_| self.in_use).map_or(&[], |claim| &claim.signers)
    }

    /// A node is waited for no more.
    pub(super) fn answered(&mut self, node: &NodeId) {
        self.pending.retain(|(pending, _)| pending != node);
    }

    /// Whether a node is waited for.
    pub(super) fn awaits(&self, node: &NodeId) -> bool {
        self.pending.iter().any(|(pending, _)| pending == node)
    }

    /// Whether another node should be asked for its chain.
    pub(super) fn wants_more(&self) -> bool {
        // Each wrong piece may mean that the chain is wrong, and that those asked so far lied.
        let limit = MAX_CHAIN_ASKS + self.suspects.len();
        let open = self.doubt.is_none() && self.asked.len() < limit;
        let enough = self.in_use && !self.uneasy && self.signers().len() >= SIGNERS;
        open && !enough && self.pending.len() < SIGNERS
    }

    /// A chain came. `differs` is the deciding piece against the chain in use, and `here` tells
    /// whether a piece is here, proven under the chain in use.
    pub(super) fn heard(
        &mut self,
        signer: NodeId,
        id: ClaimId,
        differs: Option<usize>,
        here: impl Fn(usize) -> bool,
    ) -> News {
        if self.wrong.contains(&id) {
            return News::Wrong(vec![signer]);
        }
        let Some(used) = self.used() else {
            self.list.insert(0, Claim { id, signers: vec![signer] });
            self.list.truncate(MAX_CLAIMS);
            self.in_use = true;
            return News::Use;
        };
        if used == id {
            let signers = &mut self.list[0].signers;
            if !signers.contains(&signer) && signers.len() < MAX_SIGNERS {
                signers.push(signer);
            }
            return News::Agrees;
        }
        match differs {
            // The piece passed under the chain in use, so it does not pass under this one.
            Some(piece) if here(piece) => {
                self.convict(id);
                News::Wrong(vec![signer])
            }
            Some(piece) if self.doubt.is_none() => {
                let doubt = Doubt { piece, other: id };
                self.list.push(Claim { id, signers: vec![signer] });
                self.doubt = Some(doubt);
                News::Disputed(doubt)
            }
            // One dispute at a time: this node may be asked again.
            Some(_) => {
                self.asked.retain(|node| *node != signer);
                News::Nothing
            }
            None => News::Wrong(vec![signer]),
        }
    }

    /// Whether this node signed one of the chains that are believed or disputed.
    pub(super) fn is_signer(&self, node: &NodeId) -> bool {
        self.list.iter().any(|claim| claim.signers.contains(node))
    }

    /// A node stands for its chains no more. True when the chain in use or the dispute has changed.
    pub(super) fn disown(&mut self, node: &NodeId) -> bool {
        let before = (self.used(), self.doubt);
        self.list.iter_mut().for_each(|claim| claim.signers.retain(|signer| signer != node));
        self.list.retain(|claim| !claim.signers.is_empty());
        if self.list.len() < 2 {
            self.doubt = None;
        }
        self.in_use &= !self.list.is_empty();
        before != (self.used(), self.doubt)
    }

    /// The piece that decides passed under `winner`. Returns the signers of the other chain, and
    /// whether the chain in use has changed.
    pub(super) fn decide(&mut self, winner: ClaimId) -> (Vec<NodeId>, bool) {
        let Some(doubt) = self.doubt.take() else { return (Vec::new(), false) };
        let changed = winner == doubt.other;
        let loser = if changed { self.used() } else { Some(doubt.other) };
        let of_loser = |claim: &&Claim| Some(claim.id) == loser;
        let signers = self.list.iter().find(of_loser).map_or(Vec::new(), |c| c.signers.clone());
        if let Some(loser) = loser {
            self.convict(loser);
        }
        self.uneasy &= !changed;
        (signers, changed)
    }

    /// The piece that decides passes under neither chain, from whoever gives it: both are put aside,
    /// and the next claim is as good as they were.
    pub(super) fn put_aside(&mut self) {
        self.doubt = None;
        self.in_use = false;
        self.settled = false;
        self.list.clear();
        self.uneasy = false;
    }

    fn convict(&mut self, id: ClaimId) {
        self.list.retain(|claim| claim.id != id);
        if self.wrong.len() >= MAX_CLAIMS {
            self.wrong.remove(0);
        }
        self.wrong.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    const fn claim(n: u8) -> ClaimId {
        ClaimId([n; 32])
    }

    #[test]
    fn two_that_agree_are_enough() {
        let mut claims = Claims::default();
        assert!(claims.wants_more());
        assert_eq!(claims.heard(node(1), claim(1), None, |_| false), News::Use);
        assert!(claims.wants_more());
        assert_eq!(claims.heard(node(2), claim(1), None, |_| false), News::Agrees);
        assert!(!claims.wants_more());
        assert_eq!(claims.signers(), [node(1), node(2)]);
    }

    #[test]
    fn the_deciding_piece_convicts_one_of_two() {
        for winner in [claim(1), claim(2)] {
            let mut claims = Claims::default();
            claims.heard(node(1), claim(1), None, |_| false);
            let doubt = Doubt { piece: 5, other: claim(2) };
            let news = claims.heard(node(2), claim(2), Some(5), |_| false);
            assert_eq!(news, News::Disputed(doubt));
            let (liars, changed) = claims.decide(winner);
            assert_eq!((claims.used(), changed), (Some(winner), winner == claim(2)));
            assert_eq!(liars, [if changed { node(1) } else { node(2) }]);
            let loser = if changed { claim(1) } else { claim(2) };
            let again = claims.heard(node(3), loser, Some(5), |_| false);
            assert_eq!(again, News::Wrong(vec![node(3)]));
        }
    }

    #[test]
    fn a_deciding_piece_that_is_here_has_decided() {
        let mut claims = Claims::default();
        claims.heard(node(1), claim(1), None, |_| false);
        let news = claims.heard(node(2), claim(2), Some(5), |piece| piece == 5);
        assert_eq!((news, claims.used()), (News::Wrong(vec![node(2)]), Some(claim(1))));
    }
}
