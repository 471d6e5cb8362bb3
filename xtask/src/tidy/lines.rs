//! How long a file of code may be, and what it may be called.

use super::Source;

/// Production lines of one file: above, it is shown.
const WARN: usize = 500;

/// Production lines of one file: above, the rule is broken.
const FAIL: usize = 800;

/// Files that are too long, and every `mod.rs`.
pub(super) fn problems(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|s| s.path.ends_with(".rs")) {
        if source.path.ends_with("/mod.rs") {
            problems.push(format!("{}: use foo.rs beside foo/, never mod.rs", source.path));
        }
        let lines = production(source).count();
        if lines > FAIL {
            problems.push(format!("{}: {lines} production lines, at most {FAIL}", source.path));
        }
    }
    problems
}

/// Files that are longer than one would like.
pub(super) fn warnings(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|s| s.path.ends_with(".rs"));
    rust.filter_map(|s| {
        let lines = production(s).count();
        (lines > WARN && lines <= FAIL)
            .then(|| format!("{}: {lines} production lines, aim for {WARN} or fewer", s.path))
    })
    .collect()
}

/// The numbered lines of a file that end up in a program: no test modules, no test files.
///
/// Relies on rustfmt: a module that starts in column 0 ends with a brace in column 0.
pub(super) fn production(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let mut in_tests = is_test_file(&source.path);
    let whole_file = in_tests;
    let mut announced = false;
    source.text.lines().enumerate().filter_map(move |(index, line)| {
        if whole_file {
            return None;
        }
        if line == "#[cfg(test)]" {
            announced = true;
            return None;
        }
        if announced && !in_tests {
            if line.starts_with("#[") || line.starts_with("//") {
                return None; // more about the item that follows
            }
            announced = false;
            in_tests = line.ends_with('{');
            return None;
        }
        if in_tests {
            in_tests = !line.starts_with('}');
            return None;
        }
        Some((index + 1, line))
    })
}

fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let folders = ["tests", "benches", "examples", "fuzz"];
    path.split('/').any(|part| folders.contains(&part))
        || name == "tests.rs"
        || name.starts_with("tests_")
        || name.ends_with("_tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(lines: usize) -> Source {
        Source::new("crates/a/src/b.rs", &"let x = 1;\n".repeat(lines))
    }

    #[test]
    fn a_long_file_warns_then_fails() {
        assert!(warnings(&[long(WARN)]).is_empty() && problems(&[long(WARN)]).is_empty());
        assert_eq!(warnings(&[long(WARN + 1)]).len(), 1);
        assert!(problems(&[long(FAIL)]).is_empty());
        assert_eq!(problems(&[long(FAIL + 1)]).len(), 1);
    }

    #[test]
    fn mod_rs_is_red() {
        assert_eq!(problems(&[Source::new("crates/a/src/b/mod.rs", "")]).len(), 1);
    }

    #[test]
    fn tests_are_not_production() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod more;\nfn d() {}\n#[cfg(test)]\nuse x;\nfn e() {}\n";
        let source = Source::new("crates/a/src/b.rs", text);
        let lines: Vec<&str> = production(&source).map(|(_, l)| l).collect();
        assert_eq!(lines, ["fn a() {}", "fn c() {}", "fn d() {}", "fn e() {}"]);
        let test = Source::new("crates/a/tests/it/main.rs", text);
        assert_eq!(production(&test).count(), 0);
    }
}
