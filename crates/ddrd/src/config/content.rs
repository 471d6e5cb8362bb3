//! Settings of what is stored: which tags stay, how many copies there are, and what makes room.

use ddr_node::{CacheSettings, CopySettings, MAX_COPIES, UpkeepSettings};
use ddr_oci::{MAX_PATTERNS, RepositoryPattern, TagPattern};

use super::{ConfigError, MIN_COPIES_GRACE, MIN_GC_GRACE, Settings, limit};
use crate::{amount, duration};

/// Tags that are neither moved nor deleted.
pub(super) fn tag_patterns(texts: Vec<String>) -> Result<Vec<TagPattern>, ConfigError> {
    let wrong = |given, reason| ConfigError::TagPattern { given, reason };
    if texts.len() > MAX_PATTERNS {
        return Err(wrong(format!("{} patterns", texts.len()), "too many".into()));
    }
    let pattern = |text: String| match text.parse::<TagPattern>() {
        Ok(pattern) => Ok(pattern),
        Err(error) => Err(wrong(text, error.to_string())),
    };
    texts.into_iter().map(pattern).collect()
}

/// Collection of garbage and verification in the background.
pub(super) fn upkeep(settings: &Settings) -> Result<UpkeepSettings, ConfigError> {
    let wrong = |setting| move |reason| ConfigError::Value { setting, reason };
    let span = |setting, text: Option<&str>, default| {
        text.map_or(Ok(default), |text| duration::span(text).map_err(wrong(setting)))
    };
    let default = UpkeepSettings::default();
    let gc_grace = span("gc-grace", settings.gc_grace.as_deref(), default.gc_grace)?;
    if gc_grace < MIN_GC_GRACE {
        let reason = "the background keeps content for at least 20m after its last use".into();
        return Err(wrong("gc-grace")(reason));
    }
    let rate = settings.scrub_rate.as_deref().map(amount::rate_or_zero).transpose();
    Ok(UpkeepSettings {
        gc_interval: span("gc-interval", settings.gc_interval.as_deref(), default.gc_interval)?,
        gc_grace,
        scrub_rate: rate.map_err(wrong("scrub-rate"))?,
        cache: cache(settings)?,
    })
}

/// When pulled content makes room.
fn cache(settings: &Settings) -> Result<CacheSettings, ConfigError> {
    let wrong = |setting, reason| ConfigError::Value { setting, reason };
    let default = CacheSettings::default();
    let high = settings.cache_high.unwrap_or(default.high);
    let low = settings.cache_low.unwrap_or(default.low.min(high.saturating_sub(1)));
    if !(1..=100).contains(&high) {
        return Err(wrong("cache-high", format!("{high} is not from 1 to 100 percent")));
    }
    if low >= high {
        return Err(wrong("cache-low", format!("{low} is not less than cache-high, {high}")));
    }
    let size = settings.cache_size.as_deref().map(amount::size_or_zero).transpose();
    let size = size.map_err(|reason| wrong("cache-size", reason))?.filter(|size| *size > 0);
    Ok(CacheSettings { high, low, size, ..default })
}

/// How many copies of pushed content there shall be, and how they are made again.
pub(super) fn copies(settings: &Settings) -> Result<CopySettings, ConfigError> {
    let wrong = |setting, reason| ConfigError::Value { setting, reason };
    let default = CopySettings::default();
    let copies = settings.copies.map_or(default.copies, usize::from);
    if !(1..=MAX_COPIES).contains(&copies) {
        return Err(wrong("copies", format!("{copies} is not from 1 to {MAX_COPIES}")));
    }
    let grace = settings.copies_grace.as_deref().map(duration::span).transpose();
    let grace = grace.map_err(|reason| wrong("copies-grace", reason))?.unwrap_or(default.grace);
    if grace < MIN_COPIES_GRACE {
        let reason = "a node may be silent for a second at least".into();
        return Err(wrong("copies-grace", reason));
    }
    let rate = limit("copies-rate", settings.copies_rate.as_deref())?;
    let copies_for = copies_for(settings.copies_for.as_deref().unwrap_or_default())?;
    let durability = settings.durability.unwrap_or_default();
    Ok(CopySettings { copies, copies_for, durability, grace, rate })
}

fn copies_for(texts: &[String]) -> Result<Vec<(RepositoryPattern, usize)>, ConfigError> {
    let wrong = |reason| ConfigError::Value { setting: "copies-for", reason };
    if texts.len() > MAX_PATTERNS {
        return Err(wrong(format!("{} patterns are more than {MAX_PATTERNS}", texts.len())));
    }
    let one = |text: &String| {
        let (pattern, copies) = text
            .rsplit_once('=')
            .ok_or_else(|| wrong(format!("{text:?} has no number: write ci/**=1")))?;
        let pattern = pattern.parse().map_err(|error| wrong(format!("{text:?}: {error}")))?;
        let copies = copies.parse().ok().filter(|copies| (1..=MAX_COPIES).contains(copies));
        let copies =
            copies.ok_or_else(|| wrong(format!("{text:?}: give 1 to {MAX_COPIES} copies")))?;
        Ok((pattern, copies))
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_for_repositories_are_read() {
        let given = |texts: &[&str]| {
            let copies_for = Some(texts.iter().map(ToString::to_string).collect());
            copies(&Settings { copies_for, ..Settings::default() }).map(|read| read.copies_for)
        };
        let read = given(&["ci/**=1", "prod/*=5"]).expect("right");
        let read: Vec<(String, usize)> =
            read.into_iter().map(|(pattern, copies)| (pattern.to_string(), copies)).collect();
        assert_eq!(read, [("ci/**".into(), 1), ("prod/*".into(), 5)]);
        for (wrong, says) in [
            ("ci/**", "has no number"),
            ("ci/**=0", "1 to 7"),
            ("ci/**=8", "1 to 7"),
            ("Ci=1", "the pattern of a repository"),
            ("=1", "the pattern of a repository"),
        ] {
            let error = given(&[wrong]).expect_err(wrong).to_string();
            assert!(error.starts_with("copies-for") && error.contains(says), "{error}");
        }
        assert!(given(&["a=1"; MAX_PATTERNS + 1]).is_err());
    }
}
