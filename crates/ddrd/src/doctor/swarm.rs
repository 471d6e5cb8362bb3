//! The swarm as one node sees it, and how it is seen: clocks, the way there, the way back.

use super::facts::{PeerReach, Reach};
use super::ports::ADVERTISE;
use super::{Finding, span};

/// From so much on clocks are said to differ: tags are stamped by them.
const CLOCK_WARN_MS: u64 = 1_000;
/// From so much on it is wrong: nodes that keep tags refuse a stamp 60 s ahead of them.
const CLOCK_FAIL_MS: u64 = 30_000;
/// Peers that a finding names.
const MAX_NAMED: usize = 3;

const LONE: &str = "no other node is known";

/// How far this node's clock is from those of others.
///
/// What counts is what is certain: half of the time that a question took may be error.
#[must_use]
pub fn clock(reach: &Reach, machine_ahead_ms: i64) -> Finding {
    const CHECK: &str = "clock";
    const NTP: &str = "run NTP (chrony, systemd-timesyncd) on each machine; then start ddrd again, which reads the clock \
                       at its start";
    let off = machine_ahead_ms.unsigned_abs();
    if off >= CLOCK_WARN_MS {
        let found = format!("the machine's clock was moved by {} since ddrd read it", span(off));
        let advice = "start ddrd again: it reads the clock at its start";
        return match off >= CLOCK_FAIL_MS {
            true => Finding::fail(CHECK, found, advice),
            false => Finding::warn(CHECK, found, advice),
        };
    }
    let mut told: Vec<(&PeerReach, i64, u64)> = reach.peers.iter().filter_map(told).collect();
    told.sort_by_key(|(_, ahead_ms, _)| *ahead_ms);
    let Some((worst, worst_ms, error_ms)) =
        told.iter().max_by_key(|(_, ahead_ms, error_ms)| distance(*ahead_ms, *error_ms)).copied()
    else {
        let why = if reach.peers.is_empty() { LONE } else { "no peer told its time" };
        return Finding::skip(CHECK, why);
    };
    let (one, other) = (told[(told.len() - 1) / 2], told[told.len() / 2]);
    let (median_ms, median_error_ms) = (i64::midpoint(one.1, other.1), one.2.max(other.2));
    let found = format!(
        "peers' clocks against this one, of {}: median {}, worst {}, error up to {}",
        told.len(),
        signed(median_ms),
        signed(worst_ms),
        span(error_ms)
    );
    if certain(median_ms, median_error_ms) >= CLOCK_FAIL_MS {
        return Finding::fail(CHECK, format!("{found}: tags pushed here may be refused"), NTP);
    }
    if certain(median_ms, median_error_ms) >= CLOCK_WARN_MS {
        return Finding::warn(CHECK, found, NTP);
    }
    match certain(worst_ms, error_ms) >= CLOCK_WARN_MS {
        true => Finding::warn(
            CHECK,
            format!("{found}: {} is the one that differs", worst.shown()),
            format!("see to the clock of that node. {NTP}"),
        ),
        false => Finding::ok(CHECK, found),
    }
}

/// A peer, how far it is ahead, and the error of that: half the round trip, and a millisecond of rounding.
fn told(peer: &PeerReach) -> Option<(&PeerReach, i64, u64)> {
    let error_ms = peer.round_trip_us?.div_ceil(2_000) + 1;
    Some((peer, peer.clock_ahead_ms?, error_ms))
}

const fn certain(ahead_ms: i64, error_ms: u64) -> u64 {
    ahead_ms.unsigned_abs().saturating_sub(error_ms)
}

/// By how much a clock differs for sure, then by how much it seems to.
const fn distance(ahead_ms: i64, error_ms: u64) -> (u64, u64) {
    (certain(ahead_ms, error_ms), ahead_ms.unsigned_abs())
}

fn signed(ms: i64) -> String {
    format!("{}{}", if ms < 0 { "-" } else { "+" }, span(ms.unsigned_abs()))
}

/// Whether this node reaches the others.
#[must_use]
pub fn outward(reach: &Reach) -> Finding {
    const CHECK: &str = "reaches peers";
    const OPEN: &str = "is that node up? Is TCP to its peer port (5001) open between the machines: nc -vz ADDRESS PORT. One that \
                        will not come back: ddr peers --gone NODE";
    if reach.peers.is_empty() {
        return Finding::skip(CHECK, LONE).hint("let one join: ddr token create");
    }
    let lost: Vec<String> = reach
        .peers
        .iter()
        .filter(|peer| !peer.is_reached())
        .map(|peer| {
            let id: String = peer.node_id.chars().take(12).collect();
            let why = peer.dialled.iter().map(super::facts::Dial::shown).collect::<Vec<_>>();
            format!("{id} at {}", if why.is_empty() { "no address".into() } else { why.join(", ") })
        })
        .collect();
    let asked = reach.peers.len();
    let found =
        format!("{} of {asked} peers reached by a new connection{}", asked - lost.len(), of(reach));
    match lost.len() {
        0 => Finding::ok(CHECK, found),
        all if all == asked => Finding::fail(CHECK, format!("{found}: {}", named(&lost)), OPEN),
        _ => Finding::warn(CHECK, format!("{found}; not {}", named(&lost)), OPEN),
    }
}

