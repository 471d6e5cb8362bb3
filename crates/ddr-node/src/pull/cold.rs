//! Content of mirrored repositories that no node of the swarm has: from the registry that it belongs to.
//!
//! Decides who asks it: the wardens of the content, in their order, then this node itself (docs/mirror.md). So a
//! blob that many nodes ask for at once comes once, and is given on while it arrives. What a registry sends is
//! proven like what a peer sends.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ddr_net::GetError;
use ddr_oci::{Digest, Manifest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::wire::Contact;
use ddr_upstream::{BlobBody, UpstreamError};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::fetch;
use super::filling::{Answer, Filling, Giver, Leg, Unfit};
use super::manifests;
use super::progress::Phase;
use super::slot::Slot;
use super::{ManifestAnswer, Reach, Shared, SizeAnswer};
use crate::mirror::{Source, Warden};
use crate::{ManifestContent, ReadError, blocking};

/// Times a registry is asked to go on in the middle of one blob.
const MAX_RESUMES: u32 = 5;
/// How long to wait when a warden gives to too many already.
const BUSY_WAIT: Duration = Duration::from_millis(200);
/// Such waits in one fetch: as long as it may take until others can give on what they have.
const MAX_BUSY_WAITS: u32 = 150;

/// Nodes that are asked in place of a warden that gives to many.
const MAX_RELAYS_ASKED: usize = 64;

/// How a try ended when it did not succeed.
enum End {
    Absent,
    Failed(String),
}

/// Brings a blob that nobody here has. `None`: its repository is not mirrored.
pub(super) async fn bring(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    repository: &RepositoryName,
    reach: Reach,
) -> Option<Phase> {
    let source = shared.mirror.source(repository)?;
    if came_meanwhile(shared, slot, repository).await {
        return Some(Phase::Committed);
    }
    let wardens = wardens(shared, &Key::of_content(&slot.digest), reach).await;
    let filling = Filling::new(Arc::clone(shared), Arc::clone(slot), repository.clone());
    let relays = BTreeSet::new();
    let mut job =
        Job { filling, source, wardens, relays, resumes: 0, busy_waits: 0, last_failure: None };
    Some(match job.attempt().await {
        Ok(()) => Phase::Committed,
        Err(End::Absent) => Phase::Absent,
        Err(End::Failed(why)) => Phase::Failed(why.into()),
    })
}

/// Whether another fetch has brought the blob for this repository since it was looked for: two must not ask a
/// registry one after the other.
async fn came_meanwhile(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    repository: &RepositoryName,
) -> bool {
    let (store, name, digest) = (shared.store.clone(), repository.clone(), slot.digest);
    let here = move || {
        store.is_linked(&name, &digest).is_ok_and(|linked| linked)
            && store.blob(&digest).is_ok_and(|blob| blob.is_some())
    };
    blocking(here).await.is_ok_and(|here| here)
}

async fn wardens(shared: &Shared, key: &Key, reach: Reach) -> VecDeque<Warden> {
    match reach {
        Reach::Swarm => shared.mirror.line(key).await.into(),
        Reach::Upstream => VecDeque::from([Warden::Own]),
    }
}

struct Job {
    filling: Filling,
    source: Source,
    wardens: VecDeque<Warden>,
    /// Who was named by a warden that gives to many.
    relays: BTreeSet<NodeId>,
    resumes: u32,
    busy_waits: u32,
    last_failure: Option<String>,
}

impl Job {
    /// One try from byte 0 to a proven digest.
    async fn attempt(&mut self) -> Result<(), End> {
        let gathered = self.gather().await;
        // Also after a failure: the file must be let go before the next fetch of this digest.
        let Some(fetch) = self.filling.finish().await else {
            return gathered.and(Err(End::Failed("nothing was written".into())));
        };
        gathered?;
        let committed = match fetch {
            Ok(fetch) => self.filling.commit(fetch).await,
            Err(error) => Err(error),
        };
        committed.map_err(|unfit| match unfit {
            Unfit::Failed(why) => End::Failed(why),
            Unfit::Mismatch => {
                self.filling.convict();
                End::Failed("the content was wrong".into())
            }
        })
    }

    async fn gather(&mut self) -> Result<(), End> {
        while let Some(warden) = self.wardens.front().cloned() {
            let before = self.filling.offset();
            let leg = match &warden {
                Warden::Own => self.registry().await,
                Warden::Peer(peer) => self.peer(peer).await,
            };
            let went_on = self.filling.offset() > before;
            match leg {
                Leg::Complete => return Ok(()),
                // A warden says so after it has asked the registry.
                Leg::Absent => return Err(End::Absent),
                Leg::Stop(why) => return Err(End::Failed(why)),
                Leg::Busy(others) if self.busy_waits < MAX_BUSY_WAITS => {
                    self.busy_waits += 1;
                    if !self.ask_instead(others) {
                        tokio::time::sleep(BUSY_WAIT).await;
                        self.relays.clear();
                    }
                    continue;
                }
                Leg::Busy(_) => {}
                Leg::OtherSize => self.failed("it tells another size".into()),
                Leg::Broken(why) | Leg::TooLarge(why) => self.failed(why),
            }
            // Whose connection broke may go on where it was.
            if went_on && self.resumes < MAX_RESUMES {
                self.resumes += 1;
            } else {
                self.wardens.pop_front();
            }
        }
        Err(End::Failed(self.last_failure.take().unwrap_or_else(|| "nobody could be asked".into())))
    }

    /// Who gives to many already names some of these: they are asked before it is asked again. False: there
    /// is nobody new.
    fn ask_instead(&mut self, others: Vec<Contact>) -> bool {
        let own = self.filling.shared.own.id;
        let mut any = false;
        for other in others {
            let is_new = other.id != own && self.relays.insert(other.id);
            if is_new && self.relays.len() <= MAX_RELAYS_ASKED {
                self.wardens.push_front(Warden::Peer(other));
                any = true;
            }
        }
        any
    }

    fn failed(&mut self, why: String) {
        let (digest, host) = (&self.filling.slot.digest, &self.source.host);
        tracing::debug!(%digest, %host, why, "a blob did not come");
        self.last_failure = Some(why);
    }

    async fn peer(&mut self, peer: &Contact) -> Leg {
        let Filling { slot, repository, .. } = &self.filling;
        let path = ddr_net::from_upstream(ddr_net::blob_path(&slot.digest, Some(repository)));
        fetch::leg(&mut self.filling, peer, &path).await
    }

    async fn registry(&mut self) -> Leg {
        let (start, digest) = (self.filling.offset(), self.filling.slot.digest);
        let asked = self.source.upstream.blob(&self.source.repository, &digest, start).await;
        match self.filling.shared.mirror.heard(&self.source, asked) {
            Ok(Some(body)) => self.filling.read(answer(body, start)).await,
            Ok(None) => Leg::Absent,
            Err(error) => Leg::Broken(error.to_string()),
        }
    }
}

fn answer(body: BlobBody, start: u64) -> Answer {
    Answer { giver: Giver::Upstream, size: body.size, bytes: from(body, start) }
}

/// The bytes from `start` on, also of a registry that began before that.
pub(crate) fn from(body: BlobBody, start: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let BlobBody { start: begins, bytes, .. } = body;
    let mut skip = start.saturating_sub(begins);
    let bytes = bytes.map(move |bytes| {
        let mut bytes = bytes.map_err(io::Error::other)?;
        let skipped = skip.min(bytes.len() as u64);
        skip -= skipped;
        // At most the length of the bytes, which is a usize.
        Ok(bytes.split_off(skipped as usize))
    });
    bytes.boxed()
}

/// A manifest that nobody here has, stored here. `None` also where its repository is not mirrored.
pub(super) async fn manifest(
    shared: &Arc<Shared>,
    repository: &RepositoryName,
    digest: &Digest,
    reach: Reach,
) -> ManifestAnswer {
    let Some(source) = shared.mirror.source(repository) else { return Ok(None) };
    // It may have come since it was looked for: two must not ask a registry one after the other.
    if let Some(here) = manifests::stored(shared, repository, digest).await? {
        return Ok(Some(here));
    }
    let mut failure = None;
    for warden in wardens(shared, &Key::of_content(digest), reach).await {
        let given = match warden {
            Warden::Own => from_registry(shared, &source, digest).await,
            Warden::Peer(peer) => from_warden(shared, repository, digest, &peer).await,
        };
        match given {
            Ok(Some((content, manifest))) => {
                manifests::keep_or_log(shared, repository, &content, &manifest).await;
                return Ok(Some(content));
            }
            Ok(None) => return Ok(None),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| ReadError::Unavailable("nobody could be asked".into())))
}

async fn from_registry(
    shared: &Shared,
    source: &Source,
    digest: &Digest,
) -> Result<Option<manifests::Given>, ReadError> {
    let asked = source.upstream.manifest(&source.repository, digest).await;
    match shared.mirror.heard(source, asked) {
        Ok(Some(given)) => parse(source, given).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(source.read_error(&error)),
    }
}

/// What a registry gave, as this node keeps it.
pub(crate) fn parse(
    source: &Source,
    given: ddr_upstream::Manifest,
) -> Result<manifests::Given, ReadError> {
    let ddr_upstream::Manifest { digest, media_type, bytes } = given;
    let manifest = Manifest::parse(Some(&media_type), &bytes)
        .map_err(|error| source.read_error(&UpstreamError::Lied(error.to_string())))?;
    let media_type = manifest.media_type.clone();
    let content = ManifestContent { digest, media_type, bytes, is_stale: false };
    Ok((content, Box::new(manifest)))
}

async fn from_warden(
    shared: &Shared,
    repository: &RepositoryName,
    digest: &Digest,
    peer: &Contact,
) -> Result<Option<manifests::Given>, ReadError> {
    let path = ddr_net::from_upstream(ddr_net::manifest_path(digest, Some(repository)));
    for addr in peer.addrs.iter().copied() {
        match shared.client.get(addr, Some(peer.id), &path, None).await {
            Ok(body) => {
                return match manifests::check(shared, repository, digest, addr, body).await {
                    super::around::Answer::Given(given) => Ok(Some(given)),
                    _ => Err(ReadError::Unavailable("a node gave a wrong manifest".into())),
                };
            }
            Err(GetError::NotFound) => return Ok(None),
            Err(error) => tracing::debug!(%digest, %addr, %error, "a warden did not answer"),
        }
    }
    Err(ReadError::Unavailable("the node that asks the registry did not answer".into()))
}

/// The size of a blob that nobody here has. `None` also where its repository is not mirrored.
pub(super) async fn size(
    shared: &Shared,
    repository: &RepositoryName,
    digest: &Digest,
) -> SizeAnswer {
    let Some(source) = shared.mirror.source(repository) else { return Ok(None) };
    let asked = source.upstream.blob_size(&source.repository, digest).await;
    shared.mirror.heard(&source, asked).map_err(|error| source.read_error(&error))
}
