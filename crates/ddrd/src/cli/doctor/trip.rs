//! A few bytes are pushed through the registry port, brought to another node, and deleted everywhere.
//!
//! Whatever fails or is broken off in between, what was pushed is deleted; what could not be is said.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use ddr_oci::{Digest, RepositoryName, media_type};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};

use super::look;
use crate::cli::admin::AdminClient;
use crate::cli::{job, out};
use crate::client::registry::{Registry, RegistryError};
use crate::doctor::facts::{self, Reach};
use crate::doctor::trip::{NoTrip, REPOSITORY, Step, Trip};

/// Random bytes in each blob, so that none was ever deleted before.
const RANDOM_BYTES: usize = 64;
/// Wait for the push, and for the other node, together.
const TRIP_LIMIT: Duration = Duration::from_secs(60);
/// Wait for the deletes.
const CLEAN_LIMIT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    node_id: String,
    addresses: Vec<SocketAddr>,
    state: String,
    error: String,
}

/// What is pushed.
struct Image {
    repository: RepositoryName,
    blobs: [Bytes; 2],
    manifest: Bytes,
}

/// Goes all the way, unless there is nobody to go to.
pub(super) async fn run(
    admin: &AdminClient,
    port: &facts::Registry,
    ready: bool,
    reach: &Reach,
) -> Result<Trip, NoTrip> {
    if !ready {
        return Err(NoTrip::NotReady);
    }
    if reach.known == 0 {
        return Err(NoTrip::Lone);
    }
    if port.tls {
        return Err(NoTrip::Tls);
    }
    let status = admin.get("/api/v1/status").await.unwrap_or_default();
    if status["driver"]["driver"] == "registry" {
        return Err(NoTrip::Beside);
    }
    // One pull of an operator at a time: this check takes its turn, and nobody else's.
    if admin.get("/api/v1/pull").await.is_ok_and(|run| run["state"] == "running") {
        return Err(NoTrip::Busy);
    }
    let registry = Registry { address: look::dialled(port.address) };
    Ok(there_and_back(admin, registry).await)
}

async fn there_and_back(admin: &AdminClient, registry: Registry) -> Trip {
    let mut trip = Trip::default();
    let image = match Image::new() {
        Ok(image) => image,
        Err(why) => return Trip { failed: Some((Step::Push, why)), ..trip },
    };
    trip.bytes = image.bytes();
    // From here on Ctrl-C ends the trip and not the cleaning up.
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let went = tokio::select! {
        went = timeout(TRIP_LIMIT, go(admin, registry, &image, &mut trip)) => went,
        () = interrupted(&mut interrupt) => Ok(Err("it was broken off".to_owned())),
    };
    let why = match went {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some(format!("not within {} s", TRIP_LIMIT.as_secs())),
    };
    let step = if trip.pushed_ms == 0 { Step::Push } else { Step::Read };
    trip.failed = why.map(|why| (step, why));
    let cleaned = timeout(CLEAN_LIMIT, image.delete(registry)).await;
    let cleaned = cleaned.unwrap_or_else(|_| Err("it takes too long".to_owned()));
    trip.left = cleaned.err().map(|why| (image.digest().to_string(), why));
    trip
}

async fn interrupted(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn go(
    admin: &AdminClient,
    registry: Registry,
    image: &Image,
    trip: &mut Trip,
) -> Result<(), String> {
    let began = Instant::now();
    image.push(registry).await.map_err(|error| error.to_string())?;
    trip.pushed_ms = millis(began).max(1);
    let began = Instant::now();
    let query = format!("ref={REPOSITORY}@{}&nodes=1", image.digest());
    let ran = job::watch_with(admin, "pull", &query, |_| ()).await;
    let (_, status) = ran.map_err(|error| error.to_string())?;
    let report: Report =
        serde_json::from_value(status.report).map_err(|error| error.to_string())?;
    let node = report.nodes.first().ok_or("no node was chosen")?;
    let address = node.addresses.first().map_or("?".into(), ToString::to_string);
    let shown = format!("{} at {address}", out::short(&node.node_id));
    if node.state != "done" {
        return Err(format!("{shown} is {}: {}", node.state, node.error));
    }
    trip.read_by = Some((shown, millis(began)));
    Ok(())
}

impl Image {
    fn new() -> Result<Self, String> {
        let repository = REPOSITORY.parse::<RepositoryName>();
        let repository = repository.map_err(|error| error.to_string())?;
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] },
            "comment": random()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        });
        let blobs = [Bytes::from(config.to_string()), Bytes::from(random()?.to_vec())];
        let descriptor = |kind: &str, bytes: &Bytes| json!({ "mediaType": kind, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len() });
        let manifest: Value = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, &blobs[0]),
            "layers": [descriptor(media_type::OCTET_STREAM, &blobs[1])],
        });
        Ok(Self { repository, blobs, manifest: Bytes::from(manifest.to_string()) })
    }

    fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    fn bytes(&self) -> u64 {
        let blobs = self.blobs.iter().map(Bytes::len).sum::<usize>();
        (blobs + self.manifest.len()) as u64
    }

    /// By digest: a tag would stay in the history of its name.
    async fn push(&self, registry: Registry) -> Result<(), RegistryError> {
        for blob in &self.blobs {
            let (digest, body) = (Digest::sha256(blob), Full::new(blob.clone()));
            let (size, sent) = (blob.len() as u64, AtomicU64::new(0));
            registry.put_blob(&self.repository, &digest, size, body, &sent).await?;
        }
        let (digest, bytes) = (self.digest().to_string(), self.manifest.clone());
        registry.put_manifest(&self.repository, &digest, media_type::OCI_MANIFEST, bytes).await
    }

    /// Deletes all of it in the whole swarm, the manifest first; goes on when a part fails.
    async fn delete(&self, registry: Registry) -> Result<(), String> {
        let mut wrong = Vec::new();
        let name = &self.repository;
        wrong.extend(registry.delete_manifest(name, &self.digest()).await.err());
        for blob in &self.blobs {
            wrong.extend(registry.delete_blob(name, &Digest::sha256(blob)).await.err());
        }
        match registry.has_manifest(name, &self.digest()).await {
            Ok(false) => {}
            Ok(true) => return Err("its manifest is still there".to_owned()),
            Err(error) => wrong.push(error),
        }
        wrong.first().map_or(Ok(()), |error| Err(error.to_string()))
    }
}

fn random() -> Result<[u8; RANDOM_BYTES], String> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes)
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
