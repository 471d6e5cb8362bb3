//! What a tag pointed to, as far as its voters remember.
//!
//! Decides nothing about what holds now. A record that came too late, of two pushes at the same time,
//! stands among the older ones as if the tag had pointed to it.

use ddr_oci::{RepositoryName, Tag};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::names;
use ddr_proto::wire::{MAX_HISTORY, NameRecord};
use tokio::time::Instant;

use super::vote::{Answer, Poll};
use super::{LIMIT, Names, Parts};
use crate::{ReadError, TagVersion, blocking};

impl Names {
    /// What `tag` points to and pointed to, newest first, at most [`MAX_HISTORY`].
    pub(crate) async fn history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Vec<TagVersion>, ReadError> {
        let _turn = self.turns.acquire().await.map_err(ReadError::store)?;
        let records = self.parts.history(Key::of_name(repository, tag)).await?;
        Ok(records.iter().map(version).collect())
    }
}

fn version(record: &NameRecord) -> TagVersion {
    TagVersion {
        digest: record.digest.map(|digest| digest.to_string()),
        at_ms: names::stamp_ms(record.stamp),
        writer: NodeId::of_public_key(&record.writer).to_string(),
    }
}

impl Parts {
    /// All that the voters say, which must be enough of them to know what holds now.
    async fn history(&self, key: Key) -> Result<Vec<NameRecord>, ReadError> {
        let voters = self.voters(&key).await?;
        let mut poll = Poll::history(self, key, &voters);
        let mut found = Vec::<NameRecord>::new();
        let (mut answered, mut abstained) = (0, 0);
        let limit = Instant::now() + LIMIT;
        while let Ok(Some((_, answer))) = tokio::time::timeout_at(limit, poll.next()).await {
            let records = match answer {
                Answer::Said(records) => records,
                Answer::Abstained => {
                    abstained += 1;
                    continue;
                }
                Answer::Doubtful | Answer::Failed => continue,
            };
            answered += 1;
            let fresh = records.into_iter().filter(|record| !found.contains(record)).collect();
            found.extend(verified(key, fresh).await);
        }
        // As in a read: who joined lately counts when nobody is left who could know more.
        if answered + abstained == voters.all.len() {
            answered += abstained;
        }
        let needed = names::read_quorum(voters.all.len());
        if answered < needed {
            let counts = (answered, voters.all.len(), needed);
            return Err(self.too_few("that keep this tag answered", counts));
        }
        found.sort_by(|one, two| two.cmp_newness(one));
        found.truncate(MAX_HISTORY);
        Ok(found)
    }
}

/// Those that are of this name and signed as they say.
async fn verified(key: Key, records: Vec<NameRecord>) -> Vec<NameRecord> {
    let speaks = move |record: &NameRecord| record.key() == key && record.verify().is_ok();
    blocking(move || records.into_iter().filter(speaks).collect()).await.unwrap_or_default()
}
