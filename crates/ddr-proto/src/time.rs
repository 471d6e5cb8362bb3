//! Time as the pure cores see it: a number that the driver hands in.
//!
//! The cores never read a clock. The driver gives a [`Timestamp`] with every input and must not let
//! it run backwards between two inputs of the same core; a core that sees an older one keeps the
//! newest it has seen.

/// Unix time in milliseconds, monotone for one core.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment plus `ms` milliseconds; stays at the end of time instead of wrapping.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is the later of the two.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
