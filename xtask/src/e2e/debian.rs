//! A Debian root file system as an image source: over 100 MB in at least four layers.
//!
//! Made by debootstrap from the mirror that this machine's own apt uses, once, and kept below the
//! target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;

/// The least that the layers hold together, unpacked. Bytes.
const MIN_BYTES: u64 = 100_000_000;

/// debootstrap downloads about 40 MB. Seconds.
const DEADLINE_S: &str = "900";

/// Layer and the arguments of tar that choose what is in it.
const LAYERS: &[(&str, &[&str])] = &[
    ("base.tar", &["--exclude=./usr", "--exclude=./var", "--exclude=./dev/*", "."]),
    ("usr-lib.tar", &["./usr/lib"]),
    ("usr.tar", &["--exclude=./usr/lib", "./usr"]),
    ("var.tar", &["./var"]),
];

/// The directory with a Dockerfile and its layers; makes it when it is not there.
pub(super) fn prepare(cache: &Path) -> Result<PathBuf> {
    let done = cache.join("debian");
    if done.is_dir() {
        return Ok(done);
    }
    let codename = codename(&fs::read_to_string("/etc/os-release")?)
        .context("/etc/os-release has no VERSION_CODENAME: the tests need Debian")?;
    let mirror = mirror(&codename)?;
    println!("making a Debian root file system ({codename}) with debootstrap");
    let work = cache.join("debian.new");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    debootstrap(&codename, &root, &mirror)?;
    let mut dockerfile = String::from("FROM scratch\n");
    let mut total = 0;
    for (name, what) in LAYERS {
        let tar = work.join(name);
        let mut command = Command::new("tar");
        command.args(["--create", "--numeric-owner", "--one-file-system", "--file"]).arg(&tar);
        run::output(command.arg("--directory").arg(&root).args(*what))?;
        total += fs::metadata(&tar)?.len();
        dockerfile.push_str(&format!("ADD {name} /\n"));
    }
    dockerfile.push_str("CMD [\"/bin/sh\"]\n");
    ensure!(total >= MIN_BYTES, "the root file system has only {total} bytes");
    fs::remove_dir_all(&root)?;
    fs::write(work.join("Dockerfile"), dockerfile)?;
    fs::rename(&work, &done)?;
    Ok(done)
}

fn debootstrap(codename: &str, root: &Path, mirror: &str) -> Result<()> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", DEADLINE_S, "/usr/sbin/debootstrap", "--variant=minbase"]);
    if let Some(proxy) = apt_proxy().filter(|_| std::env::var_os("http_proxy").is_none()) {
        command.env("http_proxy", proxy);
    }
    run::output(command.arg(codename).arg(root).arg(mirror))?;
    Ok(())
}

/// The proxy in apt's configuration, which debootstrap does not read.
fn apt_proxy() -> Option<String> {
    let mut command = Command::new("apt-config");
    let out = run::output(command.args(["shell", "PROXY", "Acquire::http::Proxy"])).ok()?;
    let proxy = out.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?.to_owned();
    (!proxy.is_empty()).then_some(proxy)
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned())
}

/// The first source in apt's own configuration that has this release.
fn mirror(codename: &str) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]);
    let targets = run::output(command.arg("Created-By: Packages"))?;
    mirror_in(&targets, codename)
        .with_context(|| format!("apt has no source for {codename} main:\n{targets}"))
}

fn mirror_in(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let uri = words.next()?;
        let usable = ["http://", "https://", "file:"].iter().any(|s| uri.starts_with(s));
        let fits = words.next()? == codename && words.next()? == "main";
        (usable && fits).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_that_has_the_release() {
        let targets = "http://other.example/x stable main\ncdrom://x bookworm main\n\
                       http://a.example/debian/ bookworm-updates main\n\
                       http://b.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(targets, "bookworm").unwrap(), "http://b.example/debian/");
        assert_eq!(mirror_in(targets, "trixie"), None);
    }

    #[test]
    fn the_codename_is_read() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
    }
}
