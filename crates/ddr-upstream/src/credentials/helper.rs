//! Credential helpers: programs `docker-credential-NAME` that keep secrets elsewhere.
//!
//! Decides how one is run: `get`, the server on standard input, JSON on standard output, within
//! [`HELPER_TIME`]. Never runs a name that is more than a name, and never repeats what a helper prints.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Login;

/// Longest run of a helper.
const HELPER_TIME: Duration = Duration::from_secs(10);
/// Most bytes that it may print.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;
/// Longest name.
const MAX_NAME_BYTES: usize = 64;
/// What helpers print when they do not know a server (docker-credential-helpers, `errors.go`).
const NOT_FOUND: &str = "credentials not found";
/// The user name that says that the secret is an identity token.
const IDENTITY_USER: &str = "<token>";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// What helper `name`, in `directory` or `PATH`, says of `server`. `Err`: what is wrong with the helper.
pub(super) async fn ask(
    directory: Option<&Path>,
    name: &str,
    server: &str,
) -> Result<Option<Login>, String> {
    if !is_name(name) {
        return Err("docker's configuration names a credential helper that is no name".to_owned());
    }
    let program = format!("docker-credential-{name}");
    let failed = |what: &str| format!("{program} {what}");
    let path = directory.map_or_else(|| program.clone().into(), |d| d.join(&program));
    let child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let child = child.map_err(|error| failed(&format!("cannot be run: {error}")))?;
    let run = timeout(HELPER_TIME, talk(child, server)).await;
    let run = run.map_err(|_| failed(&format!("takes longer than {} s", HELPER_TIME.as_secs())))?;
    let (status, output) = run.map_err(|_| failed("broke off"))?;
    if !status.success() {
        let is_unknown = String::from_utf8_lossy(&output).contains(NOT_FOUND);
        return if is_unknown { Ok(None) } else { Err(failed("failed")) };
    }
    let answer = serde_json::from_slice(&output);
    answer.map(login).map_err(|_| failed("did not print its JSON"))
}

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(fits)
}

async fn talk(mut child: Child, server: &str) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    if let Some(mut input) = child.stdin.take() {
        // One that does not read has what it needs.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?, output))
}

fn login(answer: Answer) -> Option<Login> {
    let Answer { user, secret } = answer;
    if secret.is_empty() {
        return None;
    }
    if user == IDENTITY_USER {
        return Some(Login::Identity(secret));
    }
    Some(Login::Basic { user, password: secret })
}
