//! What the process has of its machine: open files, disk; and the clients that pull here.

use super::Finding;
use super::facts::{Descriptors, Disk};
use crate::cli::size;
use crate::setup::Client;
use crate::setup::state::Standing;

/// Percent of the open files above which it is said, and above which it is too late.
const FILES_WARN: u64 = 75;
const FILES_FAIL: u64 = 90;
/// So many times what is reserved: below, the reserve itself is cut (see `ddr_registry::Limits::within`).
const FILES_WANTED: u64 = 4;
/// Below so many free bytes a push fails.
const MIN_FREE_BYTES: u64 = 64 << 20;
/// Percent of the inodes that are free, below which it is said; and the number below which a push fails.
const INODES_WARN: u64 = 5;
const MIN_FREE_INODES: u64 = 256;

/// Whether there are files left to open.
#[must_use]
pub fn descriptors(files: &Descriptors) -> Finding {
    const CHECK: &str = "descriptors";
    const RAISE: &str =
        "LimitNOFILE=65536 or more in the systemd unit, or ulimit -Hn; then start ddrd again";
    let Some(open) = files.open else {
        return Finding::skip(CHECK, "the system does not say how many are open");
    };
    let Some(limit) = files.limit else {
        return Finding::ok(CHECK, format!("{open} open, no limit"));
    };
    let found = format!("{open} open of {limit}; room for {} clients at once", files.clients);
    let percent = open.saturating_mul(100) / limit.max(1);
    if percent >= FILES_FAIL {
        return Finding::fail(CHECK, format!("{found}: {percent} % are used"), RAISE);
    }
    if percent >= FILES_WARN {
        return Finding::warn(CHECK, format!("{found}: {percent} % are used"), RAISE);
    }
    let wanted = files.reserved.saturating_mul(FILES_WANTED);
    match limit < wanted {
        true => Finding::warn(CHECK, format!("{found}; ddrd wants {wanted} or more"), RAISE),
        false => Finding::ok(CHECK, found),
    }
}

/// Whether there is room.
#[must_use]
pub fn disk(disk: &Disk) -> Finding {
    const CHECK: &str = "disk";
    const ROOM: &str =
        "make room or give the disk more: ddr gc, ddr unpin, a lower cache-size, or another node";
    let dir = &disk.data_dir;
    if let Some(why) = &disk.not_writable {
        return Finding::fail(
            CHECK,
            format!("nothing can be written into {dir}: {why}"),
            "check its owner, its mode, that it is not mounted read-only, and that the disk has room",
        );
    }
    let files = match disk.inodes {
        0 => String::new(),
        _ => format!(", {} of {} inodes free", disk.free_inodes, disk.inodes),
    };
    let (free, all) = (size(disk.free_bytes), size(disk.bytes));
    let found = format!("{dir} can be written, {free} of {all} free{files}");
    if disk.free_bytes < MIN_FREE_BYTES {
        return Finding::fail(CHECK, format!("{found}: pushes are answered with 507"), ROOM);
    }
    if disk.inodes > 0 && disk.free_inodes < MIN_FREE_INODES {
        return Finding::fail(CHECK, format!("{found}: no blob finds an inode"), ROOM);
    }
    match doubts(disk) {
        Some(doubt) => Finding::warn(CHECK, format!("{found}; {doubt}"), ROOM),
        None => Finding::ok(CHECK, found),
    }
}

/// What will go wrong soon.
fn doubts(disk: &Disk) -> Option<String> {
    if disk.free_bytes < disk.spare_bytes {
        let spare = size(disk.spare_bytes);
        return Some(format!("with less than {spare} no copies are taken for other nodes"));
    }
    if disk.over_bytes > 0 {
        let because = disk.over_because.as_deref().unwrap_or("nothing may go");
        let over = size(disk.over_bytes);
        return Some(format!("{over} above the mark of {} %, and {because}", disk.cache_high));
    }
    let few = disk.inodes > 0 && disk.free_inodes < disk.inodes / 100 * INODES_WARN;
    few.then(|| format!("less than {INODES_WARN} % of the inodes are free"))
}

