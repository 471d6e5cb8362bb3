//! `ddr export`: an image of the swarm into files.

use clap::Args;
use ddr_oci::{Descriptor, ImageReference, Platform, Reference};
use serde_json::json;

use super::CliError;
use super::admin::AdminClient;
use super::out::{self, size};
use crate::archive::{ArchiveError, Closure, Target, Walk, Writer, member_for};
use crate::client;
use crate::client::registry::{Registry, RegistryError};
use crate::progress::{Progress, Show};

const EXAMPLES: &str = "\
Examples:
  ddr export team/app:1.0 app.tar                          all platforms, as a tar
  ddr export team/app:1.0 app.tar --platform linux/arm64   one of them
  ddr export team/app:1.0 layout                           a directory
  ddr export team/app:1.0 - | docker load                  through a pipe
  ddr export team/app:1.0 - | ssh far ddr import -         to a swarm that this one does not reach

Writes an OCI image layout: NAME.tar is a tar, - a tar on standard output, anything else a directory. docker load (25 and
later, one platform), podman load, skopeo (oci:, oci-archive:), ctr images import and ddr import read it.

Every blob is checked while it is written. The result is NAME.part until it is complete; Ctrl-C and errors remove that.
A tar that is there is replaced, a directory must not be there or be empty.
Exit status: 0 written, 1 failed, 2 wrong usage.";

/// Write an image as an OCI layout, in a directory or a tar
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    /// An image such as team/app:1.0 or team/app@sha256:...
    #[arg(value_name = "REF")]
    image: ImageReference,

    /// Where it goes: NAME.tar, a directory, or - for a tar on standard output
    #[arg(value_name = "FILE|DIR")]
    target: Target,

    /// Of an index only the image for this platform [default: all]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

pub(super) async fn run(admin: &AdminClient, export: Export) -> Result<(), CliError> {
    if admin.json && export.target == Target::Stdout {
        return Err(CliError::Usage("--json and - both need standard output".into()));
    }
    tokio::select! {
        done = written(admin, &export) => done,
        _ = tokio::signal::ctrl_c() => {
            Err(CliError::Incomplete("stopped; nothing was left behind".into()))
        }
    }
}

async fn written(admin: &AdminClient, export: &Export) -> Result<(), CliError> {
    let registry = super::registry::of(admin).await?;
    let (root, closure) = collect(&registry, export).await?;
    let mut writer = Writer::create(&export.target)?;
    writer.head(&root, &closure, &name_of(&export.image, &root))?;
    let show = if admin.json { Show::Nowhere } else { Show::Stderr };
    let progress = Progress::new("export".into(), closure.blob_bytes(), show);
    for blob in closure.blobs.values() {
        copy(&registry, export, blob, &mut writer, &progress).await?;
    }
    writer.finish()?;
    progress.done();
    let (blobs, bytes) = (closure.blobs.len(), closure.blob_bytes());
    if admin.json {
        out::json(&json!({
            "name": export.image.to_string(), "digest": root.digest, "media_type": root.media_type,
            "manifests": closure.manifests.len(), "blobs": blobs, "bytes": bytes,
        }));
    } else if export.target != Target::Stdout {
        out::text(&format!("{}  {} blobs, {}\n", root.digest, blobs, size(bytes)));
    }
    Ok(())
}

/// What readers will call the image: what was asked for, with the digest of what is written.
fn name_of(image: &ImageReference, root: &Descriptor) -> String {
    let mut image = image.clone();
    if let Reference::Digest(digest) = &mut image.reference {
        *digest = root.digest;
    }
    image.to_string()
}

/// The manifests of the image, each checked.
async fn collect(registry: &Registry, export: &Export) -> Result<(Descriptor, Closure), CliError> {
    let (image, name) = (&export.image, &export.image.repository);
    let found = registry.manifest(name, &image.reference.to_string()).await;
    let (mut root, mut bytes) = found.map_err(|error| not_found(error, image))?;
    if let Reference::Digest(digest) = image.reference {
        root.digest = digest;
    }
    if let Some(platform) = &export.platform
        && let Some(member) = member_for(&root, &bytes, platform)?
    {
        bytes = registry.manifest(name, &member.digest.to_string()).await?.1;
        root = member;
    }
    let mut walk = Walk::new(root.clone());
    let mut at_hand = Some(bytes);
    while let Some(wanted) = walk.next_wanted() {
        let bytes = match at_hand.take() {
            Some(bytes) => bytes,
            None => registry.manifest(name, &wanted.digest.to_string()).await?.1,
        };
        walk.give(wanted, bytes)?;
    }
    Ok((root, walk.finish()))
}

fn not_found(error: RegistryError, image: &ImageReference) -> CliError {
    if error.is_not_found() { CliError::NotFound(image.to_string()) } else { error.into() }
}

async fn copy(
    registry: &Registry,
    export: &Export,
    blob: &Descriptor,
    writer: &mut Writer,
    progress: &Progress,
) -> Result<(), CliError> {
    let mut body = registry.blob(&export.image.repository, &blob.digest).await?;
    writer.begin(blob)?;
    while let Some(bytes) =
        client::next(registry.address, &mut body).await.map_err(CliError::Client)?
    {
        writer.write(&bytes)?;
        progress.add(bytes.len() as u64);
    }
    writer.end().map_err(|error| match error {
        ArchiveError::Digest { digest, is } => {
            CliError::Damage(format!("{digest} came as {is}; see: ddr verify"))
        }
        other => other.into(),
    })
}
