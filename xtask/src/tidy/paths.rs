//! No file may name a folder of the machine that it was written on.

use super::Source;

/// Beginnings of such folders. Cut in two, because this file is looked at as well.
const BANNED: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Lines with a banned beginning of a path.
pub(super) fn problems(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            for path in BANNED.iter().filter(|path| names(line, path)) {
                problems.push(format!("{}:{}: {path}", source.path, number + 1));
            }
        }
    }
    problems
}

/// True when the path stands at the beginning of a word: a URL may contain the same letters.
fn names(line: &str, path: &str) -> bool {
    let inside_word = |c: char| c.is_ascii_alphanumeric() || "._-*{}$)".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inside_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_is_red() {
        for path in BANNED {
            let text = format!("fine\nlet p = \"{path}x\";\n");
            assert_eq!(problems(&[Source::new("a.rs", &text)]), [format!("a.rs:2: {path}")]);
        }
    }

    #[test]
    fn other_paths_are_free() {
        let url = format!("https://example.org{}x", BANNED[0]);
        assert!(problems(&[Source::new("a.md", &url)]).is_empty());
        assert!(problems(&[Source::new("a.md", "/var/lib/ddr and /tmp/x")]).is_empty());
    }
}
