//! How far away peers are: the shortest answer lately.
//!
//! The head of an answer comes at once or not at all, so the time to it is the round trip and what else
//! kept it; the shortest of the last ones is the best guess. Used to size windows, never to blame.

use std::collections::BTreeMap;

use ddr_proto::id::NodeId;

/// Peers that are remembered; beyond, all go.
const MAX_PATHS: usize = 1024;

/// See the module comment.
#[derive(Default)]
pub(super) struct Paths(BTreeMap<NodeId, u32>);

impl Paths {
    /// An answer of `node` began after so many microseconds (0: unknown); the round trip to it, in
    /// microseconds. A path that became longer is believed after a few answers.
    pub(super) fn heard(&mut self, node: NodeId, head_us: u32) -> u32 {
        let known = self.0.get(&node).copied();
        if head_us == 0 {
            return known.unwrap_or(0);
        }
        if self.0.len() >= MAX_PATHS {
            self.0.clear();
        }
        let rtt_us =
            known.map_or(head_us, |known| head_us.min(known.saturating_add(known / 8 + 1)));
        self.0.insert(node, rtt_us);
        rtt_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_answer_counts_until_all_are_longer() {
        let (mut paths, node) = (Paths::default(), NodeId([1; 32]));
        assert_eq!(paths.heard(node, 0), 0);
        assert_eq!(paths.heard(node, 800), 800);
        assert_eq!(paths.heard(node, 20_000), 901);
        assert_eq!(paths.heard(node, 400), 400);
        assert_eq!(paths.heard(node, 0), 400);
        let last = (0..100).map(|_| paths.heard(node, 20_000)).last();
        assert_eq!(last, Some(20_000));
    }
}
