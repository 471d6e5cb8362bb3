//! Setup and undo on a machine below a temporary directory, for each client.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::setup::seen::Seen;
use crate::setup::{Wanted, plan, tests::wanted};

const CLIENTS: [Client; 4] = [Client::Docker, Client::Containerd, Client::Podman, Client::Crio];
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const PODMAN: &str = "/etc/containers/registries.conf.d/50-ddr.conf";

/// Every file with its mode and bytes, and every directory.
fn tree(root: &Path) -> BTreeMap<String, (u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            let bytes = path.is_file().then(|| fs::read(&path).unwrap());
            if bytes.is_none() {
                open.push(path.clone());
            }
            found.insert(path.to_string_lossy().into_owned(), (mode, bytes));
        }
    }
    found
}

struct Disk {
    dir: tempfile::TempDir,
    machine: Machine,
}

impl Disk {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::below(dir.path().to_owned());
        for (path, text) in files {
            machine.write(path, text, Some(0o640)).unwrap();
        }
        Self { dir, machine }
    }

    fn changes(&self, client: Client, wanted: &Wanted) -> Result<Vec<Change>, SetupError> {
        let record = Record::load(client, &self.machine)?;
        let seen = Seen::look(client, &self.machine, &record)?;
        record.changes(&plan(client, &seen, wanted)?, &self.machine)
    }

    fn set_up(&self, client: Client, wanted: &Wanted) -> usize {
        let changes = self.changes(client, wanted).unwrap();
        let record = Record::load(client, &self.machine).unwrap();
        record.apply(client, &self.machine, &changes).unwrap();
        changes.len()
    }

    fn undo(&self, client: Client) -> Undo {
        let record = Record::load(client, &self.machine).unwrap();
        let undo = record.undo(&self.machine).unwrap();
        record.take_back(client, &self.machine, &undo).unwrap();
        undo
    }

    fn tree(&self) -> BTreeMap<String, (u32, Option<Vec<u8>>)> {
        tree(self.dir.path())
    }
}

#[test]
fn a_fresh_machine_is_as_before_after_an_undo() {
    for client in CLIENTS {
        let here = Disk::new(&[]);
        assert!(here.set_up(client, &wanted()) > 0);
        let set_up = here.tree();
        assert!(here.changes(client, &wanted()).unwrap().is_empty(), "{client:?}: a second setup");
        assert!(here.undo(client).refused.is_empty());
        assert!(here.tree().is_empty(), "{client:?}: {:?}", here.tree().keys());
        here.set_up(client, &wanted());
        assert_eq!(here.tree(), set_up, "{client:?}: and again");
    }
}

#[test]
fn what_was_there_is_given_back_with_its_bytes_and_mode() {
    let files = [
        (DAEMON_JSON, "{\"b\": 1,\r\n \"a\":[ ]}"),
        ("/etc/docker/certs.d/r.example/ca.crt", "CA"),
        ("/etc/containerd/config.toml", "version = 2 # mine\n"),
        ("/etc/containers/registries.conf", "unqualified-search-registries = []\n"),
        ("/etc/containers/registries.conf.d/00-mine.conf", "[[registry]]\nlocation = 'quay.io'\n"),
        ("/var/lib/other", ""),
    ];
    let here = Disk::new(&files);
    let before = here.tree();
    for client in CLIENTS {
        here.set_up(client, &wanted());
    }
    assert_eq!(here.machine.mode(DAEMON_JSON).unwrap(), Some(0o640));
    assert_ne!(here.tree(), before);
    for client in CLIENTS {
        assert!(here.undo(client).refused.is_empty());
    }
    assert_eq!(here.tree(), before);
}

#[test]
fn other_options_take_the_place_of_the_first_ones() {
    for client in CLIENTS {
        let here = Disk::new(&[(DAEMON_JSON, "{}")]);
        let before = here.tree();
        here.set_up(client, &wanted());
        let other = Wanted { registry: "127.0.0.1:6000".parse().unwrap(), ..wanted() };
        assert!(here.set_up(client, &other) > 0);
        let told = |port: &str| {
            here.tree().iter().any(|(path, (_, bytes))| {
                let bytes = bytes.as_deref().unwrap_or_default();
                !path.contains("ddr-setup") && String::from_utf8_lossy(bytes).contains(port)
            })
        };
        assert!(told(":6000") && !told(":5000"), "{client:?}");
        here.undo(client);
        assert_eq!(here.tree(), before, "{client:?}: the first backup was kept");
    }
}

