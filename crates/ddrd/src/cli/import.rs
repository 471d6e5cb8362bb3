//! `ddr import`: images from files into the swarm, pushed as any client pushes them.

mod name;
mod push;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use ddr_oci::{ImageReference, Platform, RepositoryName};
use serde_json::json;

use super::CliError;
use super::admin::AdminClient;
use super::out::{self, size};
use crate::archive::{Archive, ArchiveError, Image, member_for};
use crate::progress::Show;
use name::{Naming, Wanted};
use push::Pushed;

const EXAMPLES: &str = "\
Examples:
  ddr import app.tar                           all images, under the names that the archive has for them
  ddr import app.tar team/app:1.0              the one image of the archive, under this name
  ddr import all.tar team/app:1.0 team/db:2    these two of many
  ddr import layout/ --repository team/app     another repository, the tags of the archive
  docker save team/app:1.0 | ddr import -      from a pipe, by way of a temporary file (TMPDIR)
  ddr import all.tar --platform linux/arm64    of each index only the image for this platform

Reads OCI image layouts and docker archives, as a directory, a tar or a tar with gzip: what docker save, podman save,
skopeo copy, buildah push, crane pull, ctr images export and ddr export write. Nothing is converted: layers and
configs go as they are. A host in a name (docker.io/...) is left out.

Ctrl-C ends it; what was sent stays as blobs without a name until ddr gc, and another import goes on from there.
Exit status: 0 all is pushed, 1 something is not, 2 wrong usage.";

/// Push images from an OCI layout or a docker archive into the swarm
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Import {
    /// An OCI layout or docker archive: a directory, a tar, or - for standard input
    #[arg(value_name = "DIR|TAR")]
    source: PathBuf,

    /// Of one image the names it gets; of several which of them, by the names in the archive
    #[arg(value_name = "REF")]
    names: Vec<ImageReference>,

    /// Push everything to this repository, under the tags that the archive has
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    repository: Option<RepositoryName>,

    /// Of an index only the image for this platform [default: all]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

pub(super) async fn run(admin: &AdminClient, import: Import) -> Result<(), CliError> {
    let stopped = "stopped; what was sent stays as blobs without a name until ddr gc, and another \
                   import goes on from there";
    tokio::select! {
        done = pushed(admin, import) => done,
        _ = tokio::signal::ctrl_c() => Err(CliError::Incomplete(stopped.into())),
    }
}

async fn pushed(admin: &AdminClient, import: Import) -> Result<(), CliError> {
    let registry = super::registry::of(admin).await?;
    if !admin.json {
        eprintln!("reading {}", import.source.display());
    }
    let Import { source, names, repository, platform } = import;
    let opened = tokio::task::spawn_blocking(move || -> Result<_, ArchiveError> {
        let archive = Archive::open(&source)?;
        let images = for_platform(&archive, platform.as_ref())?;
        Ok((archive, images))
    });
    let (archive, images) = super::joined(opened).await??;
    let naming = Naming { names: &names, repository: repository.as_ref() };
    let wanted = name::wanted(&images, &naming).map_err(CliError::Refused)?;
    let show = if admin.json { Show::Nowhere } else { Show::Stderr };
    let pushed = push::all(registry, archive, &wanted, show).await?;
    out::text(&if admin.json { as_json(&wanted, &pushed) } else { render(&wanted, &pushed) });
    Ok(())
}

/// The images, or of each index the member for one platform.
fn for_platform(
    archive: &Archive,
    platform: Option<&Platform>,
) -> Result<Vec<Image>, ArchiveError> {
    let mut images = archive.images().to_vec();
    let Some(platform) = platform else { return Ok(images) };
    for image in &mut images {
        let bytes = archive.manifest(&image.root)?;
        if let Some(member) = member_for(&image.root, &bytes, platform)? {
            image.root = member;
        }
    }
    Ok(images)
}

fn as_json(wanted: &[Wanted], pushed: &Pushed) -> String {
    let images = wanted.iter().map(|image| {
        json!({ "name": image.to_string(), "digest": image.root.digest, "media_type": image.root.media_type })
    });
    let value = json!({
        "images": images.collect::<Vec<_>>(),
        "manifests_sent": pushed.manifests,
        "blobs_sent": pushed.blobs,
        "bytes_sent": pushed.bytes,
        "blobs_there": pushed.blobs_there,
    });
    format!("{value:#}\n")
}

fn render(wanted: &[Wanted], pushed: &Pushed) -> String {
    let rows: Vec<_> =
        wanted.iter().map(|image| [image.to_string(), image.root.digest.to_string()]).collect();
    let mut text = out::table(["IMAGE", "DIGEST"], &rows);
    text += &format!(
        "\n{} blobs sent ({}), {} were there\n",
        pushed.blobs,
        size(pushed.bytes),
        pushed.blobs_there
    );
    text
}
