//! How answers look: JSON, tables, sizes. A reader that closes the pipe early is no error.

use std::io::{self, Write};

use serde_json::Value;

/// Writes `text` to standard output.
pub(crate) fn text(text: &str) {
    // `ddr images | head` closes the pipe; there is nobody left to tell.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Writes `value` as JSON, indented.
pub(crate) fn json(value: &Value) {
    text(&format!("{value:#}\n"));
}

/// Left-aligned columns with two spaces between them. The last column is not padded.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = line(&widths, &head.map(str::to_owned));
    for row in rows {
        out.push_str(&line(&widths, row));
    }
    out
}

fn line<const N: usize>(widths: &[usize; N], cells: &[String; N]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// Names and values below each other; used where there is one thing to show.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    facts.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// A number of bytes in binary units with three digits or so.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// The first 12 characters of an id or of a digest's hexadecimal part, enough to tell them apart.
pub(crate) fn short(id: &str) -> String {
    id.rsplit_once(':').map_or(id, |(_, hex)| hex).chars().take(12).collect()
}

/// A moment in UTC to the second, as RFC 3339 writes it.
pub(crate) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    // Eras of 400 years that begin on the 1st of March (H. Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms", civil_from_days).
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `text`, or a dash where there is none.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(4_102_444_800_000), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a".into(), "bb".into()], ["cccc".into(), "d".into()]];
        assert_eq!(table(["X", "Y"], &rows), "X     Y\na     bb\ncccc  d\n");
        assert_eq!(table(["X", "Y"], &[]), "X  Y\n");
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1023, 1024, 1536, 1024 * 1024 - 1, 5 << 30, u64::MAX].map(size);
        let right = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "16.0 EiB"];
        assert_eq!(shown, right);
    }

    #[test]
    fn ids_are_cut() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("0123"), "0123");
        assert_eq!(or_dash(""), "-");
    }
}
