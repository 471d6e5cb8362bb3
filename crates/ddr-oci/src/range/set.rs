//! The set of ranges in one header: its grammar, and what remains of it within a size.

use std::ops::Range;

use super::{MAX_RANGE_HEADER_BYTES, MAX_RANGES, RangeOutcome, all_digits};

/// Most elements of the list, empty ones included (RFC 9110, section 5.6.1.2, lets a sender
/// write some).
const MAX_ELEMENTS: usize = 2 * MAX_RANGES;

/// One range as it was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Spec {
    /// `first-` or `first-last`.
    From { first: u64, last: Option<u64> },
    /// `-length`: so many bytes from the end.
    Suffix(u64),
}

/// `bytes = 1#( first "-" [last] / "-" length )`; `None` if the header is anything else, or has
/// too many of them.
pub(super) fn parse(header: &str) -> Option<Vec<Spec>> {
    if header.len() > MAX_RANGE_HEADER_BYTES {
        return None;
    }
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for (at, element) in set.split(',').enumerate() {
        let element = element.trim_matches([' ', '\t']);
        if at >= MAX_ELEMENTS || specs.len() > MAX_RANGES {
            return None;
        }
        if !element.is_empty() {
            specs.push(spec(element)?);
        }
    }
    (1..=MAX_RANGES).contains(&specs.len()).then_some(specs)
}

fn spec(element: &str) -> Option<Spec> {
    let (first, last) = element.split_once('-')?;
    if first.is_empty() {
        return saturating(last).map(Spec::Suffix);
    }
    let last = if last.is_empty() { None } else { Some(saturating(last)?) };
    Some(Spec::From { first: saturating(first)?, last })
}

/// A decimal number, cut at the largest 64-bit value.
fn saturating(digits: &str) -> Option<u64> {
    all_digits(digits).then(|| digits.parse().unwrap_or(u64::MAX))
}

/// What is sent of `size` bytes when `specs` are asked for.
pub(super) fn answer(specs: &[Spec], size: u64) -> RangeOutcome {
    let mut wanted = Vec::with_capacity(specs.len());
    for spec in specs {
        match *spec {
            // An empty blob has no part to send; RFC 9110 calls the suffix satisfiable.
            Spec::Suffix(length) if length > 0 && size == 0 => return RangeOutcome::Whole,
            Spec::Suffix(length) => wanted.push(size.saturating_sub(length)..size),
            Spec::From { first, last: Some(last) } if last < first => {
                return RangeOutcome::Unsatisfiable;
            }
            Spec::From { first, last } => {
                wanted.push(first..last.map_or(size, |last| last.saturating_add(1).min(size)));
            }
        }
    }
    wanted.retain(|range| range.start < range.end);
    let mut parts = joined(&wanted);
    match parts.len() {
        0 => RangeOutcome::Unsatisfiable,
        1 => {
            let part = parts.remove(0);
            RangeOutcome::Part { start: part.start, end: part.end }
        }
        _ => RangeOutcome::Parts(parts),
    }
}

/// `wanted` with those that have a byte in common joined, each at the place of its first.
fn joined(wanted: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut by_start: Vec<(usize, Range<u64>)> = wanted.iter().cloned().enumerate().collect();
    by_start.sort_unstable_by_key(|(_, range)| (range.start, range.end));
    let mut groups: Vec<(usize, Range<u64>)> = Vec::with_capacity(by_start.len());
    for (place, range) in by_start {
        match groups.last_mut() {
            Some((first, joined)) if range.start < joined.end => {
                *first = place.min(*first);
                joined.end = joined.end.max(range.end);
            }
            _ => groups.push((place, range)),
        }
    }
    groups.sort_unstable_by_key(|(place, _)| *place);
    groups.into_iter().map(|(_, range)| range).collect()
}
