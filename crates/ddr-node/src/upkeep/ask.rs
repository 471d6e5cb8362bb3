//! Content that is needed here and lies elsewhere is asked for.
//!
//! Decides when: a manifest that was pushed here may need blobs that only another node holds, in
//! whose tables nothing refers to them. A question is a use, so it keeps them there. Every such
//! link is asked for at least once in [`ASK_WITHIN`] where there are no more than
//! [`MAX_PASS`] of them; beyond, the longer grace window of a swarm
//! ([`super::SWARM_GRACE`]) is what keeps them. It must never ask without a bound.

use std::time::Duration;

use ddr_oci::{Digest, RepositoryName};
use ddr_store::now_ms;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::{GC_GRACE, Upkeep};
use crate::blocking;

/// In what time each link is asked for again: half the grace window.
const ASK_WITHIN: Duration = Duration::from_secs(GC_GRACE.as_secs() / 2);
/// Time between two passes over all links; a pass may take as long again.
const PASS_EVERY: Duration = Duration::from_secs(ASK_WITHIN.as_secs() / 2);
/// Time between two rounds of a pass.
const ROUND_EVERY: Duration = Duration::from_secs(10 * 60);
/// Links that are asked for in one round.
const MAX_ASKED: usize = 4096;
/// Links that one pass gets through in its time.
const MAX_PASS: u64 = PASS_EVERY.as_secs() / ROUND_EVERY.as_secs() * MAX_ASKED as u64;
/// Questions under way at once.
const MAX_AT_ONCE: usize = 8;
/// How long a round may take; what was not asked then is asked in the next.
const ROUND_LIMIT: Duration = Duration::from_secs(9 * 60);
/// Where the place of a pass is kept.
const SETTING: &str = "asked";

/// Where a pass is. It goes on there after a restart.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pass {
    started_ms: u64,
    /// The last link that was asked for.
    after: Option<(String, Digest)>,
    done: bool,
}

impl Pass {
    /// Begins a new pass when its time has come; whether there is anything to do now.
    fn is_due(&mut self, now_ms: u64) -> bool {
        let every_ms = PASS_EVERY.as_millis() as u64;
        if self.done && self.started_ms.abs_diff(now_ms) >= every_ms {
            *self = Self::default();
        }
        if self.started_ms == 0 {
            self.started_ms = now_ms;
        }
        !self.done
    }

    /// Some of the links of a round, in order, were asked for: all of a round that was not
    /// full, and the pass is done.
    fn asked(&mut self, links: &[(RepositoryName, Digest)], count: usize) {
        if let Some((name, digest)) = links[..count].last() {
            self.after = Some((name.to_string(), *digest));
        }
        self.done = count == links.len() && links.len() < MAX_ASKED;
    }
}

impl Upkeep {
    /// Asks for all links, again and again, whether garbage is collected here or not.
    pub(super) async fn ask_regularly(&self) {
        tracing::debug!(MAX_PASS, "links that are asked for in time");
        let mut pass = self.pass().await;
        loop {
            tokio::time::sleep(ROUND_EVERY).await;
            if pass.is_due(now_ms()) && self.has_peers().await {
                self.ask_round(&mut pass).await;
                self.keep(&pass).await;
            }
        }
    }

    async fn ask_round(&self, pass: &mut Pass) {
        let store = self.shared.store.clone();
        let after = pass.after.as_ref();
        let after = after.and_then(|(name, digest)| Some((name.parse().ok()?, *digest)));
        let links = match blocking(move || store.links_without_content(after, MAX_ASKED)).await {
            Ok(Ok(links)) => links,
            Ok(Err(error)) => return tracing::warn!(%error, "links cannot be listed"),
            Err(error) => return tracing::warn!(%error, "links cannot be listed"),
        };
        let questions = links.clone().into_iter().map(|(name, digest)| async move {
            let answer = self.pull.size_elsewhere(&name, &digest).await;
            tracing::debug!(%name, %digest, ?answer, "asked for what only others hold");
        });
        let mut answers = std::pin::pin!(stream::iter(questions).buffered(MAX_AT_ONCE));
        let mut count = 0;
        let all = async {
            while answers.next().await.is_some() {
                count += 1;
            }
        };
        if tokio::time::timeout(ROUND_LIMIT, all).await.is_err() {
            tracing::warn!(asked = count, of = links.len(), "the rest is asked in the next round");
        }
        pass.asked(&links, count);
    }

    async fn pass(&self) -> Pass {
        let store = self.shared.store.clone();
        let saved = blocking(move || store.get_setting(SETTING)).await;
        let saved = saved.ok().and_then(Result::ok).flatten().unwrap_or_default();
        serde_json::from_slice(&saved).unwrap_or_default()
    }

    async fn keep(&self, pass: &Pass) {
        let Ok(bytes) = serde_json::to_vec(pass) else { return };
        let store = self.shared.store.clone();
        match blocking(move || store.set_setting(SETTING, &bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the place of the questions was not saved"),
            Err(error) => tracing::warn!(%error, "the place of the questions was not saved"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_is_asked_for_within_half_the_grace_window() {
        let name: RepositoryName = "app".parse().expect("valid");
        let total = MAX_PASS - 1;
        let link = |number: u64| (name.clone(), Digest::sha256(&number.to_be_bytes()));
        let (mut pass, mut now, mut next) = (Pass::default(), 1, 0_u64);
        let mut ends = Vec::new();
        while ends.len() < 3 {
            now += ROUND_EVERY.as_millis() as u64;
            if pass.is_due(now) {
                if pass.after.is_none() {
                    next = 0;
                }
                let links: Vec<_> = (next..total).take(MAX_ASKED).map(link).collect();
                next += links.len() as u64;
                pass.asked(&links, links.len());
                if pass.done {
                    assert_eq!(next, total, "none is left out");
                    ends.push(now);
                }
            }
        }
        let longest = ends.windows(2).map(|two| two[1] - two[0]).max().expect("three");
        assert!(longest <= ASK_WITHIN.as_millis() as u64, "{longest}");
    }

    #[test]
    fn a_round_that_was_cut_short_goes_on_where_it_was() {
        let name: RepositoryName = "app".parse().expect("valid");
        let links: Vec<_> = (0..3_u8).map(|n| (name.clone(), Digest::sha256(&[n]))).collect();
        let mut pass = Pass::default();
        assert!(pass.is_due(1));
        pass.asked(&links, 2);
        assert_eq!((pass.done, &pass.after), (false, &Some(("app".into(), links[1].1))));
        pass.asked(&links[2..], 1);
        assert!(pass.done && !pass.is_due(2));
        assert!(pass.is_due(1 + PASS_EVERY.as_millis() as u64));
        assert_eq!(pass.after, None);
    }
}
