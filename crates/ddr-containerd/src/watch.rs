//! Being told when the content store may have changed.
//!
//! Decides which events count: those of content and images. containerd 1.6 and 1.7 tell of content that
//! was deleted but not of content that was added, and of an image once its content is there. Never promises that
//! every change is told.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;

use crate::channel::{Channel, Waiting};
use crate::decode;
use crate::error::ContainerdError;
use crate::grpc::{Answer, Call, broke};
use crate::messages::{Filters, SUBSCRIBE};

/// Topics of the events, as containerd's filters have it; what fits one of them is sent.
const TOPICS: [&str; 2] = ["topic~=\"^/content/\"", "topic~=\"^/images/\""];
/// Most events that one [`Watch::changed`] takes in.
const MAX_EVENTS: usize = 1024;

/// A subscription to containerd's events about images and content. Before containerd 2, content that comes
/// without an image is not told.
#[derive(Debug)]
pub struct Watch {
    channel: Arc<Channel>,
    /// Empty: all.
    namespaces: Arc<[String]>,
    state: State,
}

enum State {
    /// The subscription broke: events may have been missed.
    Broken,
    /// Sent. containerd begins its answer with the first event.
    Asked(Waiting),
    Running(Box<Answer>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "Broken",
            Self::Asked(_) => "Asked",
            Self::Running(_) => "Running",
        })
    }
}

impl Watch {
    pub(crate) async fn new(
        channel: Arc<Channel>,
        namespaces: Arc<[String]>,
    ) -> Result<Self, ContainerdError> {
        let mut watch = Self { channel, namespaces, state: State::Broken };
        watch.subscribe().await?;
        Ok(watch)
    }

    /// Resolves when something changed since the last time, or may have: after the subscription broke
    /// and was made anew. Many events may be one change. Can be dropped while it waits and called again;
    /// what was told meanwhile is not lost.
    ///
    /// # Errors
    /// As [`ContainerdError`] says, if containerd is gone. The next call subscribes anew.
    pub async fn changed(&mut self) -> Result<(), ContainerdError> {
        if matches!(self.state, State::Broken) {
            return self.subscribe().await;
        }
        match self.event().await {
            Ok(()) => {
                self.take_rest();
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "the subscription to containerd's events broke");
                self.state = State::Broken;
                self.subscribe().await
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), ContainerdError> {
        let filters = TOPICS.map(str::to_owned).to_vec();
        let waiting = self.channel.send(&Call::new(SUBSCRIBE, &Filters { filters })).await?;
        self.state = State::Asked(waiting);
        Ok(())
    }

    /// Waits for an event of the namespaces that are watched.
    async fn event(&mut self) -> Result<(), ContainerdError> {
        loop {
            match &mut self.state {
                State::Broken => return Err(ended()),
                State::Asked(waiting) => {
                    let response = waiting.await.map_err(|error| broke(&error))?;
                    self.state = State::Running(Box::new(Answer::of(response)?));
                }
                State::Running(answer) => {
                    let message = answer.next().await?.ok_or_else(ended)?;
                    let (namespace, topic) = decode::event(message)?;
                    if self.namespaces.is_empty() || self.namespaces.contains(&namespace) {
                        tracing::trace!(namespace, topic, "containerd's content changed");
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes the events that are there already: they are part of the same change. An error is met again by
    /// the next wait.
    fn take_rest(&mut self) {
        for _ in 0..MAX_EVENTS {
            match self.event().now_or_never() {
                Some(Ok(())) => {}
                Some(Err(_)) => return self.state = State::Broken,
                None => return,
            }
        }
    }
}

fn ended() -> ContainerdError {
    ContainerdError::Unreachable("containerd ended the subscription to its events".to_owned())
}
