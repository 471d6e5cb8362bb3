//! What a tag of a mirrored repository points to.
//!
//! Decides when the registry is asked again: by one node, the warden of the tag, at most once in the time that an answer
//! holds. What was learnt is a name of the swarm, so that it outlives this node and is served when the registry cannot
//! be asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName, Tag, UpstreamHost};
use ddr_proto::id::Key;
use ddr_proto::wire::{Request, ResolveAnswer, Response, UpstreamFailure};
use ddr_upstream::UpstreamError;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Source, Warden};
use crate::flight::Flights;
use crate::names::{Named, Names, Publication};
use crate::pull::Pull;
use crate::{ReadError, TagWriteError};

/// How long one warden is waited for: as long as a registry may take to answer it, about.
const WARDEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a registry that failed, or has no such tag, is not asked again for it.
const BRIEFLY: Duration = Duration::from_secs(5);
/// Tags whose last check is remembered; beyond, the older half goes, which costs another question each.
const MAX_CHECKED: usize = 65_536;
/// Tags that are asked for at once.
const MAX_ASKING: usize = 1024;
/// Tags that the swarm is told of at once; of more it hears with their next check.
const MAX_RECORDING: usize = 256;

/// What a registry said last, or that it did not.
#[derive(Clone, Copy, Debug)]
struct Checked {
    answer: Result<Option<Digest>, UpstreamFailure>,
    at: Instant,
}

/// What the registries said lately.
pub(super) struct Checks {
    fresh: Duration,
    known: Mutex<BTreeMap<Key, Checked>>,
    /// The questions of this node.
    asking: Flights<Key, Checked>,
    /// Those that it asks a registry, for itself and for others.
    checking: Flights<Key, Checked>,
    recording: Arc<Semaphore>,
    /// Until when others have been told of a pause.
    pauses: Mutex<BTreeMap<UpstreamHost, Instant>>,
}

impl Checks {
    pub(super) fn new(fresh: Duration) -> Self {
        Self {
            fresh,
            known: Mutex::default(),
            asking: Flights::new(MAX_ASKING),
            checking: Flights::new(MAX_ASKING),
            recording: Arc::new(Semaphore::new(MAX_RECORDING)),
            pauses: Mutex::default(),
        }
    }

    /// Whether others are to be told of this pause: not if they have been.
    pub(super) fn tell_pause(&self, host: &UpstreamHost, pause: Duration) -> bool {
        let (now, mut pauses) = (Instant::now(), lock(&self.pauses));
        pauses.retain(|_, until| *until > now);
        pauses.insert(host.clone(), now + pause).is_none()
    }

    /// What holds still.
    fn fresh(&self, key: &Key) -> Option<Checked> {
        let checked = *lock(&self.known).get(key)?;
        let holds = match checked.answer {
            Ok(Some(_)) => self.fresh,
            Ok(None) | Err(_) => self.fresh.min(BRIEFLY),
        };
        (checked.at.elapsed() < holds).then_some(checked)
    }

