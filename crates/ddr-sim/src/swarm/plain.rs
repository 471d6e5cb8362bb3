//! What theory says of the same swarm.

/// Least time in F/b for `nodes` nodes and `pieces` pieces (Mundinger, Weber and Weiss, J. Scheduling
/// 2008): M + floor(log2 N) rounds of one piece each.
#[must_use]
pub fn block_bound(nodes: usize, pieces: usize) -> f64 {
    1.0 + f64::from(nodes.max(1).ilog2()) / pieces.max(1) as f64
}

/// Time in F/b when every node takes the whole from one of the holders that are complete at the start:
/// all start at once, so nobody else becomes one in time.
#[must_use]
pub fn whole_layers(nodes: usize, sources: usize) -> f64 {
    (nodes as f64 / sources.max(1) as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_paper_and_of_the_model() {
        assert!((block_bound(1_000, 1_024) - 1.0088).abs() < 1e-4);
        assert!((block_bound(1, 1_024) - 1.0).abs() < 1e-9);
        assert!((whole_layers(100, 1) - 100.0).abs() < 1e-9);
        assert!((whole_layers(1, 3) - 1.0).abs() < 1e-9);
    }
}
