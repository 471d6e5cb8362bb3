//! Amounts of bytes, and of bytes a second, as people write them: `50MiB`, `800k`, `1000000`.

/// The largest rate, bytes a second: more is no limit at all.
pub const MAX_RATE: u64 = 1 << 40;

/// Parses bytes a second: a whole number, with `k`, `M` or `G` for powers of 1000, or `KiB`,
/// `MiB` or `GiB` for powers of 1024; `/s` may follow. Between 1 and [`MAX_RATE`].
///
/// # Errors
///
/// A line that says what would be right.
pub fn rate(text: &str) -> Result<u64, String> {
    match rate_or_zero(text)? {
        0 => Err(format!("{text:?} is no rate to read at: use 1 or more bytes a second")),
        rate => Ok(rate),
    }
}

/// The same where 0 means none.
///
/// # Errors
///
/// See [`rate`].
pub fn rate_or_zero(text: &str) -> Result<u64, String> {
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let wrong = || format!("{text:?} is not bytes a second such as 50MiB, 800k or 1000000");
    Ok(amount(bare).ok_or_else(wrong)?.min(MAX_RATE))
}

/// Parses bytes in the same way; 0 means none. Powers up to `T` and `TiB`.
///
/// # Errors
///
/// A line that says what would be right.
pub fn size_or_zero(text: &str) -> Result<u64, String> {
    amount(text).ok_or_else(|| format!("{text:?} is not bytes such as 200GiB, 2T or 1000000"))
}

fn amount(bare: &str) -> Option<u64> {
    let end = bare.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = bare.split_at(end);
    let unit = match unit {
        "" | "B" => 1,
        "k" | "kB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "T" | "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    Some(count.saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_with_and_without_a_unit_are_read() {
        assert_eq!(rate("1000000"), Ok(1_000_000));
        assert_eq!(rate("50MiB"), Ok(50 << 20));
        assert_eq!(rate("50MiB/s"), Ok(50 << 20));
        assert_eq!(rate("800k"), Ok(800_000));
        assert_eq!(rate("99999999G"), Ok(MAX_RATE));
        assert_eq!(rate_or_zero("0"), Ok(0));
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size_or_zero("200GiB"), Ok(200 << 30));
        assert_eq!(size_or_zero("3T"), Ok(3_000_000_000_000));
        assert_eq!(size_or_zero("0"), Ok(0));
        assert!(size_or_zero("1GiB/s").is_err() && size_or_zero("").is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "0", "-1", "+1", "1.5M", "M", "10 MiB", "10mib", "é", "1KiBs"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
