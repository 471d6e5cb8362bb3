//! Client programs written in Go, at pinned versions, built from their modules.
//!
//! Each is built once into `<target>/tools/go/<name>-<version>` and found there afterwards. Modules
//! come from wherever the user's Go settings say, and stay in the user's Go caches. A machine
//! without Go, or with one that is too old to compile these modules, gets the pinned toolchain: it
//! is a module as well, and any Go since 1.16 can download it, also Debian's. This module never
//! puts a program where the user would find it by accident, and never changes an installed Go.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{install_or_explain, is_root};
use crate::run;

/// The oldest Go that compiles all of [`GoTool::ALL`]: the highest `go` line of their modules.
const NEEDED: GoVersion = GoVersion(1, 26, 7);

/// Fetched when the machine's Go is older. Its checksum is verified by the Go that fetches it.
const TOOLCHAIN: &str = "1.26.8";

/// Where a Go from its makers' archive is, which is often not in root's PATH.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";

/// The Debian package that can fetch the toolchain.
const DEBIAN_PACKAGE: &str = "golang-go";

/// Downloading and compiling the largest tool takes three minutes on two cores. Seconds.
const BUILD_DEADLINE_S: &str = "1800";

/// Packages compiled at the same time; each can take several hundred MB.
const PARALLEL: &str = "2";

/// A tool needs hundreds of modules, so that one failed download is likely now and then. What has
/// been downloaded and compiled stays for the next attempt.
const ATTEMPTS: u32 = 3;

/// One program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoTool {
    /// The last part of the package's path, which is how Go names the program.
    pub(crate) name: &'static str,
    /// Path of the main package.
    package: &'static str,
    /// Version of its module.
    version: &'static str,
}

impl GoTool {
    pub(crate) const CONFORMANCE: Self = Self {
        name: "conformance",
        package: "github.com/opencontainers/distribution-spec/conformance",
        version: "v0.0.0-20260831232431-97274622c111",
    };
    pub(crate) const CRANE: Self = Self {
        name: "crane",
        package: "github.com/google/go-containerregistry/cmd/crane",
        version: "v0.22.1",
    };
    pub(crate) const REGCTL: Self = Self {
        name: "regctl",
        package: "github.com/regclient/regclient/cmd/regctl",
        version: "v0.11.7",
    };
    pub(crate) const ORAS: Self =
        Self { name: "oras", package: "oras.land/oras/cmd/oras", version: "v1.3.6" };
    pub(crate) const HELM: Self =
        Self { name: "helm", package: "helm.sh/helm/v4/cmd/helm", version: "v4.3.1" };
    pub(crate) const COSIGN: Self = Self {
        name: "cosign",
        package: "github.com/sigstore/cosign/v3/cmd/cosign",
        version: "v3.1.3",
    };

    /// All of them, quick ones first.
    pub(crate) const ALL: &'static [Self] =
        &[Self::CONFORMANCE, Self::CRANE, Self::REGCTL, Self::ORAS, Self::COSIGN, Self::HELM];

    /// The program file below the target directory.
    pub(crate) fn program(self, target: &Path) -> PathBuf {
        directory(target).join(format!("{}-{}", self.name, self.version))
    }
}

