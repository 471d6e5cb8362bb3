//! Machines on a network of their own: network namespaces whose interfaces are joined by a bridge.
//!
//! The names of the namespaces lie in the `/run` of [`crate::sandbox`] and go with it, and the
//! interfaces go with the namespaces: nothing is left behind however a run ends.

mod lab;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run;
use crate::tools::{IP, TC};

pub(crate) use lab::{Lab, MAX_NODES, address};

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";
/// The namespace of the bridge, and the bridge.
const LAN: &str = "ddr-lan";
const BRIDGE: &str = "br0";
/// The one interface of a machine.
const INTERFACE: &str = "eth0";
/// An interface that nobody has: what is sent there is lost.
const NOWHERE: &str = "02:00:00:00:00:00";
/// Longest wait of a packet in the queue of a shaped link.
const QUEUE: &str = "20ms";
/// What a shaped link may send at once: so many bytes, and at high rates what it sends in 1 ms. The
/// kernel hands over packets of up to 64 KiB; with a burst of only one of them the link is too slow.
const MIN_BURST_BYTES: u64 = 128 << 10;
const BURST_BYTES_PER_MBIT: u64 = 125;

/// A bridge that machines are plugged into.
#[derive(Debug)]
pub(crate) struct Lan {
    namespace: Namespace,
}

/// A machine on the LAN: a network namespace with one interface.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: Namespace,
}

/// The network of a machine.
#[derive(Debug)]
pub(crate) struct Network(File);

/// What has left a machine through its interface. It can be read after the machine has gone.
#[derive(Debug)]
pub(crate) struct SentBytes(File);

/// A network namespace with a name; dropping it takes the name away.
#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Lan {
    pub(crate) fn new() -> Result<Self> {
        let namespace = Namespace::add(LAN)?;
        namespace.ip(&["link", "add", BRIDGE, "up", "type", "bridge"])?;
        Ok(Self { namespace })
    }

    /// A new machine, named as no other on this LAN in at most 15 bytes.
    pub(crate) fn plug_in(&self, name: &str) -> Result<Host> {
        let namespace = Namespace::add(name)?;
        let pair = ["type", "veth", "peer", "name", INTERFACE, "netns", name];
        self.namespace.ip(&[&["link", "add", "name", name][..], &pair].concat())?;
        self.namespace.ip(&["link", "set", name, "up", "master", BRIDGE])?;
        namespace.ip(&["link", "set", INTERFACE, "up"])?;
        Ok(Host { namespace })
    }

    /// Gives the link of a machine this many Mbit/s in each direction, Ethernet headers counted.
    pub(crate) fn shape(&self, host: &Host, mbit: u64) -> Result<()> {
        host.namespace.shape(INTERFACE, mbit)?;
        self.namespace.shape(&host.namespace.name, mbit)
    }
}

impl Host {
    pub(crate) fn name(&self) -> &str {
        &self.namespace.name
    }

    /// Gives the machine this address, with the length of its prefix, and no other.
    pub(crate) fn set_address(&self, address: &str) -> Result<()> {
        self.namespace.ip(&["addr", "flush", "dev", INTERFACE])?;
        self.namespace.ip(&["addr", "add", address, "dev", INTERFACE])
    }

    /// From now on all that this machine sends to `address` is lost, in silence.
    pub(crate) fn cut(&self, address: &str) -> Result<()> {
        let entry = ["lladdr", NOWHERE, "dev", INTERFACE, "nud", "permanent"];
        self.namespace.ip(&[&["neigh", "replace", address][..], &entry].concat())
    }

    /// What this machine sends to `address` arrives again.
    pub(crate) fn mend(&self, address: &str) -> Result<()> {
        self.namespace.ip(&["neigh", "del", address, "dev", INTERFACE])
    }

    /// Runs `work` in a thread on this machine: what it starts and the sockets that it opens are
    /// there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let network = self.network()?;
        let inside = || {
            network.enter_here()?;
            work()
        };
        let joined = thread::scope(|scope| scope.spawn(inside).join());
        joined.map_err(|_| anyhow!("a thread on {} panicked", self.namespace.name))?
    }

    /// The machine's network, for threads that stay there.
    pub(crate) fn network(&self) -> Result<Network> {
        Ok(Network(File::open(Path::new(NAMES).join(&self.namespace.name))?))
    }

    pub(crate) fn sent_bytes(&self) -> Result<SentBytes> {
        self.enter(|| Ok(SentBytes(File::open("/proc/thread-self/net/dev")?)))
    }
}

impl Network {
    /// The calling thread is on the machine from now on, and so is what it starts.
    pub(crate) fn enter_here(&self) -> Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl SentBytes {
    pub(crate) fn read(&mut self) -> Result<u64> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        parse_sent(&text, INTERFACE).context("no count of sent bytes")
    }
}

impl Namespace {
    fn add(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], args].concat())
    }

    fn shape(&self, interface: &str, mbit: u64) -> Result<()> {
        let burst = (mbit * BURST_BYTES_PER_MBIT).max(MIN_BURST_BYTES).to_string();
        let mut tc = Command::new(TC);
        tc.args(["-n", &self.name, "qdisc", "replace", "dev", interface, "root", "tbf"]);
        tc.args(["rate", &format!("{mbit}mbit"), "burst", &burst, "latency", QUEUE]);
        run::output(&mut tc).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left after a failure goes with the sandbox.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    run::output(Command::new(IP).args(args)).map(drop)
}

/// The ninth number after the name of the interface (proc(5)).
fn parse_sent(text: &str, interface: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, counts) = lines.find(|(name, _)| *name == interface)?;
    counts.split_whitespace().nth(8)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_bytes_are_those_of_the_interface() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    \
                    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n  eth0: 5 6 0 0 0 0 0 0 7 8 0 0 0 0 0 0\n";
        assert_eq!(parse_sent(text, "eth0"), Some(7));
        assert_eq!(parse_sent(text, "eth1"), None);
    }
}
