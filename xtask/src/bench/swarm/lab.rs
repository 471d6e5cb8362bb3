//! The machines of a scenario: the source and those that pull, on shaped links of one LAN.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};

use crate::netns::{Host, Lan};

/// Machines that pull: what one network of 24 bits holds beside the source.
pub(super) const MAX_NODES: usize = 250;
/// So many times slower is a slow link.
const SLOW_TIMES: u64 = 10;

/// All machines; the first is the source.
#[derive(Debug)]
pub(super) struct Lab {
    hosts: Vec<Host>,
    /// Held as long as its machines.
    _lan: Lan,
}

impl Lab {
    /// A source and `pullers` more on links of `mbit` Mbit/s; those whose numbers are in `slow` have
    /// a link ten times slower.
    pub(super) fn new(pullers: usize, mbit: u64, slow: &[usize]) -> Result<Self> {
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
        Ok(Self { hosts, _lan: lan })
    }

    pub(super) fn source(&self) -> &Host {
        &self.hosts[0]
    }

    pub(super) fn pullers(&self) -> &[Host] {
        &self.hosts[1..]
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

/// The address of machine `number`; 0 is the source.
pub(super) fn address(number: usize) -> IpAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(10, 78, 0, last))
}