/// Builds those that are missing; says what it does and how long it took.
pub(crate) fn ensure(target: &Path, wanted: &[GoTool]) -> Result<()> {
    let missing: Vec<GoTool> =
        wanted.iter().copied().filter(|tool| !tool.program(target).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let go = Go::find()?;
    println!("building {} Go programs with {}", missing.len(), go.program.display());
    for tool in missing {
        build(&go, tool, target).with_context(|| format!("cannot build {}", tool.name))?;
    }
    Ok(())
}

fn directory(target: &Path) -> PathBuf {
    target.join("tools").join("go")
}

/// Builds beside the final place, so that a program with the final name is a whole one.
fn build(go: &Go, tool: GoTool, target: &Path) -> Result<()> {
    let start = Instant::now();
    let work = directory(target).join(format!("{}.{}", tool.name, std::process::id()));
    fs::create_dir_all(&work)?;
    let mut install = go.command();
    install.args(["install", "-p", PARALLEL, "-trimpath", "-ldflags=-s -w"]);
    install.arg(format!("{}@{}", tool.package, tool.version)).env("GOBIN", &work);
    let built = attempts(&mut install);
    let placed = built.and_then(|()| {
        fs::rename(work.join(tool.name), tool.program(target)).context("Go built no such program")
    });
    fs::remove_dir_all(&work)?;
    placed?;
    println!("built {} {} in {:.0} s", tool.name, tool.version, start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a command that may need the network until it succeeds, at most [`ATTEMPTS`] times.
fn attempts(command: &mut Command) -> Result<()> {
    for attempt in 1.. {
        match run::output(command) {
            Ok(_) => break,
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(error) => println!("attempt {attempt} of {ATTEMPTS}: {error:#}"),
        }
    }
    Ok(())
}

/// A Go that is new enough.
#[derive(Debug)]
struct Go {
    program: PathBuf,
}

impl Go {
    /// The machine's own, or the pinned toolchain.
    fn find() -> Result<Self> {
        let mut found = candidates();
        if found.is_empty() {
            let why = format!("the OCI clients of the tests are built with Go {NEEDED}");
            install_or_explain(&[DEBIAN_PACKAGE], is_root()?).context(why)?;
            found = candidates();
        }
        let Some((program, version)) = found.into_iter().max_by_key(|(_, version)| *version) else {
            bail!("{DEBIAN_PACKAGE} is installed, but there is no go in PATH");
        };
        if version >= NEEDED {
            return Ok(Self { program });
        }
        println!("{} is Go {version}, {NEEDED} is needed", program.display());
        Self { program }.fetch_toolchain()
    }

    /// Nothing but what the arguments say: no flags from outside, no other toolchain, no C.
    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", BUILD_DEADLINE_S]).arg(&self.program);
        command.envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", ""), ("CGO_ENABLED", "0")]);
        command.env_remove("GOROOT").env_remove("GOOS").env_remove("GOARCH");
        command.current_dir("/"); // no go.mod of a parent directory
        command
    }

    /// The pinned toolchain out of the module cache, made usable.
    fn fetch_toolchain(&self) -> Result<Self> {
        let start = Instant::now();
        let module = format!("golang.org/toolchain@v0.0.1-go{TOOLCHAIN}.linux-{}", architecture()?);
        let mut download = self.command();
        download.args(["mod", "download", "-modcacherw", "-json", &module]);
        let json = run::output(&mut download).with_context(|| format!("cannot fetch {module}"))?;
        let root = serde_json::from_str::<Downloaded>(&json)
            .with_context(|| format!("unexpected answer of go mod download: {json}"))?
            .dir;
        make_usable(&root).with_context(|| format!("cannot prepare {}", root.display()))?;
        let go = Self { program: root.join("bin/go") };
        let version = version_of(&go.program);
        ensure!(version.is_some_and(|v| v >= NEEDED), "the Go toolchain does not run: {version:?}");
        println!("fetched {module} in {:.0} s", start.elapsed().as_secs_f64());
        Ok(go)
    }
}

/// What `go mod download -json` prints.
#[derive(Debug, Deserialize)]
struct Downloaded {
    #[serde(rename = "Dir")]
    dir: PathBuf,
}

/// A module holds no execute bits, and its nested `go.mod` files are called `_go.mod`. A Go since
/// 1.21 puts both right when it selects a toolchain by itself; an older one does not know how.
fn make_usable(root: &Path) -> Result<()> {
    let mut waiting = vec![root.join("bin"), root.join("pkg/tool")];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    for modules in ["src", "src/cmd"] {
        let hidden = root.join(modules).join("_go.mod");
        let real = root.join(modules).join("go.mod");
        if hidden.exists() && !real.exists() {
            fs::copy(hidden, real)?;
        }
    }
    Ok(())
}

/// Go's name of this machine's architecture.
fn architecture() -> Result<&'static str> {
    let names = BTreeMap::from([("x86_64", "amd64"), ("aarch64", "arm64")]);
    let this = std::env::consts::ARCH;
    names.get(this).copied().with_context(|| format!("no Go toolchain is known for {this}"))
}

/// Every go that can be found, with its version.
fn candidates() -> Vec<(PathBuf, GoVersion)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::env::split_paths(&path).map(|d| d.join("go")).collect();
    files.push(PathBuf::from(USUAL_PLACE));
    let versioned = |file: PathBuf| version_of(&file).map(|version| (file, version));
    files.into_iter().filter(|file| file.is_file()).filter_map(versioned).collect()
}

