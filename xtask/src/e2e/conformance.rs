//! The conformance program of the OCI distribution specification, with everything switched on.
//!
//! Twice per level of the specification: against a lone node, and against a swarm of three where
//! [`Splitter`] sends what writes to A and what reads to B, so that B must know at once what A has
//! said yes to. The daemons run with their default configuration. The program's exit status is not
//! believed: it is 0 when the configuration does not load, and skipped tests do not change it.

mod results;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use super::scenario::explain;
use super::splitter::Splitter;
use super::{Setup, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::swarm::{self, Node};
use crate::tools::GoTool;

use results::{Counts, Verdicts};

/// Levels of the specification, as the program calls them.
const LEVELS: &[&str] = &["1.1", "dev"];

/// Everything that the program can be told to test; some of it is off by default at either level.
const SWITCHES: &[&str] = &[
    "OCI_API_PING",
    "OCI_API_PULL",
    "OCI_API_PUSH",
    "OCI_API_BLOBS_ATOMIC",
    "OCI_API_BLOBS_DELETE",
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_MOUNT_ANONYMOUS",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_ATOMIC",
    "OCI_API_MANIFESTS_DELETE",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
    "OCI_API_TAGS_ATOMIC",
    "OCI_API_TAGS_DELETE",
    "OCI_API_TAGS_LIST",
    "OCI_API_REFERRER",
    "OCI_DATA_IMAGE",
    "OCI_DATA_INDEX",
    "OCI_DATA_INDEX_LIST",
    "OCI_DATA_SPARSE",
    "OCI_DATA_ARTIFACT",
    "OCI_DATA_SUBJECT",
    "OCI_DATA_SUBJECT_MISSING",
    "OCI_DATA_ARTIFACT_LIST",
    "OCI_DATA_SUBJECT_LIST",
    "OCI_DATA_DATA_FIELD",
    "OCI_DATA_NONDISTRIBUTABLE",
    "OCI_DATA_CUSTOM_FIELDS",
    "OCI_DATA_NO_LAYERS",
    "OCI_DATA_EMPTY_BLOB",
    "OCI_DATA_SHA512",
];

/// The program has over a thousand tests with everything on. A run with fewer passes has not
/// tested what it was told to, whatever else it says.
const MIN_PASSED: u64 = 950;

/// A swarm run in which fewer requests than this reached either node shows nothing. The program
/// sends over 500 requests of each kind.
const MIN_ROUTED: u64 = 300;

/// How many kinds of faults are shown; all of them are in the log that is kept.
const MAX_FAULTS: usize = 40;

/// How much of an output without counts is shown. Bytes.
const MAX_QUOTED: usize = 3000;

/// One run of the program.
#[derive(Debug)]
struct Run<'a> {
    setup: &'a Setup,
    level: &'static str,
    /// Name of the directory and part of the repositories' names.
    name: String,
    dir: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    for level in LEVELS {
        let run = Run::new(setup, dir, level, "lone")?;
        checks.check(&format!("conformance {level}: a lone node"), || run.lone());
        let run = Run::new(setup, dir, level, "swarm")?;
        checks.check(&format!("conformance {level}: writes to A, reads from B"), || run.swarm());
    }
    Ok(())
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup, dir: &Path, level: &'static str, kind: &str) -> Result<Self> {
        let name = format!("{kind}-{}", level.replace('.', "-"));
        let dir = dir.join(&name);
        fs::create_dir_all(&dir)?;
        Ok(Self { setup, level, name, dir })
    }

    fn lone(&self) -> Result<()> {
        let nodes = swarm::start(&self.setup.daemon, &self.dir, &["lone".to_owned()])?;
        explain(&nodes, self.against(&nodes[0].registry))
    }

    fn swarm(&self) -> Result<()> {
        let nodes: [Node; 3] = three_nodes(self.setup, &self.dir)?;
        let [a, b, _] = &nodes;
        let splitter = Splitter::start(&a.registry, &b.registry)?;
        let result = self.against(&splitter.address);
        let counts = splitter.counts();
        println!("        {} requests to A, {} to B", counts.writer, counts.reader);
        explain(&nodes, result)?;
        let least = counts.writer.min(counts.reader);
        ensure!(least >= MIN_ROUTED, "hardly anything reached one of the nodes: {counts:?}");
        Ok(())
    }

    /// Runs the program and judges what it reports; keeps the report when something is wrong.
    fn against(&self, registry: &str) -> Result<()> {
        let log = self.run_program(registry)?;
        let said = fs::read_to_string(&log)?;
        let judged = self.judge(&said);
        judged.map_err(|error| {
            let kept = match self.keep() {
                Ok(kept) => format!("report kept in {}", kept.display()),
                Err(error) => format!("the report could not be kept: {error:#}"),
            };
            let mut faults = results::faults(&said);
            faults.truncate(MAX_FAULTS);
            anyhow!("{error:#}\n{}\n{kept}", faults.join("\n"))
        })
    }

    /// Gives the file with everything that the program wrote.
    fn run_program(&self, registry: &str) -> Result<PathBuf> {
        let log = self.dir.join("log");
        let out = File::create(&log)?;
        let mut program = run::client(GoTool::CONFORMANCE.program(&self.setup.target));
        program.current_dir(&self.dir).env_clear().envs(SWITCHES.iter().map(|name| (name, "true")));
        program.env("OCI_REGISTRY", registry).env("OCI_TLS", "disabled");
        program.env("OCI_VERSION", self.level).env("OCI_RESULTS_DIR", &self.dir);
        program.env("OCI_REPO1", format!("conformance/{}/one", self.name));
        program.env("OCI_REPO2", format!("conformance/{}/two", self.name));
        if let Some(path) = std::env::var_os("PATH") {
            program.env("PATH", path);
        }
        program.stdout(out.try_clone()?).stderr(out);
        program.status().context("cannot start the conformance program")?;
        Ok(log)
    }

    fn judge(&self, said: &str) -> Result<()> {
        let counts = Counts::parse(said).with_context(|| {
            format!("no counts at the end of:\n{}", run::tail(said, MAX_QUOTED))
        })?;
        println!("        level {}: {counts}", self.level);
        let yaml = fs::read_to_string(self.dir.join("results.yaml"))
            .context("the program left no results.yaml")?;
        let mut problems = Verdicts::parse(&yaml).problems(SWITCHES.len());
        problems.extend(counts.problems(MIN_PASSED));
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    /// Copies the report to where it stays after the run.
    fn keep(&self) -> Result<PathBuf> {
        let kept = self.setup.target.join("e2e-kept").join(format!("conformance-{}", self.name));
        fs::create_dir_all(&kept)?;
        for file in ["log", "results.yaml", "report.html"] {
            let from = self.dir.join(file);
            if from.exists() {
                fs::copy(from, kept.join(file))?;
            }
        }
        Ok(kept)
    }
}
