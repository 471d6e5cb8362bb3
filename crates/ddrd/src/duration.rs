//! Spans of time as people write them: `90s`, `30m`, `24h`, `7d`.

use std::time::Duration;

/// The shortest life of a join token.
pub const MIN_TTL: Duration = Duration::from_secs(60);
/// The longest life of a join token; the node makes none that lives longer.
pub const MAX_TTL: Duration = ddr_node::tokens::MAX_TTL;

/// Parses the life of a join token: a whole number with a unit of `s`, `m`, `h` or `d`, between
/// [`MIN_TTL`] and [`MAX_TTL`].
///
/// # Errors
///
/// A line that says what would be right.
pub fn ttl(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    if (MIN_TTL..=MAX_TTL).contains(&span) {
        return Ok(span);
    }
    Err(format!("{text} is outside 1m to 90d"))
}

/// Parses a span: a whole number with a unit of `s`, `m`, `h` or `d`.
///
/// # Errors
///
/// A line that says what would be right.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 30m, 24h or 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(count.saturating_mul(seconds)))
}

/// Checks that a text is a span and keeps it as it is.
///
/// # Errors
///
/// See [`span`].
pub fn span_text(text: &str) -> Result<String, String> {
    span(text).map(|_| text.to_owned())
}

/// A span in at most two units, such as `3d 4h` or `12s`.
#[must_use]
pub fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_with_a_unit_are_read() {
        assert_eq!(ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(ttl("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(ttl("90d"), Ok(MAX_TTL));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "h", "24", "-1h", "+1h", "1.5h", "24 h", "24H", "é", "59s", "91d"] {
            assert!(ttl(text).is_err(), "{text}");
        }
        assert!(ttl("99999999999999999999d").is_err());
        assert!(ttl("18446744073709551615d").is_err());
    }

    #[test]
    fn spans_are_shown_in_two_units() {
        let show = |s| short(Duration::from_secs(s));
        assert_eq!((show(0), show(61)), ("0s".into(), "1m 1s".into()));
        assert_eq!((show(3720), show(90_000)), ("1h 2m".into(), "1d 1h".into()));
    }
}
