//! What of the swarm may be chosen, with its defaults.

use super::limits;

/// Settings of one swarm core.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SwarmConfig {
    /// Neighbours that a fetch looks for.
    pub degree: usize,
    /// Most neighbours of one blob.
    pub max_neighbours: usize,
    /// Requests of one group under way on a short path.
    pub window: usize,
    /// Requests under way to one neighbour on a short path.
    pub per_neighbour: usize,
    /// Pieces past the first gap among which the rarest is taken.
    pub look_ahead: usize,
    /// Pieces that are served at the same time.
    pub uploads: usize,
    /// New pieces are told when there are so many of them.
    pub have_batch: usize,
    /// Or after this time.
    pub have_delay_ms: u64,
}

impl Default for SwarmConfig {
    fn default() -> Self {
        Self {
            degree: limits::DEGREE,
            max_neighbours: limits::MAX_NEIGHBOURS,
            window: limits::WINDOW,
            per_neighbour: limits::PER_NEIGHBOUR,
            look_ahead: limits::LOOK_AHEAD,
            uploads: limits::MAX_UPLOADS,
            have_batch: limits::HAVE_BATCH,
            have_delay_ms: limits::HAVE_DELAY_MS,
        }
    }
}