/// Whether the others reach this node, where they were told that it is.
#[must_use]
pub fn inward(reach: &Reach) -> Finding {
    const CHECK: &str = "reached by peers";
    if reach.peers.is_empty() {
        return Finding::skip(CHECK, LONE);
    }
    let (mut back, mut lost, mut silent) = (0, Vec::new(), Vec::new());
    for peer in &reach.peers {
        if peer.dialled_back.iter().any(super::facts::Dial::reached) {
            back += 1;
        } else if let Some(dial) = peer.dialled_back.last() {
            lost.push(format!("{} dialled {}", peer.shown(), dial.shown()));
        } else {
            let why = peer.no_dial_back.as_deref().unwrap_or("it did not say");
            silent.push(format!("{}: {why}", peer.shown()));
        }
    }
    let dialled = back + lost.len();
    let mut found = format!("{back} of {dialled} peers that dialled back reached this node");
    if !silent.is_empty() {
        found.push_str(&format!("; {} did not dial ({})", silent.len(), named(&silent)));
    }
    match (back, lost.len()) {
        (0, 0) => Finding::skip(CHECK, found),
        (_, 0) => Finding::ok(CHECK, found),
        (0, _) => Finding::fail(CHECK, format!("{found}: {}", named(&lost)), ADVERTISE),
        _ => Finding::warn(
            CHECK,
            format!("{found}; not {}", named(&lost)),
            "is TCP to this node's peer port open from there? A firewall between the two, or an address that is not \
             the same everywhere: ddrd --peer-advertise ADDR:PORT",
        ),
    }
}

/// How many were asked of how many, where these are not all.
fn of(reach: &Reach) -> String {
    match reach.known > reach.peers.len() {
        true => format!(" (a choice of {} that are known)", reach.known),
        false => String::new(),
    }
}

fn named(all: &[String]) -> String {
    let shown = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::facts::Dial;
    use super::*;

    fn dial(outcome: &str) -> Vec<Dial> {
        vec![Dial { address: "192.0.2.7:5001".parse().unwrap(), outcome: outcome.into() }]
    }

    fn peer(there: &str, back: &str, ahead_ms: i64) -> PeerReach {
        PeerReach {
            node_id: "0123456789abcdef".into(),
            dialled: dial(there),
            clock_ahead_ms: Some(ahead_ms),
            round_trip_us: Some(4_000),
            dialled_back: dial(back),
            no_dial_back: None,
        }
    }

    fn peers(peers: Vec<PeerReach>) -> Reach {
        Reach { known: peers.len(), peers }
    }

    fn clocks(ahead_ms: &[i64]) -> Finding {
        let all = ahead_ms.iter().map(|ms| peer("reached", "reached", *ms)).collect();
        clock(&peers(all), 0)
    }

    #[test]
    fn clocks_that_agree_and_those_that_do_not() {
        assert_eq!(clocks(&[-40, 0, 900]).state, State::Ok);
        assert_eq!(clocks(&[1_100, 1_200, 1_300]).state, State::Warn);
        assert_eq!(clocks(&[-31_000, -31_000, -40_000]).state, State::Fail);
        assert_eq!(clocks(&[31_000]).state, State::Fail);
        assert_eq!(clocks(&[]).state, State::Skip);
        let one = clocks(&[0, 10, 90_000]);
        assert_eq!(one.state, State::Warn, "this node is not the one that is wrong");
        assert!(one.advice.unwrap().contains("the clock of that node"));
        assert!(one.found.contains("median +10 ms, worst +90.0 s"), "{}", one.found);
    }

    #[test]
    fn a_slow_way_is_no_wrong_clock() {
        let slow =
            PeerReach { round_trip_us: Some(3_000_000), ..peer("reached", "reached", 1_400) };
        assert_eq!(clock(&peers(vec![slow.clone()]), 0).state, State::Ok);
        let off = PeerReach { clock_ahead_ms: Some(2_600), ..slow };
        assert_eq!(clock(&peers(vec![off]), 0).state, State::Warn);
    }

    #[test]
    fn a_clock_that_was_set_after_the_start_is_said() {
        let reach = peers(vec![peer("reached", "reached", 0)]);
        assert_eq!(clock(&reach, 900).state, State::Ok);
        assert_eq!(clock(&reach, -1_000).state, State::Warn);
        assert_eq!(clock(&reach, 40_000).state, State::Fail);
    }

    #[test]
    fn the_way_there() {
        let state = |peers_: Vec<PeerReach>| outward(&peers(peers_)).state;
        assert_eq!(state(vec![]), State::Skip);
        let (well, lost) = (peer("reached", "", 0), peer("silent", "", 0));
        assert_eq!(state(vec![well.clone(), well.clone()]), State::Ok);
        assert_eq!(state(vec![lost.clone(), lost.clone()]), State::Fail);
        let half = outward(&peers(vec![well.clone(), lost]));
        assert_eq!(half.state, State::Warn);
        assert!(half.found.contains("1 of 2") && half.found.contains("no answer"), "{half:?}");
        let many = Reach { known: 500, peers: vec![well] };
        assert!(outward(&many).found.contains("a choice of 500"));
    }

    #[test]
    fn the_way_back() {
        let state = |peers_: Vec<PeerReach>| inward(&peers(peers_)).state;
        assert_eq!(state(vec![]), State::Skip);
        let (well, lost) = (peer("reached", "reached", 0), peer("reached", "refused", 0));
        assert_eq!(state(vec![well.clone()]), State::Ok);
        assert_eq!(state(vec![well.clone(), lost.clone()]), State::Warn);
        let fails = inward(&peers(vec![lost.clone(), lost]));
        assert_eq!(fails.state, State::Fail);
        assert!(fails.found.contains("192.0.2.7:5001: nobody listens there"), "{}", fails.found);
        assert!(fails.advice.unwrap().contains("--peer-advertise"));
        let older = PeerReach { dialled_back: Vec::new(), ..well.clone() };
        assert_eq!(state(vec![older.clone()]), State::Skip);
        assert_eq!(state(vec![well, older]), State::Ok);
    }
}
