//! Namespaces of containerd: every question names one.
//!
//! Decides which texts are one, so that nothing else comes into a header.

/// Most namespaces that are asked; the rest, in containerd's order, is left out, with a warning.
pub const MAX_NAMESPACES: usize = 64;

/// Longest name in bytes, as containerd has it.
const MAX_NAMESPACE_BYTES: usize = 76;

/// Letters and digits, with single `.`, `_` and `-` between them, as containerd has it.
pub(crate) fn is_namespace(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    text.len() <= MAX_NAMESPACE_BYTES && text.split(['.', '_', '-']).all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_containerd_reads_them() {
        for good in ["default", "k8s.io", "moby", "a-b_c.D9", &"a".repeat(MAX_NAMESPACE_BYTES)] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "a..b", "-a", "a-", "a b", "a/b", "a\n", "ä", &"a".repeat(77)] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }
}
