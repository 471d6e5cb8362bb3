//! How large a blob is, asked of a holder.
//!
//! The answer also says that the holder links the blob in that repository. "Nobody" is said only
//! when all holders said no: where one failed, the truth is not known.

use std::sync::Arc;

use ddr_net::GetError;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::wire::Contact;

use super::{Shared, SizeAnswer};
use crate::ReadError;

/// Failed questions before no more are asked. A holder that says no is no failure: of those there
/// are no more than lookups find.
const MAX_FAILED: usize = 6;

/// The size as the first holder tells it that has the blob in `repository`.
pub(super) async fn size(
    shared: Arc<Shared>,
    repository: RepositoryName,
    digest: Digest,
) -> SizeAnswer {
    let mut sources = shared.sources(&digest);
    let path = ddr_net::blob_path(&digest, Some(&repository));
    let mut failed = 0;
    while failed < MAX_FAILED {
        let Some(peer) = sources.next().await else { break };
        match ask(&shared, &path, &peer).await {
            Answer::Size(size) => return Ok(Some(size)),
            Answer::Absent => sources.dismiss(&peer.id),
            Answer::Failed => failed += 1,
        }
    }
    if failed > 0 {
        return Err(ReadError::Unavailable("nodes that hold the blob did not answer".into()));
    }
    Ok(None)
}

/// Why a peer is struck whose size was wrong.
pub(super) const WRONG_SIZE: &str = "the size it told was wrong";

/// What [`first_size`] found.
pub(super) enum First {
    /// In bytes, and who told it.
    Size(u64, Contact),
    /// Nobody has it.
    Absent,
    /// Somebody has it, and nobody told a usable size.
    Unknown,
}

/// The size as the first holder tells it that has at least a part of the blob in `repository`, for a
/// fetch; other than `but`, which nobody could fill.
pub(super) async fn first_size(
    shared: &Shared,
    repository: &RepositoryName,
    digest: &Digest,
    but: Option<u64>,
) -> First {
    let mut sources = shared.sources(digest);
    let path = ddr_net::any_piece_path(digest, repository);
    let mut failed = 0;
    while failed < MAX_FAILED {
        let Some(peer) = sources.next().await else { break };
        match ask(shared, &path, &peer).await {
            Answer::Size(size) if Some(size) != but => return First::Size(size, peer),
            Answer::Size(_) => sources.give_up(&peer.id),
            Answer::Absent => sources.dismiss(&peer.id),
            Answer::Failed => failed += 1,
        }
    }
    if sources.any_failed() { First::Unknown } else { First::Absent }
}

/// The digest is proven, and with it the size: who told another one is struck if it says that it has
/// all of the blob. With a part of it, it was misled itself.
pub(super) async fn blame(
    shared: &Shared,
    (repository, digest): (&RepositoryName, &Digest),
    size: u64,
    teller: &Contact,
) {
    let path = ddr_net::blob_path(digest, Some(repository));
    let Answer::Size(told) = ask(shared, &path, teller).await else { return };
    if let Some(addr) = teller.addrs.first().filter(|_| told != size) {
        shared.peers.strike(teller.id, *addr, WRONG_SIZE);
    }
}

/// How one peer answered.
enum Answer {
    Size(u64),
    Absent,
    Failed,
}

async fn ask(shared: &Shared, path: &str, peer: &Contact) -> Answer {
    for addr in peer.addrs.iter().copied() {
        match shared.client.head(addr, Some(peer.id), path).await {
            Ok(head) => return Answer::Size(head.size),
            Err(GetError::NotFound) => return Answer::Absent,
            Err(error) => tracing::debug!(path, %addr, %error, "a holder did not answer"),
        }
    }
    Answer::Failed
}
