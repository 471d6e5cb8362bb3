//! What the pure crates must never contain. The compiler guards their dependencies; this guards
//! what the standard library would let them do.

use super::Source;
use super::edges::PURE;
use super::lines::production;

/// Words that a pure crate does not say, and what it would do with them.
const BANNED: &[(&str, &str)] = &[
    ("tokio", "runtime"),
    ("TcpStream", "socket"),
    ("TcpListener", "socket"),
    ("UdpSocket", "socket"),
    ("ToSocketAddrs", "name resolution"),
    ("std::fs", "file"),
    ("std::process", "process"),
    ("std::env", "environment"),
    ("std::thread", "thread"),
    ("thread_local", "thread"),
    ("SystemTime", "clock"),
    ("Instant", "clock"),
    ("HashMap", "iteration order"),
    ("HashSet", "iteration order"),
    ("RandomState", "randomness"),
    ("getrandom", "randomness"),
    ("OsRng", "randomness"),
    ("SysRng", "randomness"),
    ("thread_rng", "randomness"),
];

/// Lines of production code in pure crates that say a banned word.
pub(super) fn problems(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|s| is_pure(&s.path)) {
        for (number, line) in production(source) {
            for (word, what) in BANNED.iter().filter(|(word, _)| says(line, word)) {
                problems.push(format!("{}:{number}: {word} ({what})", source.path));
            }
        }
    }
    problems
}

fn is_pure(path: &str) -> bool {
    let inside = |name: &str| path.starts_with(&format!("crates/{name}/src/"));
    path.ends_with(".rs") && PURE.iter().any(|name| inside(name))
}

/// True when the line's code, not its comment, has the whole word.
fn says(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_name) && !code[at + word.len()..].starts_with(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_a_pure_crate_is_red() {
        let text = "use std::time::Instant;\nuse std::net::SocketAddr;\n";
        let found = problems(&[Source::new("crates/ddr-proto/src/kad.rs", text)]);
        assert_eq!(found, ["crates/ddr-proto/src/kad.rs:1: Instant (clock)"]);
        assert!(problems(&[Source::new("crates/ddr-node/src/a.rs", text)]).is_empty());
    }

    #[test]
    fn comments_tests_and_parts_of_words_are_free() {
        let text = "// a HashMap would be wrong\nfn instantiate() {}\nlet InstantX = 1;\n\
                    #[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert!(problems(&[Source::new("crates/ddr-oci/src/a.rs", text)]).is_empty());
    }

    #[test]
    fn every_banned_word_is_found() {
        for (word, _) in BANNED {
            let text = format!("let x = {word}::y();\n");
            assert_eq!(problems(&[Source::new("crates/ddr-oci/src/a.rs", &text)]).len(), 1);
        }
    }
}
