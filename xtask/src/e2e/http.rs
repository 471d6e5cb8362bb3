//! The registry's HTTP interface, spoken by curl.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run;

/// The longest wait for one answer. Seconds.
const DEADLINE_S: &str = "60";

/// Every manifest as it is: a registry may convert for a client that names no media types.
pub(crate) const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    url: String,
    pub(crate) status: u16,
    /// From the first byte sent to the last received. Milliseconds.
    pub(crate) time_ms: f64,
    headers: Vec<(String, String)>,
    /// Empty when the body went to a file.
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// An error that shows the whole answer unless the status is the expected one.
    pub(crate) fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "expected status {status}, got {self:?}");
        Ok(self)
    }
}

/// One request. `extra` holds curl's own options: method, headers, body.
pub(crate) fn request(url: &str, extra: &[&str]) -> Result<Answer> {
    let mut curl = run::client("/usr/bin/curl");
    curl.args(["--noproxy", "*", "--silent", "--show-error", "--max-time", DEADLINE_S]);
    curl.args(["--dump-header", "-", "--write-out", "\n%{time_total}"]).args(extra).arg(url);
    let answer = parse(&run::output(&mut curl)?).with_context(|| format!("answer of {url}"))?;
    Ok(Answer { url: url.to_owned(), ..answer })
}

/// GET into a file.
pub(crate) fn download(url: &str, file: &Path) -> Result<Answer> {
    request(url, &["--output", &file.to_string_lossy()])
}

/// Pushes a file as one blob, in one request. `digest` is that of the file.
pub(crate) fn push_blob(registry: &str, repository: &str, file: &Path, digest: &str) -> Result<()> {
    let url = format!("http://{registry}/v2/{repository}/blobs/uploads/?digest={digest}");
    let body = format!("@{}", file.display());
    let octets = "Content-Type: application/octet-stream";
    let answer = request(&url, &["--request", "POST", "--header", octets, "--data-binary", &body])?;
    answer.expect(201)?;
    Ok(())
}

/// Pushes a manifest.
pub(crate) fn push_manifest(
    registry: &str,
    repository: &str,
    reference: &str,
    media_type: &str,
    file: &Path,
) -> Result<Answer> {
    let url = format!("http://{registry}/v2/{repository}/manifests/{reference}");
    let body = format!("@{}", file.display());
    let kind = format!("Content-Type: {media_type}");
    request(&url, &["--request", "PUT", "--header", &kind, "--data-binary", &body])?.expect(201)
}

/// The digest that a node gives for a reference.
pub(crate) fn digest_of(registry: &str, repository: &str, reference: &str) -> Result<String> {
    let url = format!("http://{registry}/v2/{repository}/manifests/{reference}");
    let answer =
        request(&url, &["--head", "--output", "/dev/null", "--header", ACCEPT])?.expect(200)?;
    let digest = answer.header("docker-content-digest").context("no Docker-Content-Digest")?;
    Ok(digest.to_owned())
}

/// Succeeds when a node says that it does not have a manifest.
pub(crate) fn absent(registry: &str, repository: &str, reference: &str) -> Result<()> {
    let url = format!("http://{registry}/v2/{repository}/manifests/{reference}");
    request(&url, &["--head", "--output", "/dev/null", "--header", ACCEPT])?.expect(404)?;
    Ok(())
}

/// The value of a counter of a daemon, all its labels together.
pub(crate) fn metric(admin: &str, name: &str) -> Result<u64> {
    let answer = request(&format!("http://{admin}/metrics"), &[])?.expect(200)?;
    // One that has not counted is not shown.
    let values = answer.body.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then_some(value)
    });
    values.map(|value| value.parse::<u64>().with_context(|| format!("{name} {value}"))).sum()
}

/// `sha256:…` of each file, in order.
pub(crate) fn digests<P: AsRef<Path>>(files: &[P]) -> Result<Vec<String>> {
    let mut command = Command::new("sha256sum");
    command.args(files.iter().map(AsRef::as_ref));
    let out = run::output(&mut command)?;
    let digests: Vec<String> =
        out.lines().filter_map(|l| Some(format!("sha256:{}", l.split(' ').next()?))).collect();
    ensure!(digests.len() == files.len(), "sha256sum gave {} lines", digests.len());
    Ok(digests)
}

/// Takes apart what curl wrote: header blocks, the body, the time on a last line.
fn parse(out: &str) -> Result<Answer> {
    let (mut rest, time) = out.rsplit_once('\n').context("no time")?;
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").context("no end of headers")?;
        let mut lines = head.lines();
        let status_line = lines.next().unwrap_or_default();
        let Some(status) = status_line.split(' ').nth(1).and_then(|s| s.parse().ok()) else {
            bail!("not a status line: {status_line}");
        };
        if status == 100 {
            rest = body;
            continue; // "100 Continue" stands before the real answer
        }
        let headers = lines
            .filter_map(|l| l.split_once(": "))
            .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
            .collect();
        let time_ms = time.parse::<f64>().context("time is not a number")? * 1000.0;
        return Ok(Answer { url: String::new(), status, time_ms, headers, body: body.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let out = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nLocation: /v2/x\r\n\
                   OCI-Subject: sha256:a\r\n\r\nline\nline\n0.002000";
        let answer = parse(out).unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("oci-subject"), Some("sha256:a"));
        assert_eq!(answer.body, "line\nline");
        assert!((answer.time_ms - 2.0).abs() < 1e-9);
        assert!(answer.expect(200).is_err());
    }
}
