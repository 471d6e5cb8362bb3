//! How large a blob is, asked of a holder.
//!
//! The answer also says that the holder links the blob in that repository. "Nobody" is said only
//! when all holders said no: where one failed, the truth is not known.

use std::sync::Arc;

use ddr_net::GetError;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::wire::Contact;

use super::around::{self, Answer, Outcome};
use super::{Shared, SizeAnswer, cold};
use crate::ReadError;

/// The size as the first holder tells it that has the blob in `repository`.
pub(super) async fn size(
    shared: Arc<Shared>,
    repository: RepositoryName,
    digest: Digest,
) -> SizeAnswer {
    let mut sources = shared.sources(&digest);
    let path = ddr_net::blob_path(&digest, Some(&repository));
    let (shared, path) = (&shared, &path);
    let question = |peer| async move { ask(shared, path, &peer).await };
    match around::ask(&mut sources, question).await {
        Outcome { given: Some((size, _)), .. } => Ok(Some(size)),
        Outcome { any_failed: true, .. } => {
            Err(ReadError::Unavailable("nodes that hold the blob did not answer".into()))
        }
        Outcome { .. } => cold::size(shared, &repository, &digest).await,
    }
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
    let path = &path;
    let question = |peer| async move {
        match ask(shared, path, &peer).await {
            Answer::Given(size) if Some(size) == but => Answer::Useless,
            answer => answer,
        }
    };
    match around::ask(&mut sources, question).await.given {
        Some((size, peer)) => First::Size(size, peer),
        None if sources.any_failed() => First::Unknown,
        None => First::Absent,
    }
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
    let Answer::Given(told) = ask(shared, &path, teller).await else { return };
    if let Some(addr) = teller.addrs.first().filter(|_| told != size) {
        shared.peers.strike(teller.id, *addr, WRONG_SIZE);
    }
}

async fn ask(shared: &Shared, path: &str, peer: &Contact) -> Answer<u64> {
    for addr in peer.addrs.iter().copied() {
        match shared.client.head(addr, Some(peer.id), path).await {
            Ok(head) => return Answer::Given(head.size),
            Err(GetError::NotFound) => return Answer::Absent,
            Err(error) => tracing::debug!(path, %addr, %error, "a holder did not answer"),
        }
    }
    Answer::Failed
}
