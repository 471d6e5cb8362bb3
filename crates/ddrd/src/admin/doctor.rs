//! `/api/v1/doctor`: what `ddr doctor` asks about this process and its machine.
//!
//! Facts only: what is good or bad about them is said by the command.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use ddr_node::DialReport;
use ddr_registry::limits::{Limits, RESERVED_DESCRIPTORS};
use rustix::fs::StatVfs;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::Admin;

/// Bytes that are written to see whether the data directory takes any.
const PROBE_BYTES: usize = 4096;

/// The answer of `/api/v1/doctor`.
#[derive(Serialize)]
pub(super) struct Facts {
    version: &'static str,
    registry: Registry,
    peer_port: PeerPort,
    descriptors: Descriptors,
    disk: Disk,
    clock: Clock,
}

#[derive(Serialize)]
struct Registry {
    address: SocketAddr,
    tls: bool,
}

#[derive(Serialize)]
struct PeerPort {
    listen: SocketAddr,
    /// Dials from this node to itself, by new connections.
    advertised: Vec<DialReport>,
}

#[derive(Serialize)]
struct Descriptors {
    /// Files that the process may have open; none where there is no limit.
    limit: Option<u64>,
    /// Those that it has open; none where the system does not say.
    open: Option<usize>,
    /// Those that are neither for clients nor for what they read, where the limit leaves so many.
    reserved: usize,
    /// Clients at the same time that the limit leaves room for.
    clients: usize,
}

#[derive(Serialize)]
struct Disk {
    data_dir: String,
    bytes: u64,
    free_bytes: u64,
    /// 0 where the file system does not count them.
    inodes: u64,
    free_inodes: u64,
    /// Why nothing can be written into the data directory, if so.
    not_writable: Option<String>,
    /// With less free this node takes no copies for others.
    spare_bytes: u64,
    /// Percent used above which pulled content makes room.
    cache_high: u8,
    /// Bytes above that with nothing left that may go, and what is left.
    over_bytes: u64,
    over_because: Option<String>,
}

#[derive(Serialize)]
struct Clock {
    /// How far the machine's clock is ahead of the one that the node goes by since its start.
    machine_ahead_ms: i64,
}

pub(super) async fn facts(admin: &Admin) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        registry: Registry { address: admin.registry, tls: admin.registry_tls },
        peer_port: PeerPort { listen: admin.peers, advertised: admin.node.reach_itself().await },
        descriptors: descriptors(),
        disk: disk(admin).await,
        clock: Clock { machine_ahead_ms: admin.node.machine_clock_ahead_ms() },
    }
}

fn descriptors() -> Descriptors {
    let limit = getrlimit(Resource::Nofile).current;
    let files = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    Descriptors {
        limit,
        // One of them is the reading itself.
        open: std::fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1)),
        reserved: RESERVED_DESCRIPTORS,
        clients: Limits::within(files).connections,
    }
}

async fn disk(admin: &Admin) -> Disk {
    let dir = admin.data_dir.clone();
    let look = move || (rustix::fs::statvfs(&dir).ok(), writable(&dir).err());
    let (space, error) = match tokio::task::spawn_blocking(look).await {
        Ok((space, error)) => (space, error.map(|error| error.to_string())),
        Err(error) => (None, Some(error.to_string())),
    };
    let cache = admin.node.status().await.cache;
    let number = |of: fn(&StatVfs) -> u64| space.as_ref().map_or(0, of);
    let all = number(|of| of.f_blocks.saturating_mul(of.f_frsize));
    Disk {
        data_dir: admin.data_dir.display().to_string(),
        bytes: all,
        free_bytes: number(|of| of.f_bavail.saturating_mul(of.f_frsize)),
        inodes: number(|of| of.f_files),
        free_inodes: number(|of| of.f_favail),
        not_writable: error,
        spare_bytes: ddr_node::spare_bytes(all),
        cache_high: cache.high,
        over_bytes: cache.over_bytes,
        over_because: cache.over_because,
    }
}

/// Writes a file that has no name, so that nothing stays whatever happens.
fn writable(dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(&[0; PROBE_BYTES])?;
    file.sync_all()
}
