//! Counting: samples, quantiles, confidence.

/// Integer samples of which mean and quantiles are wanted.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: u64) {
        self.0.push(sample);
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mean; 0 without samples.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<u64>() as f64 / self.0.len().max(1) as f64
    }

    /// The least sample that at least `part` of all samples do not exceed; 0 without samples.
    pub fn quantile(&mut self, part: f64) -> u64 {
        self.0.sort_unstable();
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// The 95 % confidence interval of a proportion (Wilson 1927), for independent trials.
#[must_use]
pub fn wilson95(hits: usize, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.959_964;
    let (n, p) = (trials as f64, hits as f64 / trials as f64);
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        (1..=100).for_each(|n| samples.add(n));
        assert_eq!((samples.quantile(0.5), samples.quantile(0.99)), (50, 99));
        assert!((samples.mean() - 50.5).abs() < 1e-9);
    }

    #[test]
    fn the_interval_holds_the_proportion() {
        let (low, high) = wilson95(990, 1_000);
        assert!(low > 0.981 && low < 0.99 && high > 0.99 && high < 0.995, "{low} {high}");
        assert!(wilson95(1_000, 1_000).0 > 0.996);
    }
}
