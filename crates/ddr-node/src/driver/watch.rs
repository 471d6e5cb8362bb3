//! When this node looks at what lies beside it.
//!
//! Decides: at the start and every [`DriverSettings::every`] everything, and one image at once when the place tells of
//! it or a client asks for what nobody has. One image is taken in after another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_oci::{Digest, Mirrored, Reference, RepositoryName};
use ddr_store::Store;
use serde::Serialize;
use tokio::sync::{Mutex as Turn, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::take::{Taken, Taker};
use super::{Driver, DriverError, Landing, Root};
use crate::forget::withdraw_unless_held;
use crate::pull::Shared;
use crate::push::Push;
use crate::{StartError, blocking};

/// Between two looks at everything, unless configured otherwise.
pub const DRIVER_EVERY: Duration = Duration::from_secs(5 * 60);
/// Between two looks at everything that the place asks for.
const BRIEFLY: Duration = Duration::from_secs(2);
/// To the next look at everything after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// Repositories that may fail in one look at everything before it ends.
const MAX_FAILURES: usize = 8;
/// From what a place tells to the moment when it surely is so there.
const SETTLED: Duration = Duration::from_secs(1);
/// Images that wait for a look; more are found with the next look at everything.
const MAX_WAITING: usize = 1024;
/// The longest that a client waits for a look.
const CLIENT_WAIT: Duration = Duration::from_secs(10);
/// Looks for clients that are remembered.
const MAX_LOOKED: usize = 4096;
/// Blobs outside of which one look at everything asks whether they are there still.
const MAX_CHECKED: usize = 1024;

/// How a node uses a place beside it.
#[derive(Clone, Debug)]
pub struct DriverSettings {
    /// The place.
    pub driver: Arc<dyn Driver>,
    /// Between two looks at everything.
    pub every: Duration,
    /// Other nodes are to keep copies of what is found there, too.
    pub copies: bool,
}

/// What is known of the place beside, for `ddr status`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DriverStatus {
    /// `registry`, `containerd`, or `embedded` where there is none.
    pub driver: String,
    /// A look goes on.
    pub is_looking: bool,
    /// Blobs that are read from there.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories that the last whole look found.
    pub repositories: usize,
    /// Images of these, tagged or not.
    pub images: usize,
    /// Those of them that are not there whole, or that the swarm deleted.
    pub left: usize,
    /// Images that this node has taken in since its start.
    pub taken: u64,
    /// Seconds since the last whole look ended; `None` before the first.
    pub looked_s_ago: Option<u64>,
    /// Why the last look failed.
    pub error: Option<String>,
}

type Image = (RepositoryName, Reference);

/// See the module comment.
pub(crate) struct Watch {
    settings: DriverSettings,
    shared: Arc<Shared>,
    taker: Taker,
    tell: mpsc::Sender<Image>,
    told: Turn<mpsc::Receiver<Image>>,
    /// One image at a time.
    taking: Turn<()>,
    /// When clients were looked for last.
    looked: Mutex<BTreeMap<Image, Instant>>,
    /// Images that are looked at again, and when.
    again: Mutex<BTreeMap<Image, Instant>>,
    status: Mutex<DriverStatus>,
    last: Mutex<Option<Instant>>,
    checked: Mutex<Option<Digest>>,
}

impl Watch {
    pub(crate) fn new(settings: DriverSettings, shared: &Arc<Shared>, push: &Arc<Push>) -> Self {
        let (tell, told) = mpsc::channel(MAX_WAITING);
        let driver = Arc::clone(&settings.driver);
        let status = DriverStatus { driver: driver.name().to_owned(), ..DriverStatus::default() };
        let taker = Taker {
            driver,
            shared: Arc::clone(shared),
            push: Arc::clone(push),
            copies: settings.copies,
            seen: push.landing().map(Landing::seen).unwrap_or_default(),
        };
        Self {
            settings,
            shared: Arc::clone(shared),
            taker,
            tell,
            told: Turn::new(told),
            taking: Turn::default(),
            looked: Mutex::default(),
            again: Mutex::default(),
            status: Mutex::new(status),
            last: Mutex::default(),
            checked: Mutex::default(),
        }
    }