#[test]
fn files_that_other_options_do_not_need_go() {
    let here = Disk::new(&[(DAEMON_JSON, r#"{"insecure-registries": ["10.0.0.7:5000"]}"#)]);
    let before = here.tree();
    assert_eq!(here.set_up(Client::Docker, &wanted()), 5);
    let one = Wanted { mirrors: vec!["quay.io".parse().unwrap()], ..wanted() };
    assert_eq!(here.set_up(Client::Docker, &one), 3, "three hosts files are taken back");
    assert!(here.changes(Client::Docker, &one).unwrap().is_empty());
    here.undo(Client::Docker);
    assert_eq!(here.tree(), before);
}

#[test]
fn a_file_that_somebody_changed_is_not_taken_back() {
    let here = Disk::new(&[(DAEMON_JSON, "{}")]);
    here.set_up(Client::Docker, &wanted());
    let edited = "{\"registry-mirrors\": [\"http://127.0.0.1:5000\"], \"debug\": true}";
    here.machine.write(DAEMON_JSON, edited, None).unwrap();
    let undo = here.undo(Client::Docker);
    assert_eq!(undo.refused, [DAEMON_JSON]);
    assert_eq!(undo.changes.len(), 1, "the hosts file is");
    assert_eq!(here.machine.read(DAEMON_JSON).unwrap().unwrap(), edited);
    let record = Record::load(Client::Docker, &here.machine).unwrap();
    assert_eq!(record.files().next().unwrap().1.old.as_deref(), Some("{}"), "the backup stays");
    here.machine.write(DAEMON_JSON, "{}", None).unwrap();
    assert!(here.undo(Client::Docker).refused.is_empty(), "mended by hand");
    assert!(here.machine.read(Client::Docker.record()).unwrap().is_none());
}

#[test]
fn what_somebody_changed_is_the_backup_of_the_next_setup() {
    let here = Disk::new(&[]);
    here.set_up(Client::Docker, &wanted());
    here.machine.write(DAEMON_JSON, "{\"debug\": true}", None).unwrap();
    assert_eq!(here.set_up(Client::Docker, &wanted()), 1);
    here.undo(Client::Docker);
    assert_eq!(here.machine.read(DAEMON_JSON).unwrap().unwrap(), "{\"debug\": true}");
}

#[test]
fn a_file_of_ours_that_somebody_changed_is_not_overwritten() {
    let here = Disk::new(&[]);
    here.set_up(Client::Podman, &wanted());
    let edited = here.machine.read(PODMAN).unwrap().unwrap() + "# mine\n";
    here.machine.write(PODMAN, &edited, None).unwrap();
    let error = here.changes(Client::Crio, &wanted()).unwrap_err();
    assert!(matches!(error, SetupError::Foreign { .. }), "{error}");
}

#[test]
fn nothing_is_written_where_something_is_broken() {
    for (client, path) in [
        (Client::Docker, DAEMON_JSON),
        (Client::Docker, "/etc/docker/certs.d/_default/hosts.toml"),
        (Client::Containerd, "/etc/containerd/config.toml"),
        (Client::Podman, "/etc/containers/registries.conf"),
        (Client::Crio, "/var/lib/ddr-setup/podman.json"),
    ] {
        let here = Disk::new(&[(path, "]broken[")]);
        let before = here.tree();
        let error = here.changes(client, &wanted()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}:1: ")), "{error}");
        assert_eq!(here.tree(), before);
    }
}

#[test]
fn a_setup_that_was_cut_off_can_be_undone() {
    let here = Disk::new(&[(DAEMON_JSON, "{}")]);
    let before = here.tree();
    let changes = here.changes(Client::Docker, &wanted()).unwrap();
    // A directory where a file belongs: the second write fails, after the record and the first file.
    let in_the_way = here.dir.path().join("etc/docker/daemon.json.d");
    fs::create_dir(&in_the_way).unwrap();
    let mut broken = changes.clone();
    broken.sort_by_key(|change| change.path == DAEMON_JSON);
    let last = broken.last_mut().unwrap();
    last.path.push_str(".d");
    last.old = None;
    let record = Record::load(Client::Docker, &here.machine).unwrap();
    record.apply(Client::Docker, &here.machine, &broken).unwrap_err();
    fs::remove_dir(&in_the_way).unwrap();
    assert!(here.undo(Client::Docker).refused.is_empty());
    assert_eq!(here.tree(), before);
}
