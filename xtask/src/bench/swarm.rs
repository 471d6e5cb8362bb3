//! `cargo xtask bench swarm`: many nodes pull one blob at once over shaped links.
//!
//! Each daemon runs on a machine of its own ([`crate::netns`]); one more is the source, to which the
//! blob was pushed. Times are in units of F/b: the bytes of the blob over the rate of a link. The
//! rate counts all that is on the wire, so headers of Ethernet, IP and TCP make 1.05 out of a
//! perfect 1.00. Every scenario has a swarm of its own, which is gone before the next.

mod daemons;
mod figures;
mod liars;
pub(super) mod pull;
mod scenario;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::client::{self, Content};
use super::servers::Server;
use super::settle;
use crate::SwarmArgs;
use crate::e2e::{self, Random};
use crate::netns::{Lab, MAX_NODES, address};
use crate::sandbox;
use crate::tools::{self, REGISTRY};
use crate::workspace::{Workspace, ensure_release};
use daemons::Daemons;
use figures::{Row, Totals};
use pull::{Client, Wanted};
use scenario::Plan;

pub(crate) use scenario::Scenario;

const MIB: usize = 1 << 20;
const REPOSITORY: &str = "bench/swarm";
const TAG: &str = "1.0";
/// Where docker-registry listens on its machine.
const REGISTRY_PORT: u16 = 5000;

/// Builds the daemon as it is shipped and measures. True when the goals are reached.
pub(crate) fn swarm(workspace: &Workspace, args: &SwarmArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        tools::ensure_links()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    ensure!((2..=MAX_NODES).contains(&args.nodes), "2 to {} nodes", MAX_NODES);
    ensure!(args.link >= 10 && args.blob > 0, "a blob of 1 MiB and links of 10 Mbit/s at least");
    sandbox::mask()?;
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    eprintln!("seed {seed}");
    let daemon = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    let mut random = Random::new(seed);
    let blob = Content::new(random.next(), args.blob * MIB);
    let mut bench = Bench { args, daemon, dir, blob, random, rows: Vec::new() };
    for scenario in Scenario::value_variants() {
        if args.scenario.is_empty() || args.scenario.contains(scenario) {
            bench.measure(*scenario)?;
        }
    }
    figures::report(&bench.rows, args.json)
}

/// What all scenarios share.
struct Bench<'a> {
    args: &'a SwarmArgs,
    daemon: PathBuf,
    dir: &'a Path,
    blob: Content,
    random: Random,
    rows: Vec<Row>,
}

impl Bench<'_> {
    fn measure(&mut self, scenario: Scenario) -> Result<()> {
        eprintln!("{}", scenario.name());
        let dir = self.dir.join(scenario.name());
        fs::create_dir_all(&dir)?;
        let layers: Vec<Content> = (0..scenario.layers())
            .map(|_| Content::new(self.random.next(), scenario::LAYER_MIB * MIB))
            .collect();
        let wanted = match scenario {
            Scenario::Image => Wanted::image(REPOSITORY, TAG, &layers),
            _ => Wanted::blob(REPOSITORY, &self.blob),
        };
        let file_time =
            Duration::from_secs_f64(wanted.bytes() as f64 * 8.0 / (self.args.link as f64 * 1e6));
        let mark_bytes = (wanted.bytes() as f64 * self.args.dies_after) as u64;
        let plan = Plan::new(scenario, self.args.nodes, mark_bytes, file_time, &mut self.random);
        let rows = match scenario {
            Scenario::Link | Scenario::DockerRegistry => self.registry(&dir, &plan, &wanted)?,
            _ => self.daemons(&dir, &plan, &wanted)?,
        };
        self.rows.extend(rows);
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
    }

    /// Every client pulls from the daemon on its own machine.
    fn daemons(&self, dir: &Path, plan: &Plan, wanted: &Wanted<'_>) -> Result<Vec<Row>> {
        let lab = Lab::new(plan.delays.len() + plan.liars, self.args.link, &plan.slow)?;
        let mut daemons = Daemons::start(&lab, &self.daemon, dir)?;
        daemons.push(&lab, REPOSITORY, TAG, wanted.blobs)?;
        if plan.liars > 0 {
            liars::make(&daemons, &lab, dir, plan.liars, wanted)?;
        }
        settle()?;
        let mut sent = lab.source().sent_bytes()?;
        let before = (sent.read()?, daemons.cpu_s());
        let clients = daemons.clients(&lab, &plan.delays);
        let mut killed = 0;
        let outcomes = pull::all(&clients, wanted, |running| {
            killed = daemons.suffer(&plan.fault, running, &mut sent)?;
            Ok(())
        })?;
        let both = daemons.cpu_s().into_iter().zip(before.1);
        let used = both.filter_map(|(after, before)| Some(after? - before?));
        let totals = Totals {
            copies: (sent.read()? - before.0) as f64 / wanted.bytes() as f64,
            cpu_s: figures::mean(used),
            killed,
            peak_mib: daemons.peak_kib()? as f64 / 1024.0,
        };
        Ok(figures::rows(plan, &outcomes, &totals))
    }

    /// Every client pulls from docker-registry on the source's machine.
    fn registry(&self, dir: &Path, plan: &Plan, wanted: &Wanted<'_>) -> Result<Vec<Row>> {
        let lab = Lab::new(plan.delays.len(), self.args.link, &plan.slow)?;
        let address = SocketAddr::new(address(0), REGISTRY_PORT).to_string();
        let server = lab.source().enter(|| {
            let server = Server::registry_at(Path::new(REGISTRY), dir, address.clone())?;
            client::push_image(&address, REPOSITORY, TAG, wanted.blobs)?;
            Ok(server)
        })?;
        settle()?;
        let mut sent = lab.source().sent_bytes()?;
        let before = (sent.read()?, server.cpu_s()?);
        let client = |(host, delay): (_, &Duration)| Client {
            host,
            address: address.clone(),
            delay: *delay,
        };
        let clients: Vec<Client<'_>> = lab.pullers().iter().zip(&plan.delays).map(client).collect();
        let outcomes = pull::all(&clients, wanted, |_| Ok(()))?;
        let totals = Totals {
            copies: (sent.read()? - before.0) as f64 / wanted.bytes() as f64,
            cpu_s: server.cpu_s()? - before.1,
            killed: 0,
            peak_mib: f64::NAN,
        };
        Ok(figures::rows(plan, &outcomes, &totals))
    }
}
