//! Programs of this machine that `ddr setup` asks and tells. None is restarted.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::process::Command;
use tokio::time::timeout;

use crate::client;
use crate::setup::Client;

/// Wait for a program that answers at once, or reloads.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// Wait for the registry port.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    /// It, or what it is to act on, is not here.
    Absent,
    Failed(String),
}

/// Major version of the docker daemon here, if there is one that says it.
pub(super) async fn docker_version() -> Option<u32> {
    let mut dockerd = Command::new("dockerd");
    dockerd.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PROGRAM_TIMEOUT, dockerd.output()).await.ok()?.ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// Of a text such as `Docker version 28.0.1, build ...`.
fn major(text: &str) -> Option<u32> {
    let version = text.split_once("version ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Tells a service of systemd that runs to read its configuration again.
pub(super) async fn reload(unit: &str) -> Answer {
    match systemctl(&["is-active", "--quiet", unit]).await {
        Answer::Done => systemctl(&["reload", unit]).await,
        _ => Answer::Absent,
    }
}

async fn systemctl(arguments: &[&str]) -> Answer {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match timeout(PROGRAM_TIMEOUT, command.kill_on_drop(true).status()).await {
        Ok(status) => answer(status),
        Err(_) => Answer::Failed("it takes too long".to_owned()),
    }
}

fn answer(status: std::io::Result<ExitStatus>) -> Answer {
    match status {
        Ok(status) if status.success() => Answer::Done,
        Ok(status) => Answer::Failed(status.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Answer::Absent,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// Whether a registry answers there.
pub(super) async fn answers(registry: SocketAddr) -> bool {
    let Ok(request) = Request::get("/v2/").body(Empty::<Bytes>::new()) else { return false };
    let answer = timeout(PING_TIMEOUT, client::send(registry, request)).await;
    let is_registry = |status| status == StatusCode::OK || status == StatusCode::UNAUTHORIZED;
    matches!(answer, Ok(Ok(answer)) if is_registry(answer.status()))
}

/// The command by which `client` pulls an image through its mirrors.
pub(super) fn pull(client: Client, image: &str, hosts_dir: Option<&str>) -> Vec<String> {
    let words: Vec<&str> = match client {
        Client::Docker => vec!["docker", "pull", "--", image],
        Client::Podman => vec!["podman", "pull", "--", image],
        Client::Crio => vec!["crictl", "pull", image],
        Client::Containerd => {
            let directory = hosts_dir.unwrap_or_default();
            vec!["ctr", "-n", "k8s.io", "images", "pull", "--hosts-dir", directory, image]
        }
    };
    words.into_iter().map(str::to_owned).collect()
}

/// Runs a command whose output the user sees. It takes as long as it takes; Ctrl-C ends it.
pub(super) async fn run_shown(command: &[String]) -> Answer {
    let Some((program, arguments)) = command.split_first() else { return Answer::Absent };
    answer(Command::new(program).args(arguments).stdin(Stdio::null()).status().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("Docker version 28.0.1, build bbd0a17"), Some(28));
        assert_eq!(major("Docker version 20.10.24+dfsg1, build 297e128"), Some(20));
        assert_eq!(major("Docker version dev, build x"), None);
        assert_eq!(major("podman"), None);
    }

    #[test]
    fn each_client_pulls_by_its_own_program() {
        let words = |client| pull(client, "a", Some("/d")).join(" ");
        assert_eq!(words(Client::Docker), "docker pull -- a");
        assert_eq!(words(Client::Containerd), "ctr -n k8s.io images pull --hosts-dir /d a");
        assert_eq!(words(Client::Crio), "crictl pull a");
    }
}
