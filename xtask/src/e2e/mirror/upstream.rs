//! Debian's docker-registry as somebody else's registry.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::tokens::{ISSUER, SERVICE};
use crate::bench::free_address;
use crate::e2e::http;
use crate::run;
use crate::tools::{REGISTRY, SKOPEO};

/// From start to an answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where a registry is that is known by its name alone: a loopback address that nobody else uses.
pub(super) const HUB: &str = "127.77.0.1:443";

/// The certificate of a registry with TLS, in its directory.
pub(super) const CERTIFICATE: &str = "cert.pem";
/// Who may read the closed registry.
pub(super) const USER: &str = "ci";
/// The password of [`USER`].
pub(super) const PASSWORD: &str = "rosebud-9";
/// The line of the password file for it (bcrypt).
pub(super) const HTPASSWD: &str =
    "ci:$2b$04$d1coj8faDO5HVKwjV6/UBemonQy.CpeBFS2OK00F7hEGx.vaeSfkC\n";
/// Both, as they are sent in `Authorization`.
pub(super) const BASIC: &str = "Y2k6cm9zZWJ1ZC05";

/// A registry that can be stopped and started again where it was.
#[derive(Debug)]
pub(super) struct Registry {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    dir: PathBuf,
    child: Option<Child>,
}

impl Registry {
    /// One that asks nobody who he is.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Self::new(dir, "")
    }

    /// One for [`USER`] only, over TLS with a certificate of its own for `host`, in [`CERTIFICATE`].
    pub(super) fn with_password(dir: &Path, host: &str) -> Result<Self> {
        let (tls, file) = (tls(dir, host)?, dir.join("htpasswd"));
        fs::write(&file, HTPASSWD)?;
        let auth = format!("auth:\n  htpasswd:\n    realm: closed\n    path: {file:?}\n");
        Self::new(dir, &(tls + &auth))
    }

    /// One that stands for Docker Hub at [`HUB`], over TLS with a certificate of its own for `host`.
    pub(super) fn hub(dir: &Path, host: &str) -> Result<Self> {
        Self::at(dir, HUB.to_owned(), &tls(dir, host)?)
    }

    /// One that trusts the tokens of a service, which is at `realm`.
    pub(super) fn with_tokens(dir: &Path, realm: &str, bundle: &Path) -> Result<Self> {
        let auth = format!(
            "auth:\n  token:\n    realm: {realm}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    \
             rootcertbundle: {bundle:?}\n"
        );
        Self::new(dir, &auth)
    }

    fn new(dir: &Path, more: &str) -> Result<Self> {
        Self::at(dir, free_address()?, more)
    }

    fn at(dir: &Path, address: String, more: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let data = dir.join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {data:?}\n\
             http:\n  addr: {address}\n{more}"
        );
        fs::write(dir.join("config.yml"), config)?;
        let mut registry = Self { address, dir: dir.to_path_buf(), child: None };
        registry.start()?;
        Ok(registry)
    }

    /// One that is a cache of another.
    pub(super) fn caching(dir: &Path, other: &str) -> Result<Self> {
        Self::new(dir, &format!("proxy:\n  remoteurl: http://{other}\n"))
    }

    /// Tells `url` of what is pushed, from now on.
    pub(super) fn tell(&mut self, url: &str) -> Result<()> {
        self.stop()?;
        let told = format!(
            "notifications:\n  endpoints:\n    - name: ddr\n      url: {url}\n      timeout: 1s\n      \
             threshold: 5\n      backoff: 1s\n"
        );
        let file = self.dir.join("config.yml");
        fs::write(&file, fs::read_to_string(&file)? + &told)?;
        self.start()
    }

    /// The file with its certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.dir.join(CERTIFICATE)
    }

    /// Its name under `host`.
    pub(super) fn named(&self, host: &str) -> String {
        self.address.replace("127.0.0.1", host)
    }

    pub(super) fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("output"))?;
        let mut command = Command::new(REGISTRY);
        command.arg("serve").arg(self.dir.join("config.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot start docker-registry")?);
        let url = format!("http://{}/v2/", self.address);
        run::wait_for("docker-registry answers", START_LIMIT, || {
            Ok(http::request(&url, &[]).is_ok().then_some(()))
        })
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Pushes an OCI archive as [`USER`].
    pub(super) fn push(&self, archive: &Path, reference: &str) -> Result<()> {
        push(archive, &format!("{}/{reference}", self.address))
    }

    /// Blobs that it has given since it was started first, as its log says.
    pub(super) fn blobs_given(&self) -> Result<usize> {
        let log = fs::read_to_string(self.dir.join("output"))?;
        let given = |line: &&str| line.contains("\"GET /v2/") && line.contains("/blobs/sha256:");
        Ok(log.lines().filter(given).count())
    }
}

/// Pushes an OCI archive as [`USER`].
pub(super) fn push(archive: &Path, reference: &str) -> Result<()> {
    let mut copy = run::client(SKOPEO);
    copy.args(["copy", "--dest-tls-verify=false", "--dest-creds"]);
    copy.arg(format!("{USER}:{PASSWORD}")).arg(format!("oci-archive:{}", archive.display()));
    run::output(copy.arg(format!("docker://{reference}"))).map(drop)
}

/// Makes a certificate for `host`; its file, [`CERTIFICATE`], and that of its key.
pub(super) fn certify(dir: &Path, host: &str) -> Result<(PathBuf, PathBuf)> {
    fs::create_dir_all(dir)?;
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join("key.pem"));
    let made = rcgen::generate_simple_self_signed([host.to_owned()])?;
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((certificate, key))
}

/// The same as lines of the configuration.
fn tls(dir: &Path, host: &str) -> Result<String> {
    let (certificate, key) = certify(dir, host)?;
    Ok(format!("  tls:\n    certificate: {certificate:?}\n    key: {key:?}\n"))
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Fails only when the process has ended, which is what is wanted.
        self.stop().ok();
    }
}
