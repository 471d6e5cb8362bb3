//! An image is brought to this disk, and to those of other nodes, before anybody reads it.
//!
//! Decides whom to ask beside this node, and what is told of it all. The content comes by ordinary
//! fetches under the repository of the image, so nothing is trusted that a client would not be given.
//! Of other members it asks the same; what they are asked for here goes on when the asker is gone.

mod choice;
mod image;
mod orders;
mod others;
mod parts;

use std::sync::Arc;
use std::time::Duration;

use ddr_oci::{Digest, ImageReference, Platform};
use ddr_proto::wire::PreheatOrder;
use serde::Serialize;

pub use choice::{PullNodes, PullNodesError};
pub(crate) use orders::Orders;

use crate::job::{Board, Ended, Job, JobBusy, JobKind, JobStatus};
use crate::names::Names;
use crate::overlay::OverlayHandle;
use crate::pull::{Pull, Shared, by_reference};
use image::{Bringer, Wanted};
use others::{Other, OtherState, Others};
use parts::{Part, Parts as ImageParts};

/// How often the run is told about.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How long a run waits for its place: none is in the background.
const PATIENCE: Duration = Duration::ZERO;

/// An image to be brought here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PullRequest {
    /// Which; its host counts where it is a registry that is mirrored.
    pub image: ImageReference,
    /// Of an index only the members for it; all without.
    pub platform: Option<Platform>,
    /// Where else to.
    pub nodes: PullNodes,
}

/// What the runs are made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) pull: Arc<Pull>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) names: Arc<Names>,
    pub(crate) overlay: OverlayHandle,
}

/// See the module comment.
pub(crate) struct Preheat {
    runner: Runner,
    board: Board,
    orders: Arc<Orders>,
}

impl Preheat {
    pub(crate) fn new(parts: Parts) -> Self {
        let bringer = Bringer { pull: Arc::clone(&parts.pull), shared: Arc::clone(&parts.shared) };
        let orders = Arc::new(Orders::new(bringer.clone()));
        Self { runner: Runner { parts, bringer }, board: Board::new(JobKind::Pull), orders }
    }

    /// Where the runs of this node are noted.
    pub(crate) const fn board(&self) -> &Board {
        &self.board
    }

    /// What other members ask for.
    pub(crate) fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.orders)
    }

    /// Begins to bring an image here.
    pub(crate) async fn start(&self, request: PullRequest) -> Result<JobStatus, JobBusy> {
        let job = self.board.take_over(PATIENCE).await?;
        let (runner, status) = (self.runner.clone(), job.status());
        tokio::spawn(async move {
            let mut stopped = runner.parts.shared.stopped.clone();
            let work = job.unless_stopped(runner.run(&job, &request));
            let ended = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => Err("the node stops".into()),
                ended = work => ended.unwrap_or(Ok(Ended { stopped: true, damage: false })),
            };
            job.end(ended);
        });
        Ok(status)
    }
}

/// The report of a run.
#[derive(Serialize)]
struct Report<'a> {
    image: String,
    digest: Digest,
    parts: &'a [Part],
    nodes: &'a [Other],
}

/// Does the work of one run.
#[derive(Clone)]
struct Runner {
    parts: Parts,
    bringer: Bringer,
}

impl Runner {
    async fn run(&self, job: &Job, request: &PullRequest) -> Result<Ended, String> {
        let others = Others::new(self.choose(&request.nodes).await?);
        let manifest = self.resolve(&request.image).await?;
        let (repository, platform) = (request.image.repository.clone(), request.platform.clone());
        let order = PreheatOrder {
            run: run_id()?,
            repository: repository.clone(),
            manifest,
            platform: platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let wanted = Wanted { repository, manifest, platform };
        let here = ImageParts::default();
        let caller = self.parts.names.caller();
        let work = async {
            tokio::join!(self.bringer.bring(&wanted, &here), others.ask(caller, &order));
        };
        let tell = || {
            let (parts, nodes) = (here.now(&self.parts.pull), others.now());
            let image = request.image.to_string();
            let report = Report { image, digest: manifest, parts: &parts, nodes: &nodes };
            job.tell(&"fetching", parts::bytes(&parts), &report);
            parts::any_failed(&parts) || nodes.iter().any(|node| node.state == OtherState::Failed)
        };
        let mut work = std::pin::pin!(work);
        while tokio::time::timeout(TELL_EVERY, &mut work).await.is_err() {
            tell();
        }
        let damage = tell();
        Ok(Ended { stopped: false, damage })
    }

    async fn choose(&self, nodes: &PullNodes) -> Result<Vec<ddr_proto::wire::Contact>, String> {
        let mut known = self.parts.overlay.view().await.contacts;
        known.retain(|peer| !self.parts.shared.peers.refused(&peer.contact.id));
        nodes.choose(known, || getrandom::u32().unwrap_or_default())
    }

    /// The manifest that the image is now.
    async fn resolve(&self, image: &ImageReference) -> Result<Digest, String> {
        let (names, pull) = (&self.parts.names, &self.parts.pull);
        match by_reference(names, pull, &image.repository, &image.reference).await {
            Ok(Some(manifest)) => Ok(manifest.digest),
            Ok(None) => Err(format!("nobody holds {image}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn run_id() -> Result<[u8; 16], String> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| format!("no randomness: {error}"))?;
    Ok(id)
}
