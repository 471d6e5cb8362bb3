//! What must be true after a crash, from what was asked and what was answered.
//!
//! Everything that can be read is a register: a blob in a repository, a manifest in a repository, a
//! tag. An answered change leaves one possible value. A change without an answer leaves two, and the
//! first read after the crash decides between them for good. Each register is changed by one worker
//! only, so its changes have an order, and the model allows exactly what a crash allows: no value
//! that was overwritten, none that was never written.

use std::collections::BTreeMap;

/// Something that can be read by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Blob { repository: String, digest: String },
    Manifest { repository: String, digest: String },
    Tag { repository: String, tag: String },
}

/// What a register holds: a digest, or nothing.
pub(crate) type Value = Option<String>;

/// Registers and what each may hold.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Never empty; the first is what an answer or a read has confirmed last.
    registers: BTreeMap<Key, Vec<Value>>,
}

impl Key {
    pub(crate) fn repository(&self) -> &str {
        match self {
            Self::Blob { repository, .. }
            | Self::Manifest { repository, .. }
            | Self::Tag { repository, .. } => repository,
        }
    }

    /// Where it is read.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Blob { repository, digest } => format!("/v2/{repository}/blobs/{digest}"),
            Self::Manifest { repository, digest } => format!("/v2/{repository}/manifests/{digest}"),
            Self::Tag { repository, tag } => format!("/v2/{repository}/manifests/{tag}"),
        }
    }
}

impl Model {
    /// A change is about to be asked for: from now on `after` is possible as well.
    pub(crate) fn begin(&mut self, key: &Key, after: &Value) {
        let possible = self.registers.entry(key.clone()).or_insert_with(|| vec![None]);
        if !possible.contains(after) {
            possible.push(after.clone());
        }
    }

    /// A change was acknowledged: nothing else is possible.
    pub(crate) fn acknowledge(&mut self, key: &Key, value: &Value) {
        self.registers.insert(key.clone(), vec![value.clone()]);
    }

    /// A read gave `seen`. Wrong when that is not possible; else it is now the only possibility.
    pub(crate) fn observe(&mut self, key: &Key, seen: &Value) -> Result<(), String> {
        let none = vec![None];
        let possible = self.registers.get(key).unwrap_or(&none);
        if possible.contains(seen) {
            self.registers.insert(key.clone(), vec![seen.clone()]);
            return Ok(());
        }
        let texts: Vec<&str> = possible.iter().map(shown).collect();
        Err(format!("{}: reads {}, possible is {}", key.target(), shown(seen), texts.join(" or ")))
    }

    /// The value when there is no doubt about it. What was never touched holds nothing.
    pub(crate) fn certain(&self, key: &Key) -> Option<Value> {
        match self.registers.get(key).map(Vec::as_slice) {
            None => Some(None),
            Some([value]) => Some(value.clone()),
            Some(_) => None,
        }
    }

    /// True when `digest` may be what the register holds.
    pub(crate) fn may_hold(&self, key: &Key, digest: &str) -> bool {
        let possible = self.registers.get(key);
        possible.is_some_and(|p| p.iter().any(|v| v.as_deref() == Some(digest)))
    }

    /// Everything that was ever touched.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.registers.keys()
    }

    /// Registers that hold something for certain.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.registers.iter().filter_map(|(key, possible)| match possible.as_slice() {
            [Some(digest)] => Some((key, digest.as_str())),
            _ => None,
        })
    }
}

fn shown(value: &Value) -> &str {
    value.as_deref().unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> Key {
        Key::Tag { repository: "r".to_owned(), tag: "t".to_owned() }
    }

    fn some(text: &str) -> Value {
        Some(text.to_owned())
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let mut model = Model::default();
        model.begin(&tag(), &some("a"));
        model.acknowledge(&tag(), &some("a"));
        assert!(model.observe(&tag(), &None).is_err());
        assert!(model.observe(&tag(), &some("b")).is_err());
        assert!(model.observe(&tag(), &some("a")).is_ok());
    }

    #[test]
    fn what_was_not_answered_may_be_either_until_it_is_read() {
        for seen in [some("a"), some("b")] {
            let mut model = Model::default();
            model.acknowledge(&tag(), &some("a"));
            model.begin(&tag(), &some("b"));
            assert_eq!(model.certain(&tag()), None);
            assert!(model.observe(&tag(), &None).is_err());
            assert!(model.observe(&tag(), &seen).is_ok());
            let other = if seen == some("a") { some("b") } else { some("a") };
            assert!(model.observe(&tag(), &other).is_err(), "the first read decides");
        }
    }

    #[test]
    fn an_acknowledged_delete_stays() {
        let mut model = Model::default();
        model.acknowledge(&tag(), &some("a"));
        model.begin(&tag(), &None);
        model.acknowledge(&tag(), &None);
        assert!(model.observe(&tag(), &some("a")).is_err());
        assert!(model.observe(&tag(), &None).is_ok());
    }

    #[test]
    fn what_was_never_written_is_not_there() {
        let mut model = Model::default();
        assert!(model.observe(&tag(), &some("a")).is_err());
        assert!(model.observe(&tag(), &None).is_ok());
    }
}
