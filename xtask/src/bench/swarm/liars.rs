//! Nodes that send wrong bytes: holders of a blob whose file was changed behind the daemon's back.
//!
//! The daemon is the one that is shipped. It sends what lies on its disk, so its peers see a node that
//! says it has everything and lies in every piece.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::daemons::Daemons;
use super::pull::{self, Wanted};
use crate::netns::Lab;

/// One byte is changed in so many: no piece is as small.
const STRIDE_BYTES: u64 = 16 * 1024;

/// The last `count` nodes pull everything, and what they have is then made wrong. `dir` is that of
/// the daemons. Returns when the first node finds them as holders.
pub(super) fn make(
    daemons: &Daemons,
    lab: &Lab,
    dir: &Path,
    count: usize,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let nodes = lab.pullers().len();
    let delays = vec![Duration::ZERO; nodes];
    let clients = daemons.clients(lab, &delays).split_off(nodes - count);
    let outcomes = pull::all(&clients, wanted, |_| Ok(()))?;
    let whole = outcomes.iter().all(|outcome| outcome.pull.is_some_and(|pull| pull.right));
    ensure!(whole, "not every node that is to lie got everything");
    for number in nodes - count + 1..=nodes {
        let data = Daemons::data(dir, number);
        for blob in wanted.blobs {
            let files = files_of(&data, blob.bytes.len() as u64)?;
            ensure!(!files.is_empty(), "no file of a blob in {}", data.display());
            files.iter().try_for_each(|file| change(file))?;
        }
    }
    daemons.wait_found(lab, wanted.blobs, 1 + count)
}

/// Files of this length, at any depth.
fn files_of(dir: &Path, bytes: u64) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let about = match entry.metadata() {
            // A daemon that runs may have taken it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if about.is_dir() {
            found.extend(files_of(&entry.path(), bytes)?);
        } else if about.len() == bytes {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Makes one byte in every [`STRIDE_BYTES`] another one.
fn change(path: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    for at in (0..file.metadata()?.len()).step_by(usize::try_from(STRIDE_BYTES)?) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[!byte[0]], at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_is_changed_and_no_length() {
        let name = format!("ddr-liars-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(dir.join("below")).unwrap();
        let (blob, other) = (dir.join("below/blob"), dir.join("other"));
        fs::write(&blob, vec![7; 40_000]).unwrap();
        fs::write(&other, "short").unwrap();
        let files = files_of(&dir, 40_000).unwrap();
        files.iter().for_each(|file| change(file).unwrap());
        let bytes = fs::read(&blob).unwrap();
        let changed: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 7).collect();
        let kept = fs::read(&other).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((files, changed), (vec![blob], vec![0, 16_384, 32_768]));
        assert_eq!((bytes.len(), kept), (40_000, b"short".to_vec()));
    }
}
