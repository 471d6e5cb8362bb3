//! Image sources: for each a directory with a Dockerfile, and the same image as an OCI archive.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Random, buildah};
use crate::run;
use crate::tools;

/// Prints the content of a small image; the same in all of them.
pub(crate) const PRINT: &[&str] = &["/bin/busybox", "cat", "/motd"];

/// Layers of a [`large`] image.
pub(crate) const LARGE_LAYERS: u64 = 4;
const MIB: usize = 1 << 20;

/// One image source.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Directory with a Dockerfile.
    pub(crate) source: PathBuf,
    /// The same image as an OCI archive, for clients that do not build.
    pub(crate) archive: PathBuf,
}

/// All image sources of a run.
#[derive(Debug)]
pub(crate) struct Images {
    /// Prints `one`.
    pub(crate) one: Image,
    /// Prints `two`.
    pub(crate) two: Image,
    /// A Debian root file system.
    pub(crate) debian: Image,
}

/// Makes the small images in `dir` and the archive of the large one beside its source.
pub(super) fn prepare(dir: &Path, debian: PathBuf) -> Result<Images> {
    let dir = dir.join("images");
    let one = dir.join("one");
    let two = dir.join("two");
    small(&one, "one")?;
    small(&two, "two")?;
    let builder = buildah::Buildah::new(&dir.join("storage"));
    let image = |source: PathBuf| -> Result<Image> {
        let archive = source.with_extension("oci.tar");
        if !archive.exists() {
            let part = source.with_extension("oci.part");
            builder.archive(&source, &part)?;
            fs::rename(part, &archive)?;
        }
        Ok(Image { source, archive })
    };
    Ok(Images { one: image(one)?, two: image(two)?, debian: image(debian)? })
}

/// A source from `scratch`: one static program and one file.
pub(super) fn small(dir: &Path, content: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY motd /motd\n\
                      CMD [\"/bin/busybox\", \"cat\", \"/motd\"]\n";
    fs::write(dir.join("Dockerfile"), dockerfile)?;
    fs::write(dir.join("motd"), content)?;
    run::output(Command::new("cp").arg(tools::BUSYBOX).arg(dir.join("busybox")))?;
    Ok(())
}

/// A source from `scratch` with layers that no compressor makes smaller.
pub(crate) fn large(source: &Path, size_mib: u64) -> Result<()> {
    fs::create_dir_all(source)?;
    let mut dockerfile = String::from("FROM scratch\n");
    for layer in 0..LARGE_LAYERS {
        let mut file = File::create(source.join(format!("layer{layer}")))?;
        let mut random = Random::new(layer);
        for _ in 0..size_mib / LARGE_LAYERS {
            file.write_all(&random.bytes(MIB))?;
        }
        dockerfile.push_str(&format!("COPY layer{layer} /\n"));
    }
    dockerfile.push_str("CMD [\"/none\"]\n");
    fs::write(source.join("Dockerfile"), dockerfile)?;
    Ok(())
}
