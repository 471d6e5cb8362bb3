//! Whether a client that is installed asks this node: the question of `ddr doctor`.
//!
//! Decides from what the files say, whoever wrote them. It must never change one, and a file that cannot be read
//! is said, not passed over.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Value;

use super::machine::Machine;
use super::record::Record;
use super::seen::Seen;
use super::{Client, SetupError, Wanted, containerd, plan};

/// Where programs lie.
const PROGRAM_DIRS: [&str; 6] =
    ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/bin", "/snap/bin"];

/// How a client stands to this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is not installed.
    Absent,
    /// Its files name this node; what else has to be done, if anything.
    Set {
        /// What keeps the client from reading them.
        missing: Option<String>,
    },
    /// Its files name another port of this machine.
    Elsewhere(SocketAddr),
    /// Its files name no node of this machine.
    Unset,
}

/// How `client` stands to the registry that is `wanted`.
///
/// # Errors
///
/// A file cannot be read, or is not what it should be.
pub fn standing(
    client: Client,
    machine: &Machine,
    wanted: &Wanted,
) -> Result<Standing, SetupError> {
    if !is_installed(client, machine) {
        return Ok(Standing::Absent);
    }
    // The backup may be for root's eyes only. Then setup's own files are taken as anybody's.
    let record = Record::load(client, machine).unwrap_or_default();
    let seen = Seen::look(client, machine, &record)?;
    // A file that is none is an error here as for setup; that somebody else wrote it is not.
    if let Err(error @ (SetupError::Io { .. } | SetupError::Broken { .. })) =
        plan(client, &seen, wanted)
    {
        return Err(error);
    }
    let paths: BTreeSet<&str> =
        seen.paths().chain(record.files().map(|(path, _)| path.as_str())).collect();
    let mut named = BTreeSet::new();
    for path in paths {
        // As it is, with what setup wrote.
        let text = machine.read(path)?.unwrap_or_default();
        named.extend(mirrors(path, &text).iter().filter_map(|mirror| local_port(mirror)));
    }
    if named.contains(&wanted.registry) {
        let missing = match client {
            Client::Containerd => containerd::Config::of(&seen)?.missing(),
            _ => None,
        };
        return Ok(Standing::Set { missing });
    }
    Ok(named.first().map_or(Standing::Unset, |other| Standing::Elsewhere(*other)))
}

/// The programs by which a client is known to be here.
const fn programs(client: Client) -> &'static [&'static str] {
    match client {
        Client::Docker => &["dockerd", "docker"],
        Client::Containerd => &["containerd"],
        Client::Podman => &["podman", "buildah", "skopeo"],
        Client::Crio => &["crio"],
    }
}

fn is_installed(client: Client, machine: &Machine) -> bool {
    let there = |dir: &&str| {
        programs(client).iter().any(|name| machine.place(&format!("{dir}/{name}")).exists())
    };
    PROGRAM_DIRS.iter().any(there)
}

/// The mirrors that a file of a client names; none where it is not what its name says.
fn mirrors(path: &str, text: &str) -> Vec<String> {
    if path.ends_with("/daemon.json") {
        let settings: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let listed = settings["registry-mirrors"].as_array().cloned().unwrap_or_default();
        return listed.iter().filter_map(|one| Some(one.as_str()?.to_owned())).collect();
    }
    let table: toml::Table = text.parse().unwrap_or_default();
    if path.ends_with("/hosts.toml") {
        let hosts = table.get("host").and_then(Value::as_table);
        return hosts.map(|hosts| hosts.keys().cloned().collect()).unwrap_or_default();
    }
    if path.starts_with("/etc/containers/") {
        return in_registries(&table);
    }
    // The command line of dockerd, in a unit or a file of settings.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let flags = lines.flat_map(|line| line.split("--registry-mirror").skip(1));
    flags.map(|rest| rest.trim_start_matches(['=', ' ', '"', '\'']).to_owned()).collect()
}