    /// With the number of blobs there, and their bytes.
    pub(crate) fn status(&self, (blobs, bytes): (usize, u64)) -> DriverStatus {
        let last = *lock(&self.last);
        let looked_s_ago = last.map(|last| last.elapsed().as_secs());
        DriverStatus { blobs, bytes, looked_s_ago, ..lock(&self.status).clone() }
    }

    /// The place tells of an image. False: too many wait; it is found with the next look at everything.
    pub(crate) fn told(&self, repository: RepositoryName, reference: Reference) -> bool {
        self.tell.try_send((repository, reference)).is_ok()
    }

    /// Looks for what a client did not find, unless that was done a moment ago; whether it found something.
    pub(crate) async fn look_for(&self, repository: &RepositoryName, what: &Reference) -> bool {
        if !self.settings.driver.keeps() || Mirrored::of(repository).is_some() {
            return false;
        }
        {
            let (mut looked, key) = (lock(&self.looked), (repository.clone(), what.clone()));
            if looked.get(&key).is_some_and(|last| last.elapsed() < BRIEFLY) {
                return false;
            }
            if looked.len() >= MAX_LOOKED {
                looked.clear();
            }
            looked.insert(key, Instant::now());
        }
        match timeout(CLIENT_WAIT, self.image(repository, what)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                self.failed(&error);
                false
            }
            Err(_) => false,
        }
    }

    /// Looks until it is dropped.
    pub(crate) async fn run(&self) {
        tokio::join!(self.look_regularly(), self.listen());
    }

    async fn look_regularly(&self) {
        loop {
            let looked = self.everything().await;
            let ended = Instant::now();
            let mut next = ended + self.settings.every;
            if let Err(error) = looked {
                self.failed(&error);
                next = ended + self.settings.every.min(AFTER_FAILURE);
            }
            while Instant::now() < next {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.settings.driver.changed() => {
                        next = next.min(Instant::now().max(ended + BRIEFLY));
                    }
                }
            }
        }
    }

    /// Looks at what the place tells of, also while everything is looked at.
    async fn listen(&self) {
        let mut told = self.told.lock().await;
        loop {
            let due = self.again_at();
            let again = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = again => self.again().await,
                Some(image) = told.recv() => self.twice(image).await,
            }
        }
    }

    /// Looks at an image that was told of, and soon again: docker-registry tells of a manifest before its tag points
    /// to it.
    async fn twice(&self, image: Image) {
        self.one(image.clone()).await;
        let mut again = lock(&self.again);
        if again.len() < MAX_WAITING {
            again.insert(image, Instant::now() + SETTLED);
        }
    }

    fn again_at(&self) -> Option<Instant> {
        lock(&self.again).values().min().copied()
    }

    /// Looks at those again for which it is time.
    async fn again(&self) {
        let due: Vec<Image> = {
            let (mut again, now) = (lock(&self.again), Instant::now());
            let due = again.iter().filter(|(_, at)| **at <= now).map(|(image, _)| image.clone());
            let due: Vec<_> = due.collect();
            again.retain(|_, at| *at > now);
            due
        };
        for image in due {
            self.one(image).await;
        }
    }

    async fn one(&self, (repository, reference): Image) {
        match self.image(&repository, &reference).await {
            Ok(found) => {
                tracing::debug!(%repository, %reference, found, "looked at what lies beside");
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Looks at one image; whether it is there and could be taken in.
    async fn image(
        &self,
        repository: &RepositoryName,
        what: &Reference,
    ) -> Result<bool, DriverError> {
        let moment = self.taker.seen.moment();
        let Some(root) = self.settings.driver.root(repository, what).await? else {
            return Ok(false);
        };
        Ok(self.take(repository, &root, moment).await? != Taken::Left)
    }

    async fn take(
        &self,
        repository: &RepositoryName,
        root: &Root,
        moment: u64,
    ) -> Result<Taken, DriverError> {
        let _turn = self.taking.lock().await;
        let taken = self.taker.image(repository, root, moment).await?;
        lock(&self.status).taken += u64::from(taken == Taken::New);
        Ok(taken)
    }

    async fn everything(&self) -> Result<(), DriverError> {
        lock(&self.status).is_looking = true;
        let looked = self.all_repositories().await;
        let mut status = lock(&self.status);
        status.is_looking = false;
        let (repositories, looked) = looked?;
        status.repositories = repositories;
        status.images = looked.images;
        status.left = looked.left;
        status.error = None;
        *lock(&self.last) = Some(Instant::now());
        Ok(())
    }

    async fn all_repositories(&self) -> Result<(usize, Looked), DriverError> {
        let repositories = self.settings.driver.repositories().await?;
        let (mut sum, mut failures) = (Looked::default(), Vec::new());
        for repository in &repositories {
            match self.repository(repository).await {
                Ok(looked) => sum += looked,
                Err(error) => failures.push(error),
            }
            if failures.len() >= MAX_FAILURES {
                break;
            }
        }
        match failures.pop() {
            Some(error) => Err(error),
            None => {
                self.check().await?;
                Ok((repositories.len(), sum))
            }
        }
    }

    async fn repository(&self, repository: &RepositoryName) -> Result<Looked, DriverError> {
        let (mut looked, moment) = (Looked::default(), self.taker.seen.moment());
        for root in self.settings.driver.roots(repository).await? {
            looked.images += 1;
            let taken = self.take(repository, &root, moment).await?;
            looked.left += usize::from(taken == Taken::Left);
        }
        Ok(looked)
    }

    /// Asks of some blobs whether they are there still.
    async fn check(&self) -> Result<(), DriverError> {
        let (store, driver) = (self.shared.store.clone(), Arc::clone(&self.settings.driver));
        let after = *lock(&self.checked);
        let look = move || gone(&store, driver.as_ref(), after);
        let failed = |error: std::io::Error| DriverError::Failed(error.to_string());
        let (gone, next) = blocking(look).await.map_err(failed)?.map_err(failed)?;
        *lock(&self.checked) = next;
        for digest in gone {
            let (store, announcer) = (self.shared.store.clone(), self.shared.announcer.clone());
            withdraw_unless_held(store, announcer, digest).await;
        }
        Ok(())
    }

    fn failed(&self, error: &DriverError) {
        tracing::warn!(driver = self.settings.driver.name(), %error, "what lies beside cannot be looked at");
        lock(&self.status).error = Some(error.to_string());
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    images: usize,
    left: usize,
}

impl std::ops::AddAssign for Looked {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.left += other.left;
    }
}

/// Forgets those of some blobs after `last` that are not there any more; these, and where to go on.
fn gone(
    store: &Store,
    driver: &dyn Driver,
    last: Option<Digest>,
) -> std::io::Result<(Vec<Digest>, Option<Digest>)> {
    let blobs = store.outside_after(last.as_ref(), MAX_CHECKED)?;
    let next = blobs.last().filter(|_| blobs.len() == MAX_CHECKED).map(|blob| blob.digest);
    let mut gone = Vec::new();
    for blob in &blobs {
        if blob.is_kept != driver.keeps() || driver.open(blob)?.is_none() {
            gone.push(blob.digest);
        }
    }
    store.forget_outside(&gone)?;
    Ok((gone, next))
}

/// Forgets what an earlier run read from a place of another kind than `driver`.
pub(super) async fn forget_others(
    store: &Store,
    driver: Option<&dyn Driver>,
) -> Result<(), StartError> {
    let (store, keeps) = (store.clone(), driver.map(Driver::keeps));
    let forget = move || {
        let mut last = None;
        loop {
            let blobs = store.outside_after(last.as_ref(), MAX_CHECKED)?;
            let others = blobs.iter().filter(|blob| keeps != Some(blob.is_kept));
            let others: Vec<Digest> = others.map(|blob| blob.digest).collect();
            if !others.is_empty() {
                store.forget_outside(&others)?;
            }
            match blobs.last() {
                Some(blob) => last = Some(blob.digest),
                None => return Ok(()),
            }
        }
    };
    let forgotten: Result<Result<(), ddr_store::IndexError>, _> = blocking(forget).await;
    let failed = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
    forgotten.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
