//! What the machine can do: the bounds of a push, and the machine's description.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::table::Sample;

/// Written at once, as a registry does. Bytes.
const WRITE_BYTES: usize = 1 << 20;

/// SHA-256 on one core.
pub(super) fn sha256(bytes: &[u8]) -> Sample {
    let start = Instant::now();
    std::hint::black_box(Sha256::digest(bytes));
    Sample { amount: bytes.len() as f64, seconds: start.elapsed().as_secs_f64(), cpu_s: None }
}

/// A new file written and synced, on the file system of the data.
pub(super) fn disk(file: &Path, bytes: &[u8]) -> Result<Sample> {
    let start = Instant::now();
    let mut out = File::create(file)?;
    for piece in bytes.chunks(WRITE_BYTES) {
        out.write_all(piece)?;
    }
    out.sync_data()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(out);
    fs::remove_file(file)?;
    Ok(Sample { amount: bytes.len() as f64, seconds, cpu_s: None })
}

/// Processor, cores, memory, kernel.
pub(super) fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = value(&processors, "model name").unwrap_or("unknown processor");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = value(&memory, "MemTotal").and_then(|v| v.split(' ').next()?.parse().ok());
    let memory: f64 = memory.context("no MemTotal")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{model}, {} processors, {:.1} GiB of memory, Linux {}",
        thread::available_parallelism()?,
        memory / f64::from(1 << 20),
        kernel.trim()
    ))
}

/// The first `key : value` of a file in /proc.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim())
}
