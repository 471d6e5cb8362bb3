//! Machines on shaped links of one LAN: a source, and those that pull from it.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};

use super::{Host, Lan};

/// Machines that pull: what one network of 24 bits holds beside the source.
pub(crate) const MAX_NODES: usize = 250;
/// So many times slower is a slow link.
const SLOW_TIMES: u64 = 10;

/// All machines; the first is the source.
#[derive(Debug)]
pub(crate) struct Lab {
    hosts: Vec<Host>,
    /// Held as long as its machines.
    lan: Lan,
}

impl Lab {
    /// A source and `pullers` more on links of `mbit` Mbit/s; those whose numbers are in `slow` have
    /// a link ten times slower.
    pub(crate) fn new(pullers: usize, mbit: u64, slow: &[usize]) -> Result<Self> {
        let lan = Lan::new()?;
        let mut hosts = Vec::with_capacity(pullers + 1);
        for number in 0..=pullers {
            let host = lan.plug_in(&format!("ddr-{number}"))?;
            host.set_address(&format!("{}/24", address(number)))?;
            let is_slow = number.checked_sub(1).is_some_and(|puller| slow.contains(&puller));
            lan.shape(&host, if is_slow { mbit / SLOW_TIMES } else { mbit })
                .with_context(|| format!("cannot shape the link of machine {number}"))?;
            hosts.push(host);
        }
        Ok(Self { hosts, lan })
    }

    /// Gives the source another rate than the others.
    pub(crate) fn shape_source(&self, mbit: u64) -> Result<()> {
        self.lan.shape(self.source(), mbit)
    }

    pub(crate) fn source(&self) -> &Host {
        &self.hosts[0]
    }

    pub(crate) fn pullers(&self) -> &[Host] {
        &self.hosts[1..]
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

/// The address of machine `number`; 0 is the source.
pub(crate) fn address(number: usize) -> IpAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 78, 0, last))
}
