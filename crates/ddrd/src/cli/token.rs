//! `ddr token create|list|revoke`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use http::Method;
use serde::Deserialize;

use super::CliError;
use super::admin::{AdminClient, encode};
use super::out;
use crate::duration;

/// Make, list and revoke join tokens
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token with which other machines join this swarm; it is shown once
    Create {
        /// How long it works: a number with s, m, h or d, from 1m to 90d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = checked_ttl)]
        ttl: String,
    },
    /// List the tokens that this node knows
    List,
    /// Let nobody join with a token any more; nodes that joined stay
    Revoke {
        /// The id that `ddr token list` shows
        id: String,
    },
}

#[derive(Deserialize)]
struct Created {
    token: String,
}

#[derive(Deserialize)]
struct Info {
    id: String,
    expires_ms: u64,
    revoked: bool,
}

fn checked_ttl(text: &str) -> Result<String, String> {
    duration::ttl(text).map(|_| text.to_owned())
}

pub(super) async fn run(admin: &AdminClient, token: Token) -> Result<(), CliError> {
    match token {
        Token::Create { ttl } => create(admin, &ttl).await,
        Token::List => list(admin).await,
        Token::Revoke { id } => revoke(admin, &id).await,
    }
}

/// The token alone goes to standard output, so that a script can take it.
async fn create(admin: &AdminClient, ttl: &str) -> Result<(), CliError> {
    let value = admin.ask(Method::POST, &format!("/api/v1/tokens?ttl={}", encode(ttl))).await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let created: Created = admin.view(value)?;
    eprintln!("on the other machine, within {ttl}: ddrd --join TOKEN");
    out::text(&format!("{}\n", created.token));
    Ok(())
}

async fn list(admin: &AdminClient) -> Result<(), CliError> {
    let value = admin.get("/api/v1/tokens").await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let tokens: Vec<Info> = admin.view(value)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let rows: Vec<_> = tokens.iter().map(|token| row(token, now_ms)).collect();
    out::text(&out::table(["ID", "ENDS", "STATE"], &rows));
    Ok(())
}

fn row(token: &Info, now_ms: u64) -> [String; 3] {
    let left_ms = token.expires_ms.saturating_sub(now_ms);
    let ends = match left_ms {
        0 => "ended".to_owned(),
        left => format!("in {}", duration::short(Duration::from_millis(left))),
    };
    let state = match (token.revoked, left_ms) {
        (true, _) => "revoked",
        (false, 0) => "expired",
        (false, _) => "valid",
    };
    [token.id.clone(), ends, state.to_owned()]
}

async fn revoke(admin: &AdminClient, id: &str) -> Result<(), CliError> {
    let value = admin.ask(Method::DELETE, &format!("/api/v1/tokens/{}", encode(id))).await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text(&format!("revoked {id}; nodes that joined with it stay members\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_a_token() {
        let state = |expires_ms, revoked| {
            row(&Info { id: "x".into(), expires_ms, revoked }, 1000)[2].clone()
        };
        assert_eq!(state(2000, false), "valid");
        assert_eq!(state(1000, false), "expired");
        assert_eq!(state(2000, true), "revoked");
    }
}