fn version_of(go: &Path) -> Option<GoVersion> {
    let command = Go { program: go.to_path_buf() }.command().arg("version").output().ok()?;
    GoVersion::parse(&String::from_utf8_lossy(&command.stdout))
}

/// Major, minor and patch number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct GoVersion(u32, u32, u32);

impl GoVersion {
    /// Reads `go version go1.26.8 linux/amd64`; `None` for what is no release.
    fn parse(line: &str) -> Option<Self> {
        let word = line.split_whitespace().nth(2)?.strip_prefix("go")?;
        let mut numbers = word.split('.').map(str::parse::<u32>);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().map_or(Some(0), Result::ok)?;
        Some(Self(major, minor, patch))
    }
}

impl std::fmt::Display for GoVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let parse = |word: &str| GoVersion::parse(&format!("go version {word} linux/amd64"));
        assert!(parse("go1.26.8").unwrap() > NEEDED);
        assert!(parse("go1.26.7").unwrap() >= NEEDED);
        assert!(parse("go1.27").unwrap() > NEEDED);
        assert!(parse("go1.26.6").unwrap() < NEEDED);
        assert!(parse("go1.19.8").unwrap() < NEEDED);
        assert_eq!(parse("go1.27rc1"), None);
        assert_eq!(GoVersion::parse(""), None);
        assert_eq!(NEEDED.to_string(), "1.26.7");
    }

    #[test]
    fn the_fetched_toolchain_is_new_enough() {
        let line = format!("go version go{TOOLCHAIN} linux/amd64");
        assert!(GoVersion::parse(&line).unwrap() >= NEEDED);
    }

    #[test]
    fn a_toolchain_from_a_module_is_made_usable() {
        let root = std::env::temp_dir().join(format!("ddr-go-{}", std::process::id()));
        for directory in ["bin", "pkg/tool/linux_amd64", "src/cmd"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let compile = root.join("pkg/tool/linux_amd64/compile");
        for file in [root.join("bin/go"), compile.clone()] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        }
        fs::write(root.join("src/_go.mod"), "module std").unwrap();
        make_usable(&root).unwrap();
        make_usable(&root).unwrap();
        let mode = fs::metadata(&compile).unwrap().permissions().mode();
        let renamed = fs::read_to_string(root.join("src/go.mod")).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(mode & 0o111, 0o111);
        assert_eq!(renamed, "module std");
    }

    #[test]
    fn a_command_gets_three_attempts() {
        let log = std::env::temp_dir().join(format!("ddr-attempts-{}", std::process::id()));
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo x >> \"$0\"; exit 1"]).arg(&log);
        attempts(&mut fails).unwrap_err();
        let tried = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        assert_eq!(tried.lines().count(), 3);
        attempts(&mut Command::new("true")).unwrap();
    }

    #[test]
    fn names_are_the_ends_of_packages() {
        for tool in GoTool::ALL {
            assert!(tool.package.ends_with(&format!("/{}", tool.name)), "{tool:?}");
        }
    }
}
