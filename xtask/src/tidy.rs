//! The rules of the project that neither compiler nor clippy checks.
//!
//! Each rule is a pure function from what it looks at to the problems it finds, so that a unit
//! test can show it going red.

mod docs;
mod edges;
mod lines;
mod paths;
mod purity;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::checks::Checks;
use crate::run;
use crate::workspace::Workspace;

/// One text file of the work tree.
#[derive(Debug)]
struct Source {
    /// Relative to the workspace root.
    path: String,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// Runs all rules and prints what each finds. True when nothing breaks one.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let sources = sources(workspace)?;
    let mut checks = Checks::default();
    let mut rule = |name: &str, problems: Vec<String>| {
        checks.check(&format!("tidy: {name}"), || {
            anyhow::ensure!(problems.is_empty(), "  {}", problems.join("\n  "));
            Ok(())
        });
    };
    rule("edges between crates", edges::problems(&edges::declared(workspace)));
    rule("pure crates link no runtime", edges::impure_links(workspace));
    rule("pure crates do not touch the world", purity::problems(&sources));
    rule("file sizes and names", lines::problems(&sources));
    rule("no machine paths", paths::problems(&sources));
    rule("documents", docs::problems(&sources, &docs::Known::of(workspace)));
    for warning in lines::warnings(&sources) {
        println!("warning {warning}");
    }
    Ok(checks.finish())
}

/// Every file that git would commit and that is text.
fn sources(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let listed = run::output(git.current_dir(&workspace.workspace_root))?;
    let mut sources = Vec::new();
    for path in listed.split('\0').filter(|p| !p.is_empty()) {
        let file = workspace.workspace_root.join(path);
        if !file.is_file() {
            continue; // deleted, but still in git's index
        }
        let bytes = fs::read(&file).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}
