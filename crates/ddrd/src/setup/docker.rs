//! Docker Engine: `registry-mirrors` in daemon.json, and certs.d for the containerd image store.
//!
//! Two stores, two ways. The old one asks mirrors for docker.io only, by bare names. The containerd store
//! of docker 28 and later reads `hosts.toml` for every registry; once it found a mirror there it heeds neither
//! `registry-mirrors` nor `insecure-registries` for that registry (moby, daemon/hosts.go, mergeLegacyConfig).

use serde_json::Value;

use super::seen::{HOSTS_TOML, Seen};
use super::{Plan, SetupError, Wanted, daemon_json, hosts};

pub(super) const DAEMON_JSON: &str = "/etc/docker/daemon.json";
pub(super) const CERTS_D: &str = "/etc/docker/certs.d";
/// Where the command line of dockerd is written on the usual systems.
pub(super) const FLAG_FILES: [&str; 5] = [
    "/etc/default/docker",
    "/etc/sysconfig/docker",
    "/etc/systemd/system/docker.service",
    "/lib/systemd/system/docker.service",
    "/usr/lib/systemd/system/docker.service",
];
/// Additions to the systemd unit.
pub(super) const DROP_INS: &str = "/etc/systemd/system/docker.service.d";
/// The first that reads `hosts.toml`.
const FIRST_WITH_HOSTS: u32 = 28;
const FLAG: &str = "--registry-mirror";

const BARE: &str = "\
The store of docker before 28, and of later ones where it is not the containerd store, asks the mirror for images of \
docker.io only, by bare names. ddrd answers those when its configuration (ddrd --config FILE) says
  mirror-bare = \"docker.io\"
and it was started again. Read in docs/mirror.md what that means before.";

pub(super) fn plan(seen: &Seen, wanted: &Wanted) -> Result<Plan, SetupError> {
    refuse_flags(seen)?;
    let mut plan = Plan::default();
    let old = seen.text(DAEMON_JSON).unwrap_or_default();
    let (new, settings) = daemon_json::with_mirror(old, &wanted.url())
        .map_err(|(line, reason)| SetupError::broken(DAEMON_JSON, line, reason))?;
    plan.files.insert(DAEMON_JSON.to_owned(), new);
    plan.notes.push(BARE.to_owned());
    if wanted.docker.is_none_or(|version| version >= FIRST_WITH_HOSTS) {
        plan.hosts_dir = Some(CERTS_D.to_owned());
        certs(&mut plan, seen, wanted, &settings)?;
    }
    Ok(plan)
}

/// `hosts.toml` for all registries. With insecure registries only for those that are mirrored, because the others
/// would be secure then, and fail.
fn certs(
    plan: &mut Plan,
    seen: &Seen,
    wanted: &Wanted,
    settings: &Value,
) -> Result<(), SetupError> {
    let listed = |name: &str| settings[name].as_array().is_some_and(|list| !list.is_empty());
    if listed("insecure-registries") {
        plan.notes.push(format!(
            "{DAEMON_JSON} has insecure-registries, which docker does not heed where {} is read. So \
             only these registries are mirrored (--mirror): {}.",
            hosts::DEFAULT,
            wanted.mirrors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ));
        for host in &wanted.mirrors {
            one(plan, seen, wanted, host.as_str())?;
        }
    } else {
        let path = format!("{CERTS_D}/{}/{HOSTS_TOML}", hosts::DEFAULT);
        hosts::place(plan, seen, path, "docker", wanted)?;
        plan.notes.extend(hosts::shadows(seen, CERTS_D));
    }
    if settings["registry-mirrors"].as_array().is_some_and(|mirrors| mirrors.len() > 1) {
        plan.notes.push(format!(
            "The other registry-mirrors in {DAEMON_JSON} stay, but the containerd image store does not ask \
             them where it reads hosts.toml."
        ));
    }
    Ok(())
}

/// A registry whose directory holds certificates only is left alone: beside `hosts.toml` they are not read.
fn one(plan: &mut Plan, seen: &Seen, wanted: &Wanted, host: &str) -> Result<(), SetupError> {
    let directory = format!("{CERTS_D}/{host}");
    let path = format!("{directory}/{HOSTS_TOML}");
    if seen.has_directory(&directory) && seen.text(&path).is_none() {
        plan.notes.push(format!(
            "{directory} is there without hosts.toml and stays as it is: {host} is not mirrored."
        ));
        return Ok(());
    }
    hosts::place(plan, seen, path, "docker", wanted)
}

