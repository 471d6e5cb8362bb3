//! The course of a run: build, publish, attack, look up, count.

use ddr_oci::Digest;
use ddr_proto::Key;
use ddr_proto::kad::{Effort, Input, LookupKind, OpId};
use ddr_proto::wire::ProviderRecord;

use crate::attack::Attack;
use crate::background::{self, Background};
use crate::churn::Churn;
use crate::config::SimConfig;
use crate::identity;
use crate::latency::Micros;
use crate::net::{Net, START_MS, Step};
use crate::report::Report;

const SECOND: Micros = 1_000_000;
/// Publications are spread over this time.
const PUBLISH_US: Micros = 20 * SECOND;
/// So much of a sweep is looked at, as far as background traffic is measured.
const SWEEP_US: Micros = 600 * SECOND;
/// Time for the last publication to end, and for the adversary to prepare.
const SETTLE_US: Micros = 10 * SECOND;
/// Time for the last lookup to end: none lasts longer than a few seconds.
const DRAIN_US: Micros = 8 * SECOND;
/// An expired record was issued so long ago.
const STALE_MS: u64 = 3 * 3_600_000;
/// Records of adversaries that flood one key: twice what a node keeps for a key.
const FLOODERS: usize = 512;

/// Runs one simulation.
///
/// `live_bytes` tells how much memory the process holds; it is asked before and after the cores are
/// dropped, to tell what they held.
#[must_use]
pub fn run(cfg: &SimConfig, live_bytes: fn() -> u64) -> Report {
    let mut course = Course::new(cfg);
    course.publish();
    course.prepare_attack();
    let window_s = course.look_up();
    let keys = course.keys.len();
    let background = course.background;
    let mut report = Report::new(cfg, &mut course.net, keys, window_s, background);
    report.bytes_per_node = course.core_bytes(live_bytes);
    report
}

/// A key and who holds it.
#[derive(Copy, Clone, Debug)]
struct Held {
    key: Key,
    holder: u32,
}

struct Course {
    net: Net,
    keys: Vec<Held>,
    background: Background,
}

impl Course {
    fn new(cfg: &SimConfig) -> Self {
        let keys: Vec<Key> = (0..cfg.key_count()).map(|number| key(cfg.seed, number)).collect();
        let mut net = Net::build(cfg.clone(), &keys);
        let mut held = Vec::new();
        for key in keys {
            let holder = net.random_honest().unwrap_or(0);
            held.push(Held { key, holder });
        }
        Self { net, keys: held, background: Background::default() }
    }

    fn publish(&mut self) {
        let (publishers, blobs) = (self.net.cfg.publishers, self.net.cfg.blobs);
        if blobs > 0 {
            let publishers = background::announce(&mut self.net, publishers, blobs);
            self.run_for(self.net.cfg.kad.republish_ms * 1_000);
            self.net.members.iter_mut().for_each(|member| member.caused_bytes = 0);
            self.run_for(SWEEP_US);
            self.background = background::measure(&self.net, &publishers, blobs, SWEEP_US);
        }
        if self.net.cfg.kind == LookupKind::Providers {
            for key in 0..self.keys.len() {
                let delay = self.net.dice.below(PUBLISH_US);
                self.net.at(delay, Step::Provide { key });
            }
        }
        self.run_for(PUBLISH_US + SETTLE_US);
    }

    /// Tells the adversary the keys, and lets it do what it does ahead of lookups.
    fn prepare_attack(&mut self) {
        let mut targets: Vec<(Key, Option<ProviderRecord>)> =
            self.keys.iter().map(|held| (held.key, self.expired_record(held))).collect();
        targets.sort_by_key(|(key, _)| *key);
        self.net.adversary.targets = targets;
        if self.net.cfg.attack == Attack::Flood {
            self.flood();
            self.run_for(SETTLE_US);
        }
    }

    fn expired_record(&self, held: &Held) -> Option<ProviderRecord> {
        if self.net.cfg.attack != Attack::Stale {
            return None;
        }
        let holder = self.net.member(held.holder);
        let (issued, ttl_ms) = (START_MS - STALE_MS, self.net.cfg.kad.provider_ttl_ms);
        let signer = holder.secret.signer();
        let expires = issued + ttl_ms;
        Some(ProviderRecord::sign(&signer, &holder.contact, held.key, true, issued, expires))
    }

    /// Up to [`FLOODERS`] adversaries publish each key as if they held it, by their honest cores.
    fn flood(&mut self) {
        let bad: Vec<u32> = (0..self.net.members.len() as u32)
            .filter(|node| self.net.member(*node).adversary)
            .take(FLOODERS)
            .collect();
        for held in self.keys.clone() {
            for node in &bad {
                let op = self.net.ops.unmeasured();
                let input = Input::Provide { op, key: held.key, complete: true };
                self.net.op_input(*node, op, input);
            }
        }
    }

