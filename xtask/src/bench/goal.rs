//! What a figure has to reach, as a row of a Markdown table.

use std::fmt;

/// Something to reach.
#[derive(Debug)]
pub(super) struct Goal {
    what: String,
    value: f64,
    bound: Bound,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(super) fn at_least(what: impl Into<String>, value: f64, wanted: f64) -> Self {
        Self { what: what.into(), value, bound: Bound::AtLeast(wanted) }
    }

    pub(super) fn at_most(what: impl Into<String>, value: f64, wanted: f64) -> Self {
        Self { what: what.into(), value, bound: Bound::AtMost(wanted) }
    }

    /// False for a figure that is not a number, too.
    pub(super) fn reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(wanted) => self.value >= wanted,
            Bound::AtMost(wanted) => self.value <= wanted,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.reached() { "reached" } else { "MISSED" };
        let (Bound::AtLeast(wanted) | Bound::AtMost(wanted)) = self.bound;
        let shown = |v: f64| if v >= 100.0 { format!("{v:.0}") } else { format!("{v:.2}") };
        write!(f, "| {} | {} | {} | {word} |", self.what, shown(self.value), shown(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_has_a_direction() {
        assert!(Goal::at_least("rate", 2.0, 2.0).reached());
        assert!(!Goal::at_least("rate", 1.9, 2.0).reached());
        assert!(Goal::at_most("time", 1.25, 1.25).reached());
        assert!(!Goal::at_most("time", 1.26, 1.25).reached());
        assert!(!Goal::at_most("time", f64::NAN, 1.25).reached());
        let shown = Goal::at_most("time", 1.26, 1.25).to_string();
        assert_eq!(shown, "| time | 1.26 | 1.25 | MISSED |");
    }
}
