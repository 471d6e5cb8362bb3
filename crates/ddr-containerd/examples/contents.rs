//! Shows what a containerd has: `contents [--socket PATH] [--namespace NAME] COMMAND`.
//!
//! `list`: a line for each content: digest, bytes, namespace, whether it names other content, where it came
//! from and the name of that in a swarm. `images`: names and what they point to. `root`: the directory of the content store. `read DIGEST`: its bytes,
//! to standard output. `watch COUNT`: waits for so many changes.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use ddr_containerd::{Containerd, Content, Settings};
use ddr_oci::Digest;
use futures_util::TryStreamExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut settings = Settings::default();
    while let [option, value, ..] = arguments.as_slice() {
        match option.as_str() {
            "--socket" => settings.socket = value.into(),
            "--namespace" => settings.namespaces.push(value.clone()),
            _ => break,
        }
        arguments.drain(..2);
    }
    let containerd = Containerd::connect(settings).await?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => list(&containerd).await,
        ["images"] => {
            containerd.images().await?.iter().for_each(|image| println!("{image:?}"));
            Ok(())
        }
        ["root"] => {
            println!("{:?}", containerd.content_root().await?);
            Ok(())
        }
        ["read", digest] => read(&containerd, &digest.parse()?).await,
        ["watch", count] => watch(&containerd, count.parse()?).await,
        _ => bail!("want list, images, root, read DIGEST or watch COUNT"),
    }
}

async fn list(containerd: &Containerd) -> Result<()> {
    let listing = containerd.list().await?;
    listing.contents.iter().for_each(show);
    println!("{} contents, {} left out", listing.contents.len(), listing.left_out);
    Ok(())
}

fn show(content: &Content) {
    let Content { digest, size, namespace, sources, has_children } = content;
    let kind = if *has_children { "manifest" } else { "blob" };
    println!("{digest} {size} {namespace} {kind}");
    for source in sources {
        println!("    {source} here {:?}", source.name_here());
    }
}

async fn read(containerd: &Containerd, digest: &Digest) -> Result<()> {
    let listing = containerd.list().await?;
    let content = listing.contents.into_iter().find(|content| content.digest == *digest);
    let content = content.context("containerd has no such content")?;
    let mut bytes = containerd.read(&content.namespace, digest, 0..content.size).await?;
    let mut out = std::io::stdout().lock();
    while let Some(bytes) = bytes.try_next().await? {
        out.write_all(&bytes)?;
    }
    Ok(out.flush()?)
}

async fn watch(containerd: &Containerd, count: usize) -> Result<()> {
    let mut watch = containerd.watch().await?;
    for number in 1..=count {
        watch.changed().await?;
        println!("change {number}");
    }
    Ok(())
}
