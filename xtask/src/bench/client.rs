//! The client of the measurements: plain sockets, bytes made before the clock runs.

use std::io;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

use crate::e2e::Random;
use crate::run;
use crate::tools::WRK;
use crate::torture::shown_digest;
use crate::wire::{Connection, with_query};

/// A reader takes up to so much at once and throws it away. Bytes.
const READ_BYTES: usize = 1 << 20;

/// Pieces of a streamed body, as docker sends them. Bytes.
const STREAM_BYTES: usize = 32 * 1024;

/// Connections and threads of wrk.
const WRK_CONNECTIONS: &str = "32";
const WRK_THREADS: &str = "1";

/// Media type of the manifest that is read.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const OCTETS: &str = "Content-Type: application/octet-stream";

/// How a blob is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    /// POST, then PUT with everything.
    Whole,
    /// POST, one PATCH without a length, PUT without a body: docker.
    Streamed,
}

/// What a reader does with the bytes of a blob.
#[derive(Debug, Clone, Copy)]
pub(super) enum Read<'a> {
    /// Takes them and throws them away.
    Copied,
    /// Counts them and leaves them to the kernel, so that it costs next to nothing itself.
    Left,
    /// Compares their digest.
    Hashed(&'a str),
}

/// Bytes and their digest.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: String,
}

impl Content {
    /// Bytes that no compressor makes smaller and that no other seed gives.
    pub(super) fn new(seed: u64, len: usize) -> Self {
        Self::of(Random::new(seed).bytes(len))
    }

    fn of(bytes: Vec<u8>) -> Self {
        let digest = shown_digest(Sha256::new_with_prefix(&bytes));
        Self { bytes, digest }
    }
}

/// GET by `streams` readers at once.
pub(super) fn get(
    address: &str,
    target: &str,
    len: u64,
    streams: usize,
    how: Read<'_>,
) -> Result<()> {
    thread::scope(|scope| {
        let readers: Vec<_> =
            (0..streams).map(|_| scope.spawn(|| get_one(address, target, len, how))).collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?)
    })
    .with_context(|| format!("GET http://{address}{target}"))
}

fn get_one(address: &str, target: &str, len: u64, how: Read<'_>) -> Result<()> {
    let mut connection = Connection::open(address)?;
    connection.send("GET", target, &[], None)?;
    let head = connection.receive_head()?;
    ensure!(head.status == 200, "{head:?}");
    let mut buffer = vec![0; READ_BYTES];
    let got = match how {
        Read::Copied => connection.receive_body(&head, &mut buffer, |_| {})?,
        Read::Left => connection.discard_body(&head, &mut buffer)?,
        Read::Hashed(digest) => {
            let mut hash = Sha256::new();
            let got = connection.receive_body(&head, &mut buffer, |piece| hash.update(piece))?;
            let found = shown_digest(hash);
            ensure!(found == digest, "digest {found} instead of {digest}");
            got
        }
    };
    ensure!(got == len, "{got} bytes instead of {len}");
    Ok(())
}

/// Pushes one blob; returns after 201.
pub(super) fn push(
    connection: &mut Connection,
    repository: &str,
    content: &Content,
    how: Push,
) -> Result<()> {
    let opened = connection.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), Some(b""))?;
    ensure!(opened.head.status == 202, "POST: {:?}", opened.head);
    let mut target = opened.head.location()?.to_owned();
    let mut rest: &[u8] = &content.bytes;
    if how == Push::Streamed {
        connection.send_chunked("PATCH", &target, rest, STREAM_BYTES)?;
        let patched = connection.receive()?;
        ensure!(patched.head.status == 202, "PATCH: {:?}", patched.head);
        patched.head.location()?.clone_into(&mut target);
        rest = &[];
    }
    let put = with_query(&target, &format!("digest={}", content.digest));
    connection.send("PUT", &put, &[OCTETS], Some(rest))?;
    let done = connection.receive()?;
    ensure!(done.head.status == 201, "PUT: {:?}", done.head);
    Ok(())
}

