//! `ddr pin` and `ddr unpin`.

use clap::Args;
use ddr_oci::ImageReference;
use http::Method;
use serde::Deserialize;

use super::admin::{AdminClient, encode};
use super::out::{self, short};
use super::{CliError, pull};

/// Keep an image on this node, whatever is collected or makes room
#[derive(Args, Debug)]
pub(super) struct Pin {
    /// An image such as team/app:1.0 or team/app@sha256:...; it is brought here first. What the tag is now is
    /// pinned, and stays so when the tag moves or goes
    #[arg(value_name = "REF", required_unless_present = "list")]
    image: Option<ImageReference>,

    /// Show what is pinned
    #[arg(long, conflicts_with = "image")]
    list: bool,
}

/// Take a pin back; the image may make room again
#[derive(Args, Debug)]
pub(super) struct Unpin {
    /// The image, by its digest or as it was pinned
    #[arg(value_name = "REF")]
    image: ImageReference,
}

#[derive(Deserialize)]
struct Pinned {
    image: String,
    digest: String,
    parts: usize,
}

pub(super) async fn run(admin: &AdminClient, pin: Pin) -> Result<(), CliError> {
    let Some(image) = pin.image.filter(|_| !pin.list) else {
        let value = admin.get("/api/v1/pins").await?;
        if admin.json {
            out::json(&value);
        } else {
            out::text(&render(&admin.view::<Vec<Pinned>>(value)?));
        }
        return Ok(());
    };
    pull::bring(admin, &image).await?;
    let value = admin.ask(Method::POST, &path(&image)).await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let Pinned { image, digest, parts } = admin.view(value)?;
    out::text(&format!("{image} is pinned: {digest}, {parts} manifests and blobs\n"));
    Ok(())
}

pub(super) async fn unpin(admin: &AdminClient, unpin: Unpin) -> Result<(), CliError> {
    let value = admin.ask(Method::DELETE, &path(&unpin.image)).await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    for pinned in admin.view::<Vec<Pinned>>(value)? {
        out::text(&format!("{} is not pinned any more: {}\n", pinned.image, pinned.digest));
    }
    Ok(())
}

fn path(image: &ImageReference) -> String {
    format!("/api/v1/pins?ref={}", encode(&image.to_string()))
}

fn render(pins: &[Pinned]) -> String {
    if pins.is_empty() {
        return "no image is pinned on this node\n".into();
    }
    let row = |pin: &Pinned| [pin.image.clone(), short(&pin.digest), pin.parts.to_string()];
    out::table(["IMAGE", "DIGEST", "PARTS"], &pins.iter().map(row).collect::<Vec<_>>())
}
