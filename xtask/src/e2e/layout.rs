//! Images in files: OCI image layouts, as the clients that run nothing read and write them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::http;
use crate::run;

/// An image has at least a manifest, a configuration and a layer.
const MIN_BLOBS: usize = 3;

/// The part of `index.json` that is looked at.
#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
}

/// Unpacks an OCI archive, which is a layout in a tar file, into a new directory.
pub(super) fn unpack(archive: &Path, layout: &Path) -> Result<()> {
    fs::create_dir_all(layout)?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(layout);
    run::output(&mut tar)?;
    Ok(())
}

/// The layout must hold exactly this image, and every blob the bytes of its digest.
pub(super) fn check(layout: &Path, digest: &str) -> Result<()> {
    let text = fs::read_to_string(layout.join("index.json"))?;
    let index: Index = serde_json::from_str(&text).context("index.json has an unknown shape")?;
    let digests: Vec<&str> = index.manifests.iter().map(|m| m.digest.as_str()).collect();
    ensure!(digests == [digest], "the layout holds {digests:?}, expected {digest}");
    let mut blobs = Vec::new();
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        blobs.push(entry?.path());
    }
    ensure!(blobs.len() >= MIN_BLOBS, "the layout holds {} blobs only", blobs.len());
    for (blob, actual) in blobs.iter().zip(http::digests(&blobs)?) {
        let name = blob.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        ensure!(actual == format!("sha256:{name}"), "{} holds {actual}", blob.display());
    }
    Ok(())
}