/// Pushes blobs over `connections` connections, each its part one after the other.
pub(super) fn push_many(
    address: &str,
    repository: &str,
    contents: &[Content],
    connections: usize,
) -> Result<()> {
    thread::scope(|scope| {
        let part = contents.len().div_ceil(connections);
        let pushers: Vec<_> = contents
            .chunks(part)
            .map(|part| {
                scope.spawn(move || -> Result<()> {
                    let mut connection = Connection::open(address)?;
                    part.iter().try_for_each(|c| push(&mut connection, repository, c, Push::Whole))
                })
            })
            .collect();
        pushers
            .into_iter()
            .try_for_each(|pusher| pusher.join().map_err(|_| anyhow!("a pusher panicked"))?)
    })
}

/// Pushes layers and an image of them as `tag`; gives the digest of its manifest.
pub(super) fn push_image(
    address: &str,
    repository: &str,
    tag: &str,
    layers: &[Content],
) -> Result<String> {
    let mut connection = Connection::open(address)?;
    let config = Content::of(b"{}".to_vec());
    push(&mut connection, repository, &config, Push::Whole)?;
    layers.iter().try_for_each(|l| push(&mut connection, repository, l, Push::Whole))?;
    let descriptor = |kind: &str, content: &Content| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        let (digest, size) = (&content.digest, content.bytes.len());
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let layers: Vec<_> = layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", &config),
        "layers": layers,
    });
    let bytes = manifest.to_string().into_bytes();
    let target = format!("/v2/{repository}/manifests/{tag}");
    connection.send("PUT", &target, &[&format!("Content-Type: {MANIFEST}")], Some(&bytes))?;
    let answer = connection.receive()?;
    ensure!(answer.head.status == 201, "{:?}", answer.head);
    Ok(shown_digest(Sha256::new_with_prefix(&bytes)))
}

/// Requests that wrk got answered, and in how many seconds.
pub(super) fn wrk(address: &str, target: &str, seconds: u64) -> Result<(f64, f64)> {
    let mut wrk = run::client(WRK);
    wrk.args(["-t", WRK_THREADS, "-c", WRK_CONNECTIONS, "-d", &format!("{seconds}s")]);
    wrk.args(["-H", &format!("Accept: {MANIFEST}")]).arg(format!("http://{address}{target}"));
    let said = run::output(&mut wrk)?;
    parse_wrk(&said).with_context(|| format!("{}:\n{said}", run::shown(&wrk)))
}

/// Reads `  12345 requests in 5.00s, …`, unless some were not answered well.
fn parse_wrk(said: &str) -> Result<(f64, f64)> {
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        bail!("not every request was answered well");
    }
    let line = said.lines().find(|l| l.contains(" requests in ")).context("no count")?;
    let (count, rest) = line.trim().split_once(" requests in ").context("no count")?;
    let seconds = rest.split_once("s,").context("no time")?.0;
    Ok((count.parse()?, seconds.parse()?))
}

/// The size of a blob as a registry tells it.
pub(super) fn size_of(address: &str, repository: &str, digest: &str) -> io::Result<Option<u64>> {
    let mut connection = Connection::open(address)?;
    connection.send("HEAD", &format!("/v2/{repository}/blobs/{digest}"), &[], None)?;
    let head = connection.receive_head()?;
    let length = head.field("content-length").and_then(|v| v.parse().ok());
    Ok(length.filter(|_| head.status == 200))
}

/// Takes a blob out of a repository.
pub(super) fn delete(address: &str, repository: &str, digest: &str) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let answer = connection.ask("DELETE", &format!("/v2/{repository}/blobs/{digest}"), None)?;
    ensure!(answer.head.status == 202, "DELETE: {:?}", answer.head);
    Ok(())
}

/// The version that a program prints, on whichever stream.
pub(super) fn version(program: &str, argument: &str) -> String {
    let Ok(out) = Command::new(program).arg(argument).output() else { return String::new() };
    let said = [out.stdout, out.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "  Thread Stats\n  61234 requests in 5.10s, 20.1MB read\nRequests/sec: 12006\n";
        assert_eq!(parse_wrk(said).unwrap(), (61234.0, 5.1));
        assert!(parse_wrk(&format!("{said}  Non-2xx or 3xx responses: 3\n")).is_err());
    }
}
