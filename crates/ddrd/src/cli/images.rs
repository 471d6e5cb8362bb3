//! `ddr images`.

use clap::Args;
use serde::Deserialize;

use super::CliError;
use super::admin::{AdminClient, encode};
use super::out::{self, short};

/// List repositories and tags on this node, or what a tag pointed to
#[derive(Args, Debug)]
pub(super) struct Images {
    /// What this tag points to and pointed to in the whole swarm, newest first
    #[arg(long, value_name = "REF")]
    history: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    digest: Option<String>,
    at_ms: u64,
    writer: String,
}

#[derive(Deserialize)]
struct Image {
    repository: String,
    tags: Vec<Tag>,
    manifests: usize,
}

#[derive(Deserialize)]
struct Tag {
    tag: String,
    digest: String,
}

pub(super) async fn run(admin: &AdminClient, images: Images) -> Result<(), CliError> {
    match images.history {
        Some(reference) => history(admin, reference).await,
        None => list(admin).await,
    }
}

async fn history(admin: &AdminClient, reference: String) -> Result<(), CliError> {
    let value = admin.get(&format!("/api/v1/history?ref={}", encode(&reference))).await?;
    let versions: Vec<Version> = admin.view(value.clone())?;
    if admin.json {
        out::json(&value);
    } else if !versions.is_empty() {
        let row = |version: &Version| {
            let digest = version.digest.as_deref().unwrap_or("deleted").to_owned();
            [out::time(version.at_ms), digest, short(&version.writer)]
        };
        let rows: Vec<_> = versions.iter().map(row).collect();
        out::text(&out::table(["SINCE", "DIGEST", "WRITER"], &rows));
    }
    if versions.is_empty() { Err(CliError::NotFound(reference)) } else { Ok(()) }
}

async fn list(admin: &AdminClient) -> Result<(), CliError> {
    let value = admin.get("/api/v1/images").await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let images: Vec<Image> = admin.view(value)?;
    if images.is_empty() {
        out::text("no image is on this node yet\n");
        return Ok(());
    }
    let rows: Vec<_> = images.iter().flat_map(rows).collect();
    out::text(&out::table(["REPOSITORY", "TAG", "DIGEST", "MANIFESTS"], &rows));
    Ok(())
}

/// One row a tag, or one for a repository that has none.
fn rows(image: &Image) -> Vec<[String; 4]> {
    let row = |tag: &str, digest: &str| {
        [image.repository.clone(), tag.to_owned(), digest.to_owned(), image.manifests.to_string()]
    };
    if image.tags.is_empty() {
        return vec![row("-", "-")];
    }
    image.tags.iter().map(|tag| row(&tag.tag, &short(&tag.digest))).collect()
}