fn refuse_flags(seen: &Seen) -> Result<(), SetupError> {
    let fixed = FLAG_FILES.iter().filter_map(|path| Some((*path, seen.text(path)?)));
    for (path, text) in fixed.chain(seen.files_in(DROP_INS)) {
        let told = |line: &str| line.contains(FLAG) && !line.trim_start().starts_with(['#', ';']);
        if text.lines().any(told) {
            return Err(SetupError::Flag(path.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, wanted};
    use super::*;

    const DEFAULT: &str = "/etc/docker/certs.d/_default/hosts.toml";

    fn files(seen: &[(&str, &str)], docker: Option<u32>) -> Plan {
        plan(&Seen::of(seen), &Wanted { docker, ..wanted() }).unwrap()
    }

    #[test]
    fn a_fresh_machine_gets_both_files() {
        let plan = files(&[], None);
        assert_eq!(
            plan.files[DAEMON_JSON],
            "{\n  \"registry-mirrors\": [\"http://127.0.0.1:5000\"]\n}\n"
        );
        assert_eq!(plan.files[DEFAULT], hosts::text("docker", &wanted()));
        assert!(plan.notes[0].contains("mirror-bare = \"docker.io\""));
        assert_eq!(plan.notes.len(), 1);
    }

    #[test]
    fn before_28_there_is_no_hosts_file() {
        assert_eq!(files(&[], Some(27)).files.len(), 1);
        assert_eq!(files(&[], Some(28)).files.len(), 2);
    }

    #[test]
    fn insecure_registries_are_not_shadowed() {
        let json = r#"{"insecure-registries": ["10.0.0.7:5000"]}"#;
        let ca = "/etc/docker/certs.d/quay.io/ca.crt";
        let plan = files(&[(DAEMON_JSON, json), (ca, "")], Some(29));
        let names: Vec<&str> = plan.files.keys().map(String::as_str).collect();
        let of = |host: &str| format!("/etc/docker/certs.d/{host}/hosts.toml");
        assert_eq!(names, [&of("docker.io"), &of("ghcr.io"), &of("registry.k8s.io"), DAEMON_JSON]);
        assert!(plan.notes.iter().any(|note| note.contains("quay.io is not mirrored")));
    }

    #[test]
    fn what_is_not_asked_is_said() {
        let json = r#"{"registry-mirrors": ["https://m.example/"]}"#;
        let own = "/etc/docker/certs.d/docker.io/hosts.toml";
        let plan = files(&[(DAEMON_JSON, json), (own, "server = 'https://x.y'")], None);
        assert!(plan.notes.iter().any(|note| note.contains("for docker.io: there _default")));
        assert!(plan.notes.iter().any(|note| note.contains("other registry-mirrors")));
    }

    #[test]
    fn broken_and_foreign_files_are_refused() {
        let broken = refused(plan(&Seen::of(&[(DAEMON_JSON, "{\n \"a\": 1,\n}")]), &wanted()));
        assert!(broken.starts_with("/etc/docker/daemon.json:3: "), "{broken}");
        let foreign = refused(plan(&Seen::of(&[(DEFAULT, "server = 'https://x.y'")]), &wanted()));
        assert!(foreign.contains("not from ddr setup"), "{foreign}");
        let toml = refused(plan(&Seen::of(&[(DEFAULT, "\n= 1")]), &wanted()));
        assert!(toml.contains("hosts.toml:2: not TOML"), "{toml}");
    }

    #[test]
    fn a_mirror_on_the_command_line_is_refused() {
        let unit = "/etc/systemd/system/docker.service.d/mirror.conf";
        let text = "ExecStart=/usr/bin/dockerd --registry-mirror=https://m.example\n";
        let error = refused(plan(&Seen::of(&[(unit, text)]), &wanted()));
        assert!(error.starts_with(unit), "{error}");
        let comment = "#DOCKER_OPTS=\"--registry-mirror=https://m.example\"\n";
        plan(&Seen::of(&[("/etc/default/docker", comment)]), &wanted()).unwrap();
    }

    #[test]
    fn a_hosts_file_that_names_the_mirror_stays() {
        let text = "server = 'https://x.y'\n[host.'http://127.0.0.1:5000/']\n";
        assert!(!files(&[(DEFAULT, text)], None).files.contains_key(DEFAULT));
    }
}
