//! Credentials from docker's file, by the public interface; helpers are tested within the crate.

use ddr_upstream::{Credentials, Settings, SettingsError, Upstream, UpstreamError};

use crate::bed::{BASIC, found, resolve, settings};
use crate::server::{Reply, Server};

#[tokio::test]
async fn the_file_counts_as_it_is_now() {
    let server = Server::start(|seen| match seen.authorization() {
        Some(BASIC) => found(),
        _ => Reply::challenge("Basic"),
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    std::fs::write(&path, "{}").expect("written");
    let credentials = Credentials::DockerConfig(path.clone());
    let settings = Settings { credentials, ..settings(&server.base()) };
    let upstream = Upstream::new(settings).expect("settings");
    assert!(matches!(resolve(&upstream).await, Err(UpstreamError::Denied(_))));
    let text = r#"{"auths":{"https://registry.example/v1/":{"auth":"dXNlcjpzZWNyZXQ="}}}"#;
    std::fs::write(&path, text).expect("written");
    assert!(resolve(&upstream).await.expect("an answer").is_some());
    std::fs::remove_file(&path).expect("removed");
    let error = resolve(&upstream).await.expect_err("no file");
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn unusable_settings_are_refused() {
    let good = settings("https://registry.example");
    let missing = std::path::PathBuf::from("/nonexistent/file");
    let colon = Credentials::Basic { user: "a:b".to_owned(), password: String::new() };
    for settings in [
        Settings { endpoint: "registry.example".to_owned(), ..good.clone() },
        Settings { hosts: vec!["*".to_owned()], ..good.clone() },
        Settings { proxy: Some("http://".to_owned()), ..good.clone() },
        Settings { proxy: Some("socks5://secret@p.example".to_owned()), ..good.clone() },
        Settings { credentials: colon, ..good.clone() },
    ] {
        let error = Upstream::new(settings).expect_err("refused");
        assert!(matches!(&error, SettingsError::Invalid(t) if !t.contains("secret")), "{error}");
    }
    for settings in [
        Settings { ca_files: vec![missing.clone()], ..good.clone() },
        Settings { credentials: Credentials::DockerConfig(missing), ..good },
    ] {
        let error = Upstream::new(settings).expect_err("refused");
        assert!(error.to_string().starts_with("/nonexistent/file: "), "{error}");
    }
}