/// Whether a client would ask this node. `seen` is the error of a file where it could not be found out.
#[must_use]
pub fn client(client: Client, seen: Result<&Standing, &str>, registry: &str) -> Finding {
    let (check, setup) = (client.name(), format!("ddr setup {}", client.name()));
    let option = match registry {
        "127.0.0.1:5000" => String::new(),
        other => format!(" --registry {other}"),
    };
    match seen {
        Err(why) => Finding::warn(
            check,
            format!("its configuration cannot be looked at: {why}"),
            format!("mend the file; then: {setup} --dry-run"),
        ),
        Ok(Standing::Absent) => Finding::skip(check, "not installed here"),
        Ok(Standing::Set { missing: None }) => {
            Finding::ok(check, format!("asks {registry} first for images of other registries"))
        }
        Ok(Standing::Set { missing: Some(missing) }) => Finding::warn(
            check,
            format!("its hosts.toml names {registry}, but may not be read"),
            missing,
        ),
        Ok(Standing::Elsewhere(other)) => Finding::warn(
            check,
            format!("its files name {other}, but the registry is on {registry}"),
            format!("sudo {setup} --undo; sudo {setup}{option}"),
        ),
        Ok(Standing::Unset) => Finding::ok(
            check,
            "not set up to ask this node for images of other registries; names that begin with localhost: need none",
        )
        .hint(format!("if that is wanted: {setup}{option} --dry-run")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn files(open: u64, limit: u64) -> Descriptors {
        Descriptors { limit: Some(limit), open: Some(open), reserved: 4_096, clients: 9 }
    }

    #[test]
    fn files_run_out_in_steps() {
        let state = |open, limit| descriptors(&files(open, limit)).state;
        assert_eq!(state(100, 65_536), State::Ok);
        assert_eq!(state(100, 1_024), State::Warn, "less than is wanted");
        assert_eq!(state(49_152, 65_536), State::Warn);
        assert_eq!(state(58_983, 65_536), State::Fail);
        let unknown = Descriptors { open: None, ..files(0, 65_536) };
        assert_eq!(descriptors(&unknown).state, State::Skip);
        let endless = Descriptors { limit: None, ..files(100, 0) };
        assert_eq!(descriptors(&endless).state, State::Ok);
    }

    fn room() -> Disk {
        Disk {
            data_dir: "/data".into(),
            bytes: 100 << 30,
            free_bytes: 50 << 30,
            inodes: 1_000_000,
            free_inodes: 900_000,
            not_writable: None,
            spare_bytes: 1 << 30,
            cache_high: 80,
            over_bytes: 0,
            over_because: None,
        }
    }

    #[test]
    fn a_disk_has_room_of_each_kind() {
        assert_eq!(disk(&room()).state, State::Ok);
        assert_eq!(disk(&Disk { inodes: 0, free_inodes: 0, ..room() }).state, State::Ok);
        for (wrong, words) in [
            (Disk { not_writable: Some("read-only".into()), ..room() }, "read-only"),
            (Disk { free_bytes: 1 << 20, ..room() }, "507"),
            (Disk { free_inodes: 3, ..room() }, "inode"),
        ] {
            let found = disk(&wrong);
            assert_eq!(found.state, State::Fail);
            assert!(found.found.contains(words) && found.advice.is_some(), "{found:?}");
        }
        for doubtful in [
            Disk { free_bytes: 1 << 29, ..room() },
            Disk { over_bytes: 1, over_because: Some("all is pinned".into()), ..room() },
            Disk { free_inodes: 30_000, ..room() },
        ] {
            assert_eq!(disk(&doubtful).state, State::Warn, "{doubtful:?}");
        }
    }

    #[test]
    fn a_client_asks_this_node_or_it_is_said_how() {
        let at =
            |standing: Standing, registry: &str| client(Client::Docker, Ok(&standing), registry);
        let set = |missing: Option<&str>| Standing::Set { missing: missing.map(str::to_owned) };
        assert_eq!(at(Standing::Absent, "127.0.0.1:5000").state, State::Skip);
        assert_eq!(at(set(None), "127.0.0.1:5000").state, State::Ok);
        assert_eq!(at(set(Some("x")), "127.0.0.1:5000").state, State::Warn);
        let unset = at(Standing::Unset, "127.0.0.1:6000");
        assert_eq!(unset.state, State::Ok);
        let advice = unset.advice.unwrap();
        assert!(
            advice.contains("ddr setup docker --registry 127.0.0.1:6000 --dry-run"),
            "{advice}"
        );
        let elsewhere = Standing::Elsewhere("127.0.0.1:6000".parse().unwrap());
        let elsewhere = at(elsewhere, "127.0.0.1:5000");
        assert_eq!(elsewhere.state, State::Warn);
        assert!(elsewhere.advice.unwrap().ends_with("sudo ddr setup docker"));
        assert_eq!(client(Client::Crio, Err("broken"), "127.0.0.1:5000").state, State::Warn);
    }
}