/// Of containers-registries.conf(5).
fn in_registries(table: &toml::Table) -> Vec<String> {
    let list = |table: &toml::Table, key: &str| {
        table.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let registries = list(table, "registry");
    let mirrors = registries.iter().filter_map(Value::as_table).flat_map(|one| list(one, "mirror"));
    mirrors.filter_map(|one| Some(one.get("location")?.as_str()?.to_owned())).collect()
}

/// The address of a mirror, if it is on the loopback.
fn local_port(mirror: &str) -> Option<SocketAddr> {
    let bare = mirror.split_once("://").map_or(mirror, |(_, rest)| rest);
    let host = bare.split(['/', ' ', '"', '\'']).next()?;
    if let Some(port) = host.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    let address: SocketAddr = host.parse().ok()?;
    address.ip().to_canonical().is_loopback().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::super::tests::wanted;
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::below(dir.path().to_owned());
        for (path, text) in files {
            machine.write(path, text, None).unwrap();
        }
        (dir, machine)
    }

    fn of(client: Client, files: &[(&str, &str)]) -> Standing {
        let (_dir, machine) = machine(files);
        standing(client, &machine, &wanted()).unwrap()
    }

    #[test]
    fn who_is_not_installed_is_absent() {
        assert_eq!(of(Client::Docker, &[("/usr/bin/podman", "")]), Standing::Absent);
        assert_eq!(of(Client::Docker, &[("/usr/bin/dockerd", "")]), Standing::Unset);
        assert_eq!(of(Client::Podman, &[("/usr/local/bin/skopeo", "")]), Standing::Unset);
    }

    #[test]
    fn files_that_name_this_node_or_another_port_are_told_apart() {
        let docker = ("/usr/bin/docker", "");
        let json = "/etc/docker/daemon.json";
        let ours = (json, r#"{"debug": true, "registry-mirrors": ["http://127.0.0.1:5000/"]}"#);
        assert_eq!(of(Client::Docker, &[docker, ours]), Standing::Set { missing: None });
        let named = (json, r#"{"registry-mirrors": ["http://localhost:5000"]}"#);
        assert_eq!(of(Client::Docker, &[docker, named]), Standing::Set { missing: None });
        let other = (json, r#"{"registry-mirrors": ["http://127.0.0.1:6000"]}"#);
        let elsewhere = Standing::Elsewhere("127.0.0.1:6000".parse().unwrap());
        assert_eq!(of(Client::Docker, &[docker, other]), elsewhere);
        let far = (json, r#"{"registry-mirrors": ["https://mirror.example"]}"#);
        assert_eq!(of(Client::Docker, &[docker, far]), Standing::Unset);
    }

    #[test]
    fn what_setup_wrote_with_other_options_counts() {
        let conf = "/etc/containers/registries.conf.d/50-ddr.conf";
        let mirror = |port: u16| {
            format!(
                "# 127.0.0.1:1\n[[registry]]\nlocation = 'r.example'\n[[registry.mirror]]\n\
                 location = '127.0.0.1:{port}/r.example'\n"
            )
        };
        for client in [Client::Podman, Client::Crio] {
            let program = ("/usr/bin/crio", "");
            let also = ("/usr/bin/podman", "");
            let at = |port| of(client, &[program, also, (conf, &mirror(port))]);
            assert_eq!(at(5000), Standing::Set { missing: None });
            assert_eq!(at(6000), Standing::Elsewhere("127.0.0.1:6000".parse().unwrap()));
        }
    }

    #[test]
    fn a_hosts_file_that_containerd_does_not_read_is_not_enough() {
        let program = ("/usr/bin/containerd", "");
        let hosts =
            ("/etc/containerd/certs.d/_default/hosts.toml", "[host.\"http://127.0.0.1:5000\"]\n");
        let Standing::Set { missing: Some(missing) } = of(Client::Containerd, &[program, hosts])
        else {
            panic!("nothing is missing");
        };
        assert!(missing.contains("config_path"), "{missing}");
        let config = (
            "/etc/containerd/config.toml",
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n\
             config_path = '/etc/containerd/certs.d'\n",
        );
        let set = of(Client::Containerd, &[program, hosts, config]);
        assert_eq!(set, Standing::Set { missing: None });
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let (_dir, machine) =
            machine(&[("/usr/bin/docker", ""), ("/etc/docker/daemon.json", "{\n")]);
        let error = standing(Client::Docker, &machine, &wanted()).unwrap_err();
        assert!(error.to_string().contains("daemon.json"), "{error}");
    }

    #[test]
    fn only_mirrors_are_mirrors() {
        let json =
            r#"{"hosts": ["tcp://127.0.0.1:2375"], "insecure-registries": ["127.0.0.1:5000"]}"#;
        let files = [("/usr/bin/docker", ""), ("/etc/docker/daemon.json", json)];
        assert_eq!(of(Client::Docker, &files), Standing::Unset);
        let conf = "[[registry]]\nlocation = '127.0.0.1:6000'\ninsecure = true\n";
        let files = [("/usr/bin/podman", ""), ("/etc/containers/registries.conf", conf)];
        assert_eq!(of(Client::Podman, &files), Standing::Unset);
        let unit = "ExecStart=/usr/bin/dockerd -H tcp://127.0.0.1:1 --registry-mirror=http://127.0.0.1:5000 -D\n";
        let files = [("/usr/bin/docker", ""), ("/etc/systemd/system/docker.service", unit)];
        assert_eq!(of(Client::Docker, &files), Standing::Set { missing: None });
    }

    #[test]
    fn loopback_addresses_are_told_from_others() {
        let shown = |mirror| local_port(mirror).map(|address| address.to_string());
        assert_eq!(shown("http://127.0.0.1:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(shown("localhost:4/x").as_deref(), Some("127.0.0.1:4"));
        assert_eq!(shown("https://[::1]:2/").as_deref(), Some("[::1]:2"));
        for far in ["10.0.0.1:3", "https://mirror.example", "127.0.0.1", ""] {
            assert_eq!(shown(far), None, "{far}");
        }
    }
}
