//! The pause after "429 Too Many Requests".
//!
//! Decides how long a registry is left alone. A pause is never shortened and never longer than
//! [`MAX_PAUSE`]: a registry, or a peer that was told, cannot silence this node for good.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Longest pause, whatever was asked for.
pub const MAX_PAUSE: Duration = Duration::from_hours(1);
/// Pause where the registry gives no time.
const DEFAULT_PAUSE: Duration = Duration::from_mins(1);
/// Shortest pause.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// How long `Retry-After` asks to wait: seconds or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(header: Option<&str>, now: SystemTime) -> Duration {
    let asked = header.map(str::trim).and_then(|text| seconds(text).or_else(|| date(text, now)));
    asked.unwrap_or(DEFAULT_PAUSE).clamp(MIN_PAUSE, MAX_PAUSE)
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().map_or(MAX_PAUSE, Duration::from_secs))
}

fn date(text: &str, now: SystemTime) -> Option<Duration> {
    let then = httpdate::parse_http_date(text).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

/// Until when a registry is left alone.
#[derive(Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// What is left of it.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Makes it at least `time` from now.
    pub(crate) fn extend(&self, now: Instant, time: Duration) {
        let asked = now + time.min(MAX_PAUSE);
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = Some(until.map_or(asked, |until| until.max(asked)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of the RFC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let secs = Duration::from_secs;
        for (header, expected) in [
            (None, DEFAULT_PAUSE),
            (Some(""), DEFAULT_PAUSE),
            (Some("soon"), DEFAULT_PAUSE),
            (Some("-5"), DEFAULT_PAUSE),
            (Some("1.5"), DEFAULT_PAUSE),
            (Some("0"), MIN_PAUSE),
            (Some(" 17 "), secs(17)),
            (Some("3601"), MAX_PAUSE),
            (Some("99999999999999999999999"), MAX_PAUSE),
            (Some("Sun, 06 Nov 1994 08:50:07 GMT"), secs(30)),
            (Some("Sun, 06 Nov 1994 08:49:07 GMT"), MIN_PAUSE),
            (Some("Mon, 07 Nov 1994 08:49:37 GMT"), MAX_PAUSE),
        ] {
            assert_eq!(retry_after(header, now), expected, "{header:?}");
        }
    }

    #[test]
    fn a_pause_only_grows_and_ends() {
        let (pause, now) = (Pause::default(), Instant::now());
        let secs = Duration::from_secs;
        assert_eq!(pause.left(now), None);
        pause.extend(now, secs(10));
        pause.extend(now, secs(5));
        assert_eq!(pause.left(now + secs(4)), Some(secs(6)));
        assert_eq!(pause.left(now + secs(10)), None);
        pause.extend(now, secs(100_000));
        assert_eq!(pause.left(now), Some(MAX_PAUSE));
    }
}
