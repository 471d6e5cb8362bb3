//! `ddr images`.

use serde::Deserialize;

use super::CliError;
use super::admin::AdminClient;
use super::out::{self, short};

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

pub(super) async fn run(admin: &AdminClient) -> Result<(), CliError> {
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
