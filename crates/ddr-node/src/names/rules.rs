//! What this node's operator wants of tags.
//!
//! These are rules of the node that a client talks to: whoever wants them to hold in the whole swarm
//! gives them to every node.

use ddr_oci::{Mirrored, RepositoryName, Tag, TagPattern};

/// What a read by tag does when no majority of the nodes that keep the tag answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TagReads {
    /// It fails: what is answered is never older than the last finished write.
    #[default]
    Strict,
    /// It answers the last record that is known here, which may be outdated, and says so.
    StaleOk,
}

/// See the module comment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TagRules {
    /// What reads do without a majority. Writes are always strict.
    pub reads: TagReads,
    /// Tags that are neither moved nor deleted once they are there; at most
    /// [`ddr_oci::MAX_PATTERNS`].
    pub immutable: Vec<TagPattern>,
}

impl TagRules {
    /// What belongs to another registry moves as it moves there.
    pub(crate) fn is_immutable(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        !Mirrored::is_reserved(repository)
            && self.immutable.iter().any(|pattern| pattern.matches(repository, tag))
    }
}
