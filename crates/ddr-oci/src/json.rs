//! What JSON may look like beyond what the parser asks.
//!
//! The derived readers take a list for an object too, its members for the fields in the order of
//! our source, and skip what they do not know however deep it is nested. Nobody else reads a
//! document that way, and some who do fall over: here both are errors.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Levels of lists and objects within each other; the parser's own limit for what it reads.
pub(crate) const MAX_DEPTH: usize = 128;

/// Whether something in `bytes` is nested deeper than [`MAX_DEPTH`]. Of bytes that are no JSON it
/// says anything; never takes more than one look at each.
pub(crate) fn is_too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A `T` that was written as an object.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_is_counted_outside_of_text() {
        assert!(!is_too_deep(nested(MAX_DEPTH).as_bytes()));
        assert!(is_too_deep(nested(MAX_DEPTH + 1).as_bytes()));
        let text = format!(r#"{{"a\"{}": "\\", "b": {}}}"#, "[".repeat(500), nested(MAX_DEPTH - 1));
        assert!(!is_too_deep(text.as_bytes()));
        let text = format!(r#"{{"a\\": {}}}"#, nested(MAX_DEPTH));
        assert!(is_too_deep(text.as_bytes()));
        assert!(!is_too_deep("[]".repeat(1000).as_bytes()), "one after the other");
    }
}
