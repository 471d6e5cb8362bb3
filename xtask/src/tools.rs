//! The programs that the tasks need, and where they come from on Debian 12.
//!
//! A missing one is installed when this runs as root, and what is installed is printed. Otherwise
//! the task ends with the command to type. Nothing is skipped because a program is missing.

mod go;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::workspace::{Workspace, cargo};

pub(crate) use go::{GoTool, ensure as ensure_go_tools};

/// Version of cargo-deny that reads `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

/// Asked by `apt-get install` before it starts the services of a package.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// A program by its absolute path, so that another one of that name earlier in PATH is not taken.
pub(crate) const DOCKER: &str = "/usr/bin/docker";
pub(crate) const DOCKERD: &str = "/usr/sbin/dockerd";
pub(crate) const CONTAINERD: &str = "/usr/bin/containerd";
pub(crate) const CTR: &str = "/usr/bin/ctr";
pub(crate) const PODMAN: &str = "/usr/bin/podman";
pub(crate) const BUILDAH: &str = "/usr/bin/buildah";
pub(crate) const SKOPEO: &str = "/usr/bin/skopeo";
pub(crate) const BUSYBOX: &str = "/bin/busybox";
pub(crate) const REGISTRY: &str = "/usr/bin/docker-registry";
pub(crate) const IP: &str = "/usr/sbin/ip";
pub(crate) const TC: &str = "/usr/sbin/tc";

pub(crate) const NGINX: &str = "/usr/sbin/nginx";
pub(crate) const WRK: &str = "/usr/bin/wrk";
pub(crate) const UML: &str = "/usr/bin/linux.uml";

const SETPRIV: (&str, &str) = ("/usr/bin/setpriv", "util-linux");

/// Program and the Debian package that has it: what `bench registry` needs.
const SERVERS: &[(&str, &str)] = &[
    (NGINX, "nginx-light"),
    (REGISTRY, "docker-registry"),
    (WRK, "wrk"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/unshare", "util-linux"),
    SETPRIV,
];

/// Program and the Debian package that has it: what `bench swarm` needs.
const LINKS: &[(&str, &str)] = &[
    (IP, "iproute2"),
    (TC, "iproute2"),
    (REGISTRY, "docker-registry"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/unshare", "util-linux"),
    SETPRIV,
];

/// Program and the Debian package that has it.
const PACKAGES: &[(&str, &str)] = &[
    (DOCKER, "docker.io"),
    (DOCKERD, "docker.io"),
    (CONTAINERD, "containerd"),
    (CTR, "containerd"),
    ("/usr/sbin/runc", "runc"),
    (PODMAN, "podman"),
    (BUILDAH, "buildah"),
    (SKOPEO, "skopeo"),
    (BUSYBOX, "busybox-static"),
    (REGISTRY, "docker-registry"),
    ("/usr/sbin/debootstrap", "debootstrap"),
    ("/usr/bin/curl", "curl"),
    (IP, "iproute2"),
    (TC, "iproute2"),
    ("/usr/bin/unshare", "util-linux"),
    SETPRIV,
    ("/usr/bin/mount", "mount"),
];

/// Installs the Debian packages that the clients come from.
pub(crate) fn ensure_clients() -> Result<()> {
    let mut missing = missing(PACKAGES);
    if !busybox_is_static() && !missing.contains(&"busybox-static") {
        missing.push("busybox-static");
    }
    ensure(missing)
}

/// Installs the Debian packages of the servers that are measured beside DDR.
pub(crate) fn ensure_servers() -> Result<()> {
    ensure(missing(SERVERS))
}

/// Installs what makes machines on shaped links, and the server that is measured there.
pub(crate) fn ensure_links() -> Result<()> {
    ensure(missing(LINKS))
}

/// Installs what makes machines on a network, and what moves their clocks.
pub(crate) fn ensure_machines(with_clocks: bool) -> Result<()> {
    let mut packages = missing(&[
        (IP, "iproute2"),
        ("/usr/bin/curl", "curl"),
        ("/usr/bin/unshare", "util-linux"),
        ("/usr/bin/mount", "mount"),
        SETPRIV,
    ]);
    if with_clocks {
        packages.extend(missing(&[("/usr/bin/faketime", "faketime")]));
    }
    ensure(packages)
}

/// Installs the kernel that runs as a program, and what it starts.
pub(crate) fn ensure_guest() -> Result<()> {
    let halt = ("/usr/sbin/halt", "systemd-sysv");
    ensure(missing(&[(UML, "user-mode-linux"), halt, (IP, "iproute2"), SETPRIV]))
}

/// The packages of the programs that are not there.
fn missing(packages: &[(&str, &'static str)]) -> Vec<&'static str> {
    packages.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, p)| *p).collect()
}

fn ensure(mut missing: Vec<&str>) -> Result<()> {
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    install_or_explain(&missing, is_root()?)
}

/// Installs Debian packages as root; otherwise says what root has to type.
fn install_or_explain(missing: &[&str], root: bool) -> Result<()> {
    let list = missing.join(" ");
    if !root {
        bail!("missing packages; as root: apt-get install --no-install-recommends {list}");
    }
    println!("installing Debian packages: {list}");
    install(missing).with_context(|| format!("cannot install {list}"))
}

/// An image from `scratch` can only hold a program that needs no library, and the other busybox
/// package has the same path.
fn busybox_is_static() -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", "busybox-static"]);
    run::output(&mut query).is_ok_and(|status| status.trim() == "installed")
}

fn install(packages: &[&str]) -> Result<()> {
    let quiet = !Path::new(POLICY).exists();
    if quiet {
        // The packages bring services. The tests start their own, so the system's stay off.
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        run::visible(Command::new("chmod").args(["755", POLICY]))?;
    }
    let result = apt(&["update", "-q"])
        .and_then(|()| apt(&[&["install", "-qy", "--no-install-recommends"], packages].concat()));
    if quiet {
        std::fs::remove_file(POLICY)?;
    }
    result
}

fn apt(args: &[&str]) -> Result<()> {
    run::visible(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args))
}

/// Installs cargo-deny when it is missing or of another version.
pub(crate) fn ensure_cargo_deny(workspace: &Workspace) -> Result<()> {
    let found = run::output(cargo().args(["deny", "--version"])).unwrap_or_default();
    if found.trim() == format!("cargo-deny {CARGO_DENY}") {
        return Ok(());
    }
    println!("installing cargo-deny {CARGO_DENY}");
    run::visible(
        cargo()
            .args(["install", "--locked", "--debug", "--force", "cargo-deny"])
            .args(["--version", CARGO_DENY])
            .env("CARGO_TARGET_DIR", workspace.target_directory.join("tools")),
    )
}

/// Ends with a clear error when this process may not do what the clients need.
pub(crate) fn require_root() -> Result<()> {
    if is_root()? {
        return Ok(());
    }
    bail!(
        "this needs root: it starts dockerd and containerd, mounts file systems and runs \
         containers. Run it as root (all of it stays inside namespaces and the target directory)"
    )
}

fn is_root() -> Result<bool> {
    Ok(run::output(Command::new("id").arg("-u"))?.trim() == "0")
}