    /// Spreads the lookups over the window, with churn beside them. Returns its length in seconds.
    fn look_up(&mut self) -> f64 {
        let (cfg, net) = (self.net.cfg.clone(), &mut self.net);
        let window = cfg.lookup_window_s() * SECOND;
        for _ in 0..cfg.lookups {
            let delay = net.dice.below(window);
            net.at(delay, Step::Lookup);
        }
        if cfg.churn != Churn::None {
            for node in 0..net.members.len() as u32 {
                if !net.member(node).adversary {
                    let rest = cfg.churn.rest_of_session(&mut net.dice).unwrap_or(Micros::MAX);
                    plan_leave(net, node, rest);
                }
            }
        }
        net.traffic = crate::net::Traffic::default();
        self.run_for(window + DRAIN_US);
        (window + DRAIN_US) as f64 / SECOND as f64
    }

    fn run_for(&mut self, time: Micros) {
        let (keys, end) = (&self.keys, self.net.now + time);
        self.net.run_until(end, |net, step| take_step(net, keys, step));
    }

    /// Memory of one core in bytes: what is freed when all of them are dropped.
    fn core_bytes(&mut self, live_bytes: fn() -> u64) -> u64 {
        let before = live_bytes();
        let cores = self.net.members.iter_mut().filter(|member| member.kad.is_some());
        let count = cores.map(|member| member.kad = None).count() as u64;
        before.saturating_sub(live_bytes()) / count.max(1)
    }
}

fn take_step(net: &mut Net, keys: &[Held], step: Step) {
    match step {
        Step::Provide { key } => {
            let op = net.ops.unmeasured();
            let Held { key, holder } = keys[key];
            net.op_input(holder, op, Input::Provide { op, key, complete: true });
        }
        Step::Lookup if net.cfg.kind == LookupKind::Providers => look_up_holder(net, keys),
        Step::Lookup => look_up_node(net),
        Step::LookHarder { op } => look_harder(net, op),
        Step::Replace { node } => replace(net, node),
        Step::Join { node } => net.join(node, node),
        Step::Announce { node } => net.announce(node),
    }
}

/// A random honest node looks up a random key whose holder is up.
fn look_up_holder(net: &mut Net, keys: &[Held]) {
    let held = keys[net.dice.index(keys.len())];
    let Some(node) = net.random_honest() else {
        return;
    };
    if !net.member(held.holder).up || node == held.holder {
        return net.at(1, Step::Lookup); // draw again
    }
    start(net, node, held.key, LookupKind::Providers, held.holder);
}

/// A random honest node looks up the nodes closest to a random point.
fn look_up_node(net: &mut Net) {
    let target = Key(net.dice.bytes());
    let Some(node) = net.random_honest() else {
        return;
    };
    let wanted = net.honest.closest(&target, 1, |other| other != node);
    if let Some(wanted) = wanted.first() {
        start(net, node, target, LookupKind::Nodes, *wanted);
    }
}

fn start(net: &mut Net, node: u32, target: Key, kind: LookupKind, wanted: u32) {
    let wanted = net.id_of(wanted);
    match net.ops.start(node, target, kind, wanted, net.now) {
        Some(op) => {
            net.op_input(node, op, Input::Lookup { op, target, kind, effort: Effort::Fresh });
        }
        None => net.at(1_000, Step::Lookup),
    }
}

/// What the driver does when none of the holders has it.
fn look_harder(net: &mut Net, op: OpId) {
    if let Some((node, target, kind)) = net.ops.question(op) {
        net.op_input(node, op, Input::Lookup { op, target, kind, effort: Effort::Thorough });
    }
}

/// A node crashes; at the same moment a new one joins.
fn replace(net: &mut Net, node: u32) {
    net.crash(node);
    let secret = identity::Secret::random(&mut net.dice);
    let next = net.members.len() as u32;
    net.add(secret, false, identity::host_addr(next));
    net.join(next, next);
    let session = net.cfg.churn.session(&mut net.dice).unwrap_or(Micros::MAX);
    plan_leave(net, next, session);
}

fn plan_leave(net: &mut Net, node: u32, after: Micros) {
    // Later than any window: never.
    if after < 100 * 3_600 * SECOND {
        net.at(after, Step::Replace { node });
    }
}

fn key(seed: u64, number: usize) -> Key {
    Key::of_content(&Digest::sha256(format!("blob {number} of seed {seed}").as_bytes()))
}
