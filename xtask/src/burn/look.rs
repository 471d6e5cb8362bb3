//! Whether the nodes find the images.
//!
//! Decides how that is asked fast: all nodes at the same time, each over a few connections that are kept. Who is asked
//! for an image is asked for its tag and every blob, and all of them must be found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::image::Image;
use crate::run;
use crate::swarm::Node;
use crate::wire::Connection;

/// Connections to one node, each with one question at a time.
const CONNECTIONS: usize = 2;

/// Every node knows every image and finds a holder of each blob, each within `limit`.
pub(super) fn everywhere(nodes: &[Node], images: &[Image], limit: Duration) -> Result<()> {
    let places: Vec<AtomicUsize> = nodes.iter().map(|_| AtomicUsize::new(0)).collect();
    let places: Vec<&AtomicUsize> = places.iter().collect();
    all(nodes, &places, images, limit)
}

/// The same, with each image asked for at one of the nodes, whichever has time.
pub(super) fn somewhere(nodes: &[Node], images: &[Image], limit: Duration) -> Result<()> {
    let place = AtomicUsize::new(0);
    all(nodes, &vec![&place; nodes.len()], images, limit)
}

/// Who share a place share the images, too.
fn all(nodes: &[Node], places: &[&AtomicUsize], images: &[Image], limit: Duration) -> Result<()> {
    thread::scope(|scope| {
        let each = nodes.iter().zip(places).cycle().take(nodes.len() * CONNECTIONS);
        let lookers: Vec<_> = each
            .map(|(node, place)| scope.spawn(move || look(node, images, place, limit)))
            .collect();
        let ended = lookers.into_iter().map(thread::ScopedJoinHandle::join);
        let ended: Vec<Result<()>> =
            ended.map(|end| end.unwrap_or_else(|_| Err(anyhow!("a looker panicked")))).collect();
        ended.into_iter().collect()
    })
}

/// Looks for the images that nobody else looks for.
fn look(node: &Node, images: &[Image], place: &AtomicUsize, limit: Duration) -> Result<()> {
    let mut kept = None;
    while let Some(image) = images.get(place.fetch_add(1, Ordering::Relaxed)) {
        find(node, image, &mut kept, limit)
            .with_context(|| format!("{} on {}", image.name(), node.name))?;
    }
    Ok(())
}

/// Asks until the image is found or the time is over. After a failure over a new connection.
fn find(node: &Node, image: &Image, kept: &mut Option<Connection>, limit: Duration) -> Result<()> {
    let mut last = None;
    let found = run::wait_for("found", limit, || {
        match look_once(node, image, kept.take()) {
            Ok(connection) => *kept = Some(connection),
            Err(error) => last = Some(error),
        }
        Ok(kept.is_some().then_some(()))
    });
    found.map_err(|error| last.unwrap_or(error))
}

fn look_once(node: &Node, image: &Image, kept: Option<Connection>) -> Result<Connection> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::open(&node.registry)?,
    };
    image.look(&mut connection)?;
    Ok(connection)
}
