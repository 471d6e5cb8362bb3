//! A blob is brought here whole, without a client that reads it.

use ddr_oci::{Digest, RepositoryName};

use super::places::Purpose;
use super::progress::Phase;
use super::{FETCH_FAILED, MAX_ROUNDS, Place, Pull, Reach};
use crate::ReadError;

impl Pull {
    /// Fetches a blob that `repository` links and that is not here; whether it is here now.
    pub(crate) async fn bring(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, ReadError> {
        for _ in 0..MAX_ROUNDS {
            if self.is_here(digest).await? {
                return Ok(true);
            }
            match self.place(repository, digest, Reach::Swarm).await? {
                Place::Nowhere => return Ok(false),
                Place::LookAgain => {}
                Place::Arriving(slot) => {
                    let mut arriving = slot.arriving(Purpose::Store);
                    match arriving.wait_ended().await {
                        Phase::Absent => return Ok(false),
                        Phase::Failed(_) => {
                            return Err(ReadError::Unavailable(FETCH_FAILED.into()));
                        }
                        Phase::Running | Phase::Committed | Phase::Left => {}
                    }
                }
            }
        }
        self.is_here(digest).await
    }
}
