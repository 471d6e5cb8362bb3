//! The documents: short enough to be read, and every command in the README exists.

use std::collections::BTreeSet;

use super::Source;
use crate::workspace::Workspace;

/// Document and the lines it may have.
const LIMITS: &[(&str, usize)] = &[("README.md", 200), ("ARCHITECTURE.md", 300)];

/// The README's command for all tests, which the CI script must call.
const TEST_COMMAND: &str = "cargo xtask test";

/// The CI script.
const CI: &str = ".ci/run";

/// What a command in a document may name.
#[derive(Debug)]
pub(super) struct Known {
    tasks: BTreeSet<String>,
    packages: BTreeSet<String>,
    programs: BTreeSet<String>,
}

impl Known {
    /// The tasks of this program, the packages and the programs of the workspace.
    pub(super) fn of(workspace: &Workspace) -> Self {
        let targets = workspace.members().flat_map(|p| &p.targets);
        let programs = targets.filter(|t| t.kind.iter().any(|k| k == "bin"));
        Self {
            tasks: crate::task_names().into_iter().collect(),
            packages: workspace.members().map(|p| p.name.clone()).collect(),
            programs: programs.map(|t| t.name.clone()).collect(),
        }
    }
}

/// Documents that are missing or too long, and commands that name what does not exist.
pub(super) fn problems(sources: &[Source], known: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, limit) in LIMITS {
        match sources.iter().find(|s| s.path == *path) {
            None => problems.push(format!("{path} is missing")),
            Some(source) => {
                let lines = source.text.lines().count();
                if lines > *limit {
                    problems.push(format!("{path}: {lines} lines, at most {limit}"));
                }
                problems.extend(unknown_commands(source, known));
            }
        }
    }
    for path in ["README.md", CI] {
        if !sources.iter().any(|s| s.path == path && s.text.contains(TEST_COMMAND)) {
            problems.push(format!("{path} does not name `{TEST_COMMAND}`"));
        }
    }
    problems
}

fn unknown_commands(source: &Source, known: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for (at, _) in line.match_indices("cargo ") {
            if let Some(what) = unknown_in(&line[at..], known) {
                problems.push(format!("{}:{}: unknown {what}", source.path, number + 1));
            }
        }
    }
    problems
}

/// What a command that starts with `cargo ` names and nobody has.
fn unknown_in(command: &str, known: &Known) -> Option<String> {
    let end = command.find(['`', '#', '|', '&', ';']).unwrap_or(command.len());
    let mut words = command[..end].split_whitespace().skip(1).take_while(|w| *w != "--");
    match words.next()? {
        "xtask" => {
            let task = words.next()?;
            (!known.tasks.contains(task)).then(|| format!("task {task}"))
        }
        "run" => {
            let words: Vec<&str> = words.collect();
            words.windows(2).find_map(|pair| match pair {
                ["--bin", name] if !known.programs.contains(*name) => {
                    Some(format!("program {name}"))
                }
                ["-p" | "--package", name] if !known.packages.contains(*name) => {
                    Some(format!("package {name}"))
                }
                _ => None,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Known { tasks: set(&["test"]), packages: set(&["ddrd"]), programs: set(&["ddr"]) }
    }

    fn tree(readme: &str) -> Vec<Source> {
        vec![
            Source::new("README.md", readme),
            Source::new("ARCHITECTURE.md", ""),
            Source::new(CI, TEST_COMMAND),
        ]
    }

    #[test]
    fn known_commands_are_fine() {
        let readme = "`cargo xtask test`\ncargo run --release -p ddrd --bin ddr -- demo\n";
        assert_eq!(problems(&tree(readme), &known()), Vec::<String>::new());
    }

    #[test]
    fn unknown_commands_are_red() {
        for bad in ["cargo xtask tests", "cargo run --bin ddr2", "cargo run -p ddr-x --bin ddr"] {
            let readme = format!("cargo xtask test\n{bad}\n");
            assert_eq!(problems(&tree(&readme), &known()).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_long_a_missing_and_a_silent_document_are_red() {
        let long = format!("cargo xtask test\n{}", "x\n".repeat(LIMITS[0].1));
        assert_eq!(problems(&tree(&long), &known()).len(), 1);
        assert_eq!(problems(&tree("nothing"), &known()).len(), 1);
        assert_eq!(problems(&tree("cargo xtask test")[..1], &known()).len(), 2);
    }
}
