//! Pieces, piece chains and messages of the swarm, of blobs that are here wholly or in part.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ddr_net::{ContentReply, ContentRequest, PeerInfo, Standing};
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::Key;
use ddr_proto::swarm::{Class, Refusal};
use ddr_proto::wire::{BusyAnswer, SignedChain, SwarmPost};
use ddr_store::BlobReader;
use futures_util::StreamExt;

use super::{Seed, failed};
use crate::blob::Blob;
use crate::blocking;
use crate::swarm::{Gathering, PieceRequest, Upload, Verdict, piece_at, piece_range};

/// A blob that one repository may read here.
enum Here {
    Whole(BlobReader),
    Part(Arc<Gathering>),
}

impl Here {
    fn size(&self) -> u64 {
        match self {
            Self::Whole(reader) => reader.size(),
            Self::Part(gathering) => gathering.size,
        }
    }

    /// The size, if all of it is here.
    fn whole(&self) -> Option<u64> {
        match self {
            Self::Whole(reader) => Some(reader.size()),
            Self::Part(_) => None,
        }
    }
}

impl Seed {
    /// Gives a piece, or the size of a blob that is here in part. `None`: the request is for neither,
    /// or for a whole blob that is not in part here.
    pub(super) async fn give_piece(
        &self,
        from: &PeerInfo,
        request: &ContentRequest,
        repository: &RepositoryName,
    ) -> Option<ContentReply> {
        // Every closed range could be a piece.
        let range = request.range.and_then(|(start, end)| Some(start..end?));
        if !request.any_piece && (range.is_none() || request.head_only) {
            return None;
        }
        let here = match self.find(request.digest, repository).await {
            Ok(Some(here)) => here,
            Ok(None) => return Some(ContentReply::NotFound),
            Err(error) => return Some(failed(&error)),
        };
        let size = here.size();
        if request.head_only {
            let (range, body) = (0..size, futures_util::stream::empty().boxed());
            return Some(ContentReply::Found { size, range, media_type: None, body });
        }
        let piece = range.and_then(|range| piece_at(size, &(range.start..range.end.min(size))));
        if piece.is_none() && !request.any_piece {
            // Some other part: of a whole blob only.
            return here.whole().is_none().then_some(ContentReply::NotFound);
        }
        let (digest, whole) = (request.digest, here.whole());
        let class = if request.background { Class::Background } else { Class::Pull };
        let bytes = piece_range(size, piece.unwrap_or(0));
        let leave = self.throttles.upload.try_take(bytes.end - bytes.start, class);
        let Some(leave) = leave else {
            return Some(ContentReply::Busy(BusyAnswer::default()));
        };
        let asked = PieceRequest { from: from.node, digest, whole, piece, class };
        Some(match self.pieces.request(asked).await {
            Some(Verdict::Serve(piece, upload)) => {
                leave.spend();
                self.serve(here, digest, piece_range(size, piece), upload)
            }
            Some(Verdict::Refuse(Refusal::Busy(answer))) => ContentReply::Busy(answer),
            // It is here: only the core has no place for it now.
            Some(Verdict::Refuse(Refusal::NotHere)) if whole.is_some() && piece.is_some() => {
                ContentReply::Busy(BusyAnswer::default())
            }
            Some(Verdict::Refuse(Refusal::NotHere)) | None => ContentReply::NotFound,
        })
    }

    fn serve(
        &self,
        here: Here,
        digest: Digest,
        range: Range<u64>,
        mut upload: Upload,
    ) -> ContentReply {
        let (size, buffers) = (here.size(), self.buffers.clone());
        let blob = match here {
            Here::Whole(reader) => Blob::stored(reader, buffers),
            Here::Part(gathering) => match gathering.reader() {
                Some(reader) => Blob::partial(reader, buffers),
                None => return ContentReply::NotFound,
            },
        };
        let pin = self.store.pin(&digest, 0);
        let mut left = range.end - range.start;
        self.traffic.served_request();
        let traffic = Arc::clone(&self.traffic);
        let body = blob.stream(range.clone()).inspect(move |chunk| {
            let _held = &pin;
            if let Ok(bytes) = chunk {
                left -= bytes.len() as u64;
                traffic.served(bytes.len() as u64);
            }
            if left == 0 {
                upload.finished();
            }
        });
        ContentReply::Found { size, range, media_type: None, body: body.boxed() }
    }

    /// Gives the chain of a blob: of a whole one signed by this node, of one on its way as it was
    /// signed by another.
    pub(super) async fn give_chain(
        &self,
        request: ContentRequest,
        repository: RepositoryName,
    ) -> ContentReply {
        let digest = request.digest;
        let signed = match self.find(digest, &repository).await {
            Ok(Some(Here::Whole(_))) => self.vouch(digest).await,
            Ok(Some(Here::Part(gathering))) => Ok(gathering.signed_chain()),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match signed {
            Ok(Some(signed)) => self.give_bytes(&request, Bytes::from(signed.encode()), None),
            Ok(None) => ContentReply::NotFound,
            Err(error) => failed(&error),
        }
    }

    async fn vouch(&self, digest: Digest) -> io::Result<Option<SignedChain>> {
        let (store, signer) = (self.store.clone(), self.signer.clone());
        let work = move || {
            let chain = store.piece_chain(&digest)?;
            let key = Key::of_content(&digest);
            Ok(chain.map(|chain| SignedChain::sign(&signer, &key, &chain)))
        };
        blocking(work).await?
    }

    /// Hands on what a peer says about a blob; false if it may not hear of that blob.
    pub(super) async fn hear(&self, from: PeerInfo, digest: Digest, post: SwarmPost) -> bool {
        if from.standing != Standing::Member || post.sender.id != from.node {
            return false;
        }
        let Ok(Some(here)) = self.find(digest, &post.repository).await else { return false };
        self.pieces.heard(digest, here.whole(), post).await;
        true
    }

    /// The blob as far as it is here, if `repository` has it.
    async fn find(&self, digest: Digest, repository: &RepositoryName) -> io::Result<Option<Here>> {
        let (store, name) = (self.store.clone(), repository.clone());
        let work = move || {
            if !store.is_linked(&name, &digest)? {
                return Ok::<_, io::Error>((false, None));
            }
            store.touch(&name, &digest);
            Ok((true, store.blob(&digest)?))
        };
        let (is_linked, whole) = blocking(work).await??;
        if let Some(reader) = whole {
            return Ok(Some(Here::Whole(reader)));
        }
        let gathering = self.pieces.gathering(&digest);
        let gathering = gathering.filter(|found| is_linked || found.admits(repository));
        Ok(gathering.map(Here::Part))
    }
}
