//! How large a blob is, asked of a holder.
//!
//! The answer also says that the holder links the blob in that repository.

use std::sync::Arc;

use ddr_net::GetError;
use ddr_oci::{Digest, RepositoryName};

use super::{Shared, SizeAnswer};

/// Holders that are asked before the answer is "nobody".
const MAX_ASKED: usize = 6;

/// The size as the first holder tells it that has the blob in `repository`.
pub(super) async fn size(
    shared: Arc<Shared>,
    repository: RepositoryName,
    digest: Digest,
) -> SizeAnswer {
    let mut sources = shared.sources(&digest);
    let path = ddr_net::blob_path(&digest, Some(&repository));
    for _ in 0..MAX_ASKED {
        let Some(peer) = sources.next().await else { return Ok(None) };
        for addr in peer.addrs.iter().copied() {
            match shared.client.head(addr, Some(peer.id), &path).await {
                Ok(head) => return Ok(Some(head.size)),
                Err(GetError::NotFound) => {
                    sources.dismiss(&peer.id);
                    break;
                }
                Err(error) => tracing::debug!(%digest, %addr, %error, "a holder did not answer"),
            }
        }
    }
    Ok(None)
}
