//! How long honest nodes stay.
//!
//! A node that leaves crashes without a word; half of them then refuse connections, half are
//! silent. A new node with a new identity joins in its place at the same moment.

use crate::dice::Dice;
use crate::latency::Micros;

/// Coming and going of honest nodes.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum Churn {
    /// Nobody leaves.
    #[default]
    None,
    /// Sessions after Pareto with exponent 1.5 and at least 10 minutes: 30 minutes in the mean,
    /// most of them short and a few very long.
    Heavy,
    /// Exponential sessions: half of the nodes leave within an hour.
    Hourly,
}

const SECOND: f64 = 1e6;
const SHORTEST_S: f64 = 600.0;
const EXPONENT: f64 = 1.5;
const HOUR_S: f64 = 3_600.0;

impl Churn {
    /// How long a node that joins now will stay; `None` means for ever.
    pub fn session(self, dice: &mut Dice) -> Option<Micros> {
        let left = 1.0 - dice.unit();
        let seconds = match self {
            Self::None => return None,
            Self::Heavy => SHORTEST_S * left.powf(-1.0 / EXPONENT),
            Self::Hourly => half_life(left),
        };
        Some((seconds * SECOND) as Micros)
    }

    /// How long a node that one meets at a random moment will still stay.
    pub fn rest_of_session(self, dice: &mut Dice) -> Option<Micros> {
        let left = 1.0 - dice.unit();
        let seconds = match self {
            Self::None => return None,
            // The residual life of a renewal process: P(rest > r) is the integral of P(session > x)
            // over x > r, over the mean session.
            Self::Heavy if left > 1.0 / EXPONENT => {
                SHORTEST_S * (1.0 - left) * EXPONENT / (EXPONENT - 1.0)
            }
            Self::Heavy => SHORTEST_S * (left * EXPONENT).powf(-1.0 / (EXPONENT - 1.0)),
            // The exponential distribution has no memory.
            Self::Hourly => half_life(left),
        };
        Some((seconds * SECOND) as Micros)
    }
}

fn half_life(left: f64) -> f64 {
    -left.log2() * HOUR_S
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_over(hours: f64, mut draw: impl FnMut() -> Option<Micros>) -> f64 {
        let limit = (hours * HOUR_S * SECOND) as Micros;
        let over = (0..20_000).filter(|_| draw().is_some_and(|time| time > limit)).count();
        over as f64 / 20_000.0
    }

    #[test]
    fn half_leave_within_the_hour() {
        let mut dice = Dice::new(1, 0);
        let part = part_over(1.0, || Churn::Hourly.session(&mut dice));
        assert!((0.48..0.52).contains(&part), "{part}");
    }

    #[test]
    fn heavy_sessions_have_their_tail() {
        let mut dice = Dice::new(1, 0);
        let part = part_over(1.0, || Churn::Heavy.session(&mut dice));
        let wanted = (1.0_f64 / 6.0).powf(EXPONENT);
        assert!((part - wanted).abs() < 0.01, "{part} {wanted}");
        let rest = part_over(1.0, || Churn::Heavy.rest_of_session(&mut dice));
        let wanted = (1.0_f64 / 6.0).powf(EXPONENT - 1.0) / EXPONENT;
        assert!((rest - wanted).abs() < 0.01, "{rest} {wanted}");
    }
}
