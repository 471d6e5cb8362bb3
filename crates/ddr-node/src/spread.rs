//! One message to every node that is known alive; answers do not matter.

use std::time::Duration;

use ddr_proto::wire::{Contact, Request};
use futures_util::stream::{self, StreamExt};

use crate::caller::Caller;
use crate::overlay::OverlayHandle;

/// So many at once.
const MAX_AT_ONCE: usize = 16;
/// To so many nodes.
const MAX_NODES: usize = 256;
/// How long each may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Nodes that are alive, at most [`MAX_NODES`].
pub(crate) async fn alive(overlay: &OverlayHandle) -> Vec<Contact> {
    let contacts = overlay.view().await.contacts.into_iter();
    contacts.filter(|peer| peer.alive).map(|peer| peer.contact).take(MAX_NODES).collect()
}

/// Sends `request` to all that are alive.
pub(crate) async fn to_all(overlay: &OverlayHandle, caller: &Caller, request: &Request) {
    to(alive(overlay).await, caller, request).await;
}

/// Sends `request` to `contacts`.
pub(crate) async fn to(contacts: Vec<Contact>, caller: &Caller, request: &Request) {
    let sends = contacts.into_iter().map(|contact| async move {
        caller.call(&contact, request.clone(), TIMEOUT).await;
    });
    stream::iter(sends).for_each_concurrent(MAX_AT_ONCE, |send| send).await;
}
