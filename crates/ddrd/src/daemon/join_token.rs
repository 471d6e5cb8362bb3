//! The join token in the data directory, and the one that `--join` gives.
//!
//! The file always holds a token that works for at least half of [`FILE_TTL`]: it is looked at at
//! the start and every [`CHECK_EVERY`]. The token itself must never reach a log or the screen.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ddr_net::JoinToken;
use ddr_net::token::MAX_TOKEN_CHARS;
use ddr_node::{Node, TokenInfo};

use super::DaemonError;

/// Name of the file, mode 0600.
pub(super) const FILE: &str = "join-token";
/// Life of the token in the file.
const FILE_TTL: Duration = Duration::from_secs(24 * 3600);
/// How often the file is looked at.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(3600);
/// Bytes of a token file that are read: a token and white space around it.
const MAX_FILE_BYTES: u64 = MAX_TOKEN_CHARS as u64 + 1024;

/// The token that `--join TOKEN|@FILE` names.
pub(super) fn given(join: &str) -> Result<JoinToken, DaemonError> {
    let Some(path) = join.strip_prefix('@') else { return Ok(join.parse()?) };
    let text = read(Path::new(path))
        .map_err(|source| DaemonError::TokenFile { path: path.into(), source })?;
    Ok(text.parse()?)
}

/// Makes sure that `dir/join-token` holds a token that works, and answers its path.
pub(super) async fn provide(dir: &Path, node: &Node, advertise: SocketAddr) -> io::Result<PathBuf> {
    let path = dir.join(FILE);
    let known = node.tokens().await.unwrap_or_default();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let kept = read(&path).ok().and_then(|text| text.parse::<JoinToken>().ok());
    if kept.is_some_and(|token| still_good(&token, &known, advertise, now_ms)) {
        return Ok(path);
    }
    let token = node.create_token(FILE_TTL).await.map_err(io::Error::other)?;
    write(dir, &path, &token)?;
    Ok(path)
}

/// A token is kept while this node knows it as valid, it leads here, and half of its life is left.
fn still_good(token: &JoinToken, known: &[TokenInfo], here: SocketAddr, now_ms: u64) -> bool {
    let id: String = token.serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let half_ms = u64::try_from(FILE_TTL.as_millis() / 2).unwrap_or(u64::MAX);
    known.iter().any(|info| info.id == id && !info.revoked)
        && token.addresses().contains(&here)
        && token.expires_ms() > now_ms.saturating_add(half_ms)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces the file in one step. Temporary files of `tempfile` have mode 0600.
fn write(dir: &Path, path: &Path, token: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".join-token-").tempfile_in(dir)?;
    writeln!(file, "{token}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        write(dir.path(), &path, "first-and-longer").unwrap();
        write(dir.path(), &path, "second").unwrap();
        assert_eq!(read(&path).unwrap(), "second\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_and_a_malformed_token_are_told_apart() {
        assert!(matches!(given("@/nonexistent/token"), Err(DaemonError::TokenFile { .. })));
        assert!(matches!(given("hello"), Err(DaemonError::Token(_))));
    }
}
