use std::fs;
use std::process::Command;

use super::*;

fn settings(host: &str, config: &Path) -> Settings {
    Settings {
        host: host.parse().expect("a host"),
        endpoint: format!("https://{host}"),
        credentials: Credentials::DockerConfig(config.to_owned()),
        hosts: Vec::new(),
        follow_public: false,
        private: false,
        ca_files: Vec::new(),
        proxy: None,
    }
}

/// A directory with a `config.json` and helpers.
struct Bed(tempfile::TempDir);

impl Bed {
    fn new(config: &str) -> Self {
        let bed = Self(tempfile::tempdir().expect("a directory"));
        fs::write(bed.config(), config).expect("written");
        bed
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    /// Made by a child, so that this process never holds it open for writing: a thread that forks then
    /// would make it "text file busy".
    fn helper(&self, name: &str, script: &str) {
        let text = self.0.path().join("text");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).expect("written");
        let command =
            format!("cp text docker-credential-{name} && chmod +x docker-credential-{name}");
        let mut shell = Command::new("sh");
        let status = shell.arg("-c").arg(command).current_dir(self.0.path()).status();
        assert!(status.expect("a shell").success());
    }

    fn logins(&self, host: &str) -> Logins {
        let settings = settings(host, &self.config());
        Logins::with_helpers_in(Some(self.0.path().to_owned()), &settings)
    }

    async fn ask(&self, host: &str) -> Result<Option<Login>, String> {
        self.logins(host).login(false).await.map_err(|error| error.to_string())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what is looked up")]
fn basic(user: &str, password: &str) -> Result<Option<Login>, String> {
    Ok(Some(Login::Basic { user: user.to_owned(), password: password.to_owned() }))
}

fn is(found: &Result<Option<Login>, String>, expected: &Result<Option<Login>, String>) -> bool {
    found == expected
}

fn auth(user_and_password: &str) -> String {
    STANDARD.encode(user_and_password)
}

#[tokio::test]
async fn entries_are_found_under_dockers_keys() {
    let bed = Bed::new(&format!(
        r#"{{"auths": {{
            "https://index.docker.io/v1/": {{"auth": "{}"}},
            "ghcr.io": {{"auth": "{}"}},
            "ghcr.io/team": {{"auth": "{}"}},
            "https://quay.io/v2/": {{"auth": "{}"}},
            "r.example:5000": {{"username": "user", "password": "pass"}},
            "empty.example": {{}},
            "odd.example": {{"auth": "!"}}
        }}, "HttpHeaders": {{}}}}"#,
        auth("hub:p:w"),
        auth("gh:x\0"),
        auth("team:y"),
        auth("quay:z"),
    ));
    for (host, user, password) in [
        ("docker.io", "hub", "p:w"),
        ("ghcr.io", "gh", "x"),
        ("quay.io", "quay", "z"),
        ("r.example:5000", "user", "pass"),
    ] {
        assert!(is(&bed.ask(host).await, &basic(user, password)), "{host}");
    }
    for host in ["r.example", "empty.example", "odd.example", "io.example"] {
        assert!(is(&bed.ask(host).await, &Ok(None)), "{host}");
    }
}

#[tokio::test]
async fn a_changed_file_is_read_anew() {
    let bed = Bed::new("{}");
    let logins = bed.logins("ghcr.io");
    assert!(matches!(logins.login(false).await, Ok(None)));
    let text = format!(r#"{{"auths": {{"ghcr.io": {{"auth": "{}"}}}}}}"#, auth("a:b"));
    fs::write(bed.config(), text).expect("written");
    let found = logins.login(false).await.map_err(|error| error.to_string());
    assert!(is(&found, &basic("a", "b")));
}

#[tokio::test]
async fn helpers_are_asked_by_dockers_protocol() {
    let bed = Bed::new(
        r#"{"credsStore": "all", "credHelpers": {"ghcr.io": "some", "quay.io": "token"}}"#,
    );
    let print = r#"read -r server; printf '{"ServerURL":"x","Username":"%s %s","Secret":"s"}' "$1" "$server""#;
    bed.helper("all", print);
    bed.helper("some", r#"echo '{"Username":"some","Secret":"t"}'"#);
    bed.helper("token", r#"echo '{"Username":"<token>","Secret":"i"}'"#);
    assert!(is(&bed.ask("docker.io").await, &basic("get https://index.docker.io/v1/", "s")));
    assert!(is(&bed.ask("r.example:5000").await, &basic("get r.example:5000", "s")));
    assert!(is(&bed.ask("ghcr.io").await, &basic("some", "t")));
    assert!(is(&bed.ask("quay.io").await, &Ok(Some(Login::Identity("i".to_owned())))));
}

#[tokio::test]
async fn a_helper_is_asked_again_only_when_its_answer_was_refused() {
    let bed = Bed::new(r#"{"credsStore": "count"}"#);
    bed.helper(
        "count",
        r#"cd "$(dirname "$0")"; echo x >> runs; printf '{"Username":"%s","Secret":"s"}' $(wc -l < runs)"#,
    );
    let logins = bed.logins("ghcr.io");
    for (anew, user) in [(false, "1"), (false, "1"), (true, "2"), (false, "2")] {
        let found = logins.login(anew).await.map_err(|error| error.to_string());
        assert!(is(&found, &basic(user, "s")), "{user}");
    }
}

#[tokio::test]
async fn helpers_that_know_nothing_or_fail() {
    let secret = "hunter2";
    let bed = Bed::new(&format!(
        r#"{{"auths": {{"a.example": {{"auth": "{}"}}}}, "credHelpers": {{
            "a.example": "unknown", "b.example": "unknown", "c.example": "fails", "d.example": "garbage",
            "e.example": "missing", "f.example": "../evil", "g.example": "long"
        }}}}"#,
        auth("file:pass"),
    ));
    bed.helper("unknown", "echo credentials not found in native keychain; exit 1");
    bed.helper("fails", &format!("echo {secret}; exit 1"));
    bed.helper("garbage", &format!("echo {secret}"));
    bed.helper("long", "head -c 100000 /dev/zero");
    assert!(is(&bed.ask("a.example").await, &basic("file", "pass")), "the file knows");
    assert!(is(&bed.ask("b.example").await, &Ok(None)));
    for host in ["c.example", "d.example", "e.example", "f.example", "g.example"] {
        let Err(error) = bed.ask(host).await else { panic!("{host}") };
        assert!(!error.contains(secret) && !error.contains("evil"), "{error}");
    }
}

#[test]
fn unusable_files_are_settings_errors() {
    let secret = "hunter2";
    let bed = Bed::new(&format!(r#"{{"auths": {{"a": {{"auth": {secret}}}}}}}"#));
    let error = Logins::new(&settings("a.example", &bed.config())).err().expect("refused");
    assert!(error.to_string().contains("line 1") && !error.to_string().contains(secret), "{error}");
    let missing = bed.0.path().join("missing.json");
    assert!(Logins::new(&settings("a.example", &missing)).is_err());
}
