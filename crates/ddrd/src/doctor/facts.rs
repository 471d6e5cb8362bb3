//! What the admin API says, as far as findings need it. Unknown fields are passed over, so that this program and a
//! newer daemon understand each other.

use std::net::SocketAddr;

use serde::Deserialize;

/// Of `/api/v1/doctor`.
#[derive(Clone, Debug, Deserialize)]
pub struct Facts {
    /// Where the registry listens.
    pub registry: Registry,
    /// Where peers connect.
    pub peer_port: PeerPort,
    /// Open files.
    pub descriptors: Descriptors,
    /// The file system of the data directory.
    pub disk: Disk,
    /// The node's clock.
    pub clock: Clock,
}

/// The registry port.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// The peer port.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerPort {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Dials of the node to itself.
    pub advertised: Vec<Dial>,
}

/// A dial by a new connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Dial {
    /// Where to.
    pub address: SocketAddr,
    /// `reached`, or why not.
    pub outcome: String,
}

/// Files that the process has open.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Descriptors {
    /// At most; none where there is no limit.
    pub limit: Option<u64>,
    /// Now, if the system says so.
    pub open: Option<u64>,
    /// Not for clients, where the limit leaves so many.
    pub reserved: u64,
    /// Clients at the same time.
    pub clients: u64,
}

/// The file system of the data directory.
#[derive(Clone, Debug, Deserialize)]
pub struct Disk {
    /// Where.
    pub data_dir: String,
    /// Size.
    pub bytes: u64,
    /// Free for the daemon.
    pub free_bytes: u64,
    /// Files that it may have; 0: it does not count them.
    pub inodes: u64,
    /// Of these not used.
    pub free_inodes: u64,
    /// Why nothing can be written.
    pub not_writable: Option<String>,
    /// With less free no copies are taken for others.
    pub spare_bytes: u64,
    /// Percent used above which pulled content makes room.
    pub cache_high: u8,
    /// Above it with nothing left that may go.
    pub over_bytes: u64,
    /// What is left.
    pub over_because: Option<String>,
}

/// The node's clock.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Clock {
    /// How far the machine's is ahead of it.
    pub machine_ahead_ms: i64,
}

/// Of `/api/v1/doctor/peers`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Reach {
    /// Nodes that this one knows.
    pub known: usize,
    /// Those that were asked.
    pub peers: Vec<PeerReach>,
}

/// One other node.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PeerReach {
    /// Its ID.
    pub node_id: String,
    /// From here to it.
    pub dialled: Vec<Dial>,
    /// How far its clock is ahead.
    pub clock_ahead_ms: Option<i64>,
    /// How long that question took.
    pub round_trip_us: Option<u64>,
    /// From it to here.
    pub dialled_back: Vec<Dial>,
    /// Why it did not dial.
    pub no_dial_back: Option<String>,
}

impl Dial {
    /// Whether it was who was looked for.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.outcome == "reached"
    }

    /// The address and what came of it.
    #[must_use]
    pub fn shown(&self) -> String {
        let why = match self.outcome.as_str() {
            "refused" => "nobody listens there",
            "silent" => "no answer",
            "stranger" => "something else than the node answers there",
            "not dialled" => "not a place that others can dial",
            other => other,
        };
        format!("{}: {why}", self.address)
    }
}

impl PeerReach {
    /// The start of its ID and the address that is dialled first.
    #[must_use]
    pub fn shown(&self) -> String {
        let id: String = self.node_id.chars().take(12).collect();
        self.dialled.first().map_or(id.clone(), |dial| format!("{id} at {}", dial.address))
    }

    /// Whether this node reached it.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.dialled.iter().any(Dial::reached)
    }
}