    fn note(&self, key: Key, checked: Checked) {
        let mut known = lock(&self.known);
        if known.len() >= MAX_CHECKED && !known.contains_key(&key) {
            let mut times: Vec<Instant> = known.values().map(|one| one.at).collect();
            let (_, middle, _) = times.select_nth_unstable(MAX_CHECKED / 2);
            known.retain(|_, one| one.at > *middle);
        }
        known.insert(key, checked);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One tag, and who can say something of it.
#[derive(Clone)]
struct Question {
    names: Arc<Names>,
    pull: Arc<Pull>,
    source: Source,
    repository: RepositoryName,
    tag: Tag,
    key: Key,
}

/// What `tag` points to: as the registry says, else as the swarm has it from before, which is stale then. `None`: the
/// repository is not mirrored.
pub(crate) async fn resolve(
    names: &Arc<Names>,
    pull: &Arc<Pull>,
    repository: &RepositoryName,
    tag: &Tag,
) -> Option<Result<Named, ReadError>> {
    let question = Question::new(names, pull, repository, tag)?;
    Some(question.resolve().await)
}

/// The same for another node, which asks this one as the warden of the tag.
pub(crate) async fn answer(
    names: &Arc<Names>,
    pull: &Arc<Pull>,
    repository: &RepositoryName,
    tag: &Tag,
) -> ResolveAnswer {
    let Some(question) = Question::new(names, pull, repository, tag) else {
        return ResolveAnswer::NotMirrored;
    };
    let checked = question.check().await;
    match checked.answer {
        Ok(digest) => {
            let age_ms = u32::try_from(checked.at.elapsed().as_millis()).unwrap_or(u32::MAX);
            ResolveAnswer::Is { digest, age_ms }
        }
        Err(failure) => ResolveAnswer::Failed(failure),
    }
}

impl Question {
    fn new(
        names: &Arc<Names>,
        pull: &Arc<Pull>,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Option<Self> {
        let source = pull.mirror().source(repository)?;
        let (names, pull) = (Arc::clone(names), Arc::clone(pull));
        let key = Key::of_name(repository, tag);
        Some(Self { names, pull, source, repository: repository.clone(), tag: tag.clone(), key })
    }

    fn checks(&self) -> &Checks {
        &self.pull.mirror().checks
    }

    async fn resolve(&self) -> Result<Named, ReadError> {
        let checked = match self.checks().fresh(&self.key) {
            Some(checked) => checked,
            None => {
                let question = self.clone();
                let asked =
                    self.checks().asking.run(self.key, || async move { question.ask().await });
                asked.await.ok_or(ReadError::Busy("tags that are asked for"))?
            }
        };
        match checked.answer {
            Ok(digest) => Ok(Named { digest, is_stale: false }),
            Err(UpstreamFailure::Denied) => Err(ReadError::Denied(format!(
                "{} refuses this node: check the credentials in its [[upstream]]",
                self.source.host
            ))),
            Err(failure) => self.last_known(failure).await,
        }
    }

    /// Asks the wardens in their order, this node last.
    async fn ask(&self) -> Checked {
        let mut failure = UpstreamFailure::Down;
        for warden in self.pull.mirror().line(&self.key).await {
            let checked = match warden {
                Warden::Own => self.check().await,
                Warden::Peer(peer) => {
                    let (repository, tag) = (self.repository.clone(), self.tag.clone());
                    let request = Request::Resolve { repository, tag };
                    let answer = self.names.caller().call(&peer, request, WARDEN_TIMEOUT).await;
                    let Some(checked) = told(answer) else { continue };
                    checked
                }
            };
            match checked.answer {
                Err(UpstreamFailure::Down) => {}
                Err(UpstreamFailure::Denied) => failure = UpstreamFailure::Denied,
                Ok(_) | Err(UpstreamFailure::Paused { .. }) => {
                    self.checks().note(self.key, checked);
                    return checked;
                }
            }
        }
        let checked = Checked { answer: Err(failure), at: Instant::now() };
        self.checks().note(self.key, checked);
        checked
    }

    /// What the registry says, asked now unless it was lately.
    async fn check(&self) -> Checked {
        if let Some(checked) = self.checks().fresh(&self.key) {
            return checked;
        }
        let question = self.clone();
        let work = || async move {
            let answer = question.ask_registry().await;
            let checked = Checked { answer, at: Instant::now() };
            question.checks().note(question.key, checked);
            checked
        };
        let down = Checked { answer: Err(UpstreamFailure::Down), at: Instant::now() };
        self.checks().checking.run(self.key, work).await.unwrap_or(down)
    }

    async fn ask_registry(&self) -> Result<Option<Digest>, UpstreamFailure> {
        let asked = self.source.upstream.resolve(&self.source.repository, &self.tag).await;
        match self.pull.mirror().heard(&self.source, asked) {
            Ok(found) => {
                let digest = found.as_ref().map(|found| found.digest);
                if let Some(manifest) = found.and_then(|found| found.manifest) {
                    self.pull.keep_given(&self.repository, &self.source, manifest).await;
                }
                if let Ok(turn) = Arc::clone(&self.checks().recording).try_acquire_owned() {
                    let question = self.clone();
                    tokio::spawn(async move {
                        let _turn = turn;
                        question.record(digest).await;
                    });
                }
                Ok(digest)
            }
            Err(UpstreamError::RateLimited(pause)) => {
                let for_s = u32::try_from(pause.as_secs()).unwrap_or(u32::MAX);
                Err(UpstreamFailure::Paused { for_s })
            }
            Err(UpstreamError::Denied(_) | UpstreamError::Forbidden(_)) => {
                Err(UpstreamFailure::Denied)
            }
            Err(_) => Err(UpstreamFailure::Down),
        }
    }

    /// Has the swarm remember what the registry said, if that is new.
    async fn record(&self, digest: Option<Digest>) {
        let (repository, tag) = (&self.repository, &self.tag);
        let recorded = match self.names.read_strictly(repository, tag).await {
            Ok(known) if known == digest => Ok(()),
            Ok(_) => self.write(digest).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = recorded {
            tracing::info!(%repository, %tag, %error, "a mirrored tag is not remembered");
        }
    }

    async fn write(&self, digest: Option<Digest>) -> Result<(), TagWriteError> {
        match digest {
            Some(digest) => {
                let (repository, tags) = (self.repository.clone(), vec![self.tag.clone()]);
                let publication = Publication { repository, digest, tags, referrer: None };
                self.names.publish(publication).await
            }
            None => self.names.delete_tag(&self.repository, &self.tag).await,
        }
    }

    /// The registry cannot be asked: what the swarm remembers of it.
    async fn last_known(&self, failure: UpstreamFailure) -> Result<Named, ReadError> {
        let host = &self.source.host;
        if let Named { digest: Some(digest), .. } =
            self.names.read(&self.repository, &self.tag).await?
        {
            return Ok(Named { digest: Some(digest), is_stale: true });
        }
        Err(ReadError::Unavailable(match failure {
            UpstreamFailure::Paused { for_s } => {
                format!("{host} is asked too often, again in {for_s} s; the tag is not known here")
            }
            _ => format!("{host} cannot be asked, and the tag is not known here"),
        }))
    }
}

/// What a warden said; `None`: nothing.
fn told(answer: Option<Response>) -> Option<Checked> {
    let Some(Response::Resolved(answer)) = answer else { return None };
    let now = Instant::now();
    match answer {
        ResolveAnswer::Is { digest, age_ms } => {
            let at = now.checked_sub(Duration::from_millis(age_ms.into())).unwrap_or(now);
            Some(Checked { answer: Ok(digest), at })
        }
        ResolveAnswer::Failed(failure) => Some(Checked { answer: Err(failure), at: now }),
        ResolveAnswer::NotMirrored => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_are_told_of_a_pause_once_while_it_lasts() {
        let checks = Checks::new(Duration::from_secs(60));
        let host: UpstreamHost = "docker.io".parse().expect("a host");
        let pause = Duration::from_secs(30);
        assert!(checks.tell_pause(&host, pause) && !checks.tell_pause(&host, pause));
        tokio::time::advance(pause).await;
        assert!(checks.tell_pause(&host, pause));
    }

    #[tokio::test(start_paused = true)]
    async fn the_older_half_goes_when_too_many_are_remembered() {
        let checks = Checks::new(Duration::from_secs(60));
        let key = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Key(bytes)
        };
        for number in 0..=MAX_CHECKED {
            let at = Instant::now() + Duration::from_nanos(number as u64);
            checks.note(key(number), Checked { answer: Ok(None), at });
        }
        assert_eq!(lock(&checks.known).len(), MAX_CHECKED / 2);
        assert!(checks.fresh(&key(0)).is_none() && checks.fresh(&key(MAX_CHECKED)).is_some());
    }
}
