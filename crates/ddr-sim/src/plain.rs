//! A plain model of lookups over disjoint paths, to set the simulation beside.

/// Part of the lookups that succeed when each of `paths` independent paths takes `hops` steps and
/// dies at the first adversarial node: 1 - (1 - (1 - f)^h)^d.
#[must_use]
pub fn success(adversarial: f64, paths: usize, hops: f64) -> f64 {
    let path = (1.0 - adversarial).powf(hops);
    1.0 - (1.0 - path).powi(paths as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_that_of_independent_paths() {
        assert!((success(0.2, 1, 2.0) - 0.64).abs() < 1e-9);
        assert!((success(0.2, 8, 2.0) - 0.9997).abs() < 1e-4);
        assert!((success(0.0, 1, 2.0) - 1.0).abs() < 1e-9);
    }
}
