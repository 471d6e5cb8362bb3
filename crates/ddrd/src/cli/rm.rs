//! `ddr rm`.

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::admin::{AdminClient, encode};
use super::{CliError, out};

/// Delete a tag, or an image with all its tags, in the whole swarm
///
/// REF with a tag deletes that tag, and the image stays; REF with a digest deletes the image and every
/// tag that points to it. Blobs go when no image needs them any more: see ddr gc.
#[derive(Args, Debug)]
pub(super) struct Rm {
    /// An image such as team/app:1.0 or team/app@sha256:...
    #[arg(value_name = "REF")]
    reference: String,

    /// Delete the image that the tag points to, with all its tags
    #[arg(long)]
    digest: bool,
}

#[derive(Deserialize)]
struct Removed {
    repository: String,
    tag: Option<String>,
    digest: String,
}

pub(super) async fn run(admin: &AdminClient, rm: Rm) -> Result<(), CliError> {
    let path = format!("/api/v1/images?ref={}&digest={}", encode(&rm.reference), rm.digest);
    let value = admin.ask(Method::DELETE, &path).await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let Removed { repository, tag, digest } = admin.view(value)?;
    out::text(&match tag {
        Some(tag) => format!("untagged {repository}:{tag}, which was {digest}\n"),
        None => format!("deleted {repository}@{digest} and its tags\n"),
    });
    Ok(())
}
