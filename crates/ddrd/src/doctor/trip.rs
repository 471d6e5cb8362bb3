//! A blob's way to another node and back out of the world.

use super::{Finding, span};

const CHECK: &str = "round trip";

/// The repository that the blobs of a round trip are in. Nothing else should be.
pub const REPOSITORY: &str = "ddr-doctor";

/// What a round trip did, as far as it came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trip {
    /// Bytes of content pushed.
    pub bytes: u64,
    /// How long the push took.
    pub pushed_ms: u64,
    /// Who read it, and how long it took until it was there.
    pub read_by: Option<(String, u64)>,
    /// The step that failed, and why.
    pub failed: Option<(Step, String)>,
    /// Why what was pushed could not be deleted again; the manifest in question.
    pub left: Option<(String, String)>,
}

/// What was under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// To this node's registry port.
    Push,
    /// Another node brings it to its disk.
    Read,
}

/// Why there was no round trip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoTrip {
    /// There is no daemon, or it is not ready.
    NotReady,
    /// Nobody to read it.
    Lone,
    /// The registry speaks TLS.
    Tls,
    /// Pushes land in a registry beside the node, which may not delete.
    Beside,
    /// A pull is under way, of which there is one at a time.
    Busy,
}

/// Whether content gets from here to another node.
#[must_use]
pub fn judge(trip: Result<&Trip, NoTrip>) -> Finding {
    match trip {
        Err(NoTrip::NotReady) => Finding::skip(CHECK, "the daemon is not ready"),
        Err(NoTrip::Lone) => {
            Finding::skip(CHECK, "no other node is known that could read anything")
        }
        Err(NoTrip::Tls) => {
            Finding::skip(CHECK, "the registry speaks TLS, which this check does not")
        }
        Err(NoTrip::Beside) => Finding::skip(
            CHECK,
            "pushes land in the registry beside this node, which may not delete them again",
        ),
        Err(NoTrip::Busy) => {
            Finding::skip(CHECK, "a pull is under way here, and there is one at a time")
                .hint("again when it has ended: ddr pull --stop ends it")
        }
        Ok(trip) => of(trip),
    }
}

fn of(trip: &Trip) -> Finding {
    if let Some((step, why)) = &trip.failed {
        return failed(trip, *step, why);
    }
    let (node, read_ms) = trip.read_by.clone().unwrap_or_default();
    let found = format!(
        "{} bytes pushed here in {}, read by {node} in {}",
        trip.bytes,
        span(trip.pushed_ms),
        span(read_ms)
    );
    match &trip.left {
        Some((digest, why)) => Finding::fail(
            CHECK,
            format!("{found}, but not deleted again: {why}"),
            format!("ddr rm {REPOSITORY}@{digest} --digest"),
        ),
        None => Finding::ok(CHECK, format!("{found}, deleted again")),
    }
}

fn failed(trip: &Trip, step: Step, why: &str) -> Finding {
    let left = match &trip.left {
        Some((digest, _)) => {
            format!("; and what was pushed is still there: ddr rm {REPOSITORY}@{digest} --digest")
        }
        None => String::new(),
    };
    match step {
        Step::Push => Finding::fail(
            CHECK,
            format!("the push to this node failed: {why}"),
            format!(
                "507: the disk is full. 503: nodes that keep the name or a copy are away, or cannot reach this one; see \
                 \"reaches peers\" and \"reached by peers\" above. The log says more: journalctl -u ddrd{left}"
            ),
        ),
        Step::Read => Finding::fail(
            CHECK,
            format!(
                "pushed here in {}, but another node did not get it: {why}",
                span(trip.pushed_ms)
            ),
            format!(
                "see \"reached by peers\" above: nodes read from each other at the advertised addresses; then the log of \
                 ddrd on both{left}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn trip() -> Trip {
        let read_by = Some(("0123456789ab at 10.0.0.2:5001".to_owned(), 12));
        Trip { bytes: 300, pushed_ms: 40, read_by, failed: None, left: None }
    }

    #[test]
    fn a_trip_that_went_well_says_who_read() {
        let found = judge(Ok(&trip()));
        assert_eq!(found.state, State::Ok);
        assert!(
            found.found.contains("read by 0123456789ab at 10.0.0.2:5001 in 12 ms"),
            "{found:?}"
        );
    }

    #[test]
    fn each_step_that_fails_says_what_to_do() {
        for (step, words) in [(Step::Push, "507"), (Step::Read, "reached by peers")] {
            let broken = Trip { failed: Some((step, "no".into())), ..trip() };
            let found = judge(Ok(&broken));
            assert_eq!(found.state, State::Fail);
            assert!(found.advice.unwrap().contains(words));
            let left = Trip { left: Some(("sha256:ab".into(), "why".into())), ..broken };
            assert!(judge(Ok(&left)).advice.unwrap().contains("ddr rm ddr-doctor@sha256:ab"));
        }
    }

    #[test]
    fn what_stays_behind_is_a_failure() {
        let left = Trip { left: Some(("sha256:ab".into(), "503".into())), ..trip() };
        let found = judge(Ok(&left));
        assert_eq!(found.state, State::Fail);
        assert_eq!(found.advice.unwrap(), "ddr rm ddr-doctor@sha256:ab --digest");
    }

    #[test]
    fn without_a_second_node_there_is_none() {
        for why in [NoTrip::NotReady, NoTrip::Lone, NoTrip::Tls, NoTrip::Beside, NoTrip::Busy] {
            assert_eq!(judge(Err(why)).state, State::Skip);
        }
    }
}
