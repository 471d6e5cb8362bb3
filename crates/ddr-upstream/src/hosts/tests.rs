use super::*;
use crate::config::Credentials;

fn settings(endpoint: &str, hosts: &[&str]) -> Settings {
    Settings {
        host: "registry.example".parse().expect("a host"),
        endpoint: endpoint.to_owned(),
        credentials: Credentials::Anonymous,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        follow_public: false,
        private: false,
        ca_files: Vec::new(),
        proxy: None,
    }
}

fn reach(settings: &Settings) -> Reach {
    Reach::new(settings, vec!["proxy.example".to_owned()]).expect("settings")
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

fn follows(reach: &Reach, text: &str) -> bool {
    reach.may_follow(&url(text)).is_ok()
}

#[test]
fn patterns_match_whole_labels() {
    let under = Pattern::parse("*.CDN.example.org").expect("a pattern");
    for (host, expected) in [
        ("a.cdn.example.org", true),
        ("a.b.cdn.example.org", true),
        ("cdn.example.org", false),
        (".cdn.example.org", false),
        ("xcdn.example.org", false),
        ("a.cdn.example.org.evil.example", false),
    ] {
        assert_eq!(under.matches(host), expected, "{host}");
    }
    assert!(Pattern::parse("192.0.2.1").expect("a pattern").matches("192.0.2.1"));
    assert!(Pattern::parse("::1").expect("a pattern").matches("::1"));
    for bad in ["", "*", "*.", "*.org", "a.*.org", "*a.org", "a..b", "a:80", "https://a.b", "a/b"] {
        assert_eq!(Pattern::parse(bad), None, "{bad}");
    }
}

#[test]
fn endpoints_are_origins() {
    for good in ["https://a.b", "https://a.b/", "http://127.0.0.1:5000", "http://[::1]:5000"] {
        assert!(Reach::new(&settings(good, &[]), vec![]).is_ok(), "{good}");
    }
    for bad in [
        "",
        "a.b",
        "ftp://a.b",
        "https://",
        "https://u@a.b",
        "https://u:p@a.b",
        "https://a.b/v2/",
        "https://a.b?x",
        "https://a.b#x",
    ] {
        assert!(Reach::new(&settings(bad, &[]), vec![]).is_err(), "{bad}");
    }
    assert!(Reach::new(&settings("https://a.b", &["x y"]), vec![]).is_err());
}

#[test]
fn redirects_of_an_https_registry_stay_https_and_among_its_hosts() {
    let mut settings = settings("https://registry.example", &["*.cdn.example"]);
    let own = reach(&settings);
    assert!(follows(&own, "https://registry.example/x"));
    assert!(follows(&own, "https://REGISTRY.example.:8443/x"));
    assert!(follows(&own, "https://a.cdn.example/x?signature=secret"));
    for bad in [
        "http://registry.example/x",
        "http://a.cdn.example/x",
        "https://other.example/x",
        "https://cdn.example/x",
        "https://user@registry.example/x",
        "https://:pass@registry.example/x",
        "ftp://registry.example/x",
        "file:///etc/passwd",
    ] {
        assert!(!follows(&own, bad), "{bad}");
    }
    settings.follow_public = true;
    let public = reach(&settings);
    assert!(follows(&public, "https://other.example/x"));
    for bad in
        ["http://other.example/x", "https://u@other.example/x", "https://proxy.example/", "data:x"]
    {
        assert!(!follows(&public, bad), "{bad}");
    }
}

#[test]
fn redirects_of_an_http_registry_may_be_http_among_its_hosts() {
    let mut settings = settings("http://registry.example", &["cdn.example"]);
    settings.follow_public = true;
    let reach = reach(&settings);
    assert!(follows(&reach, "http://registry.example:81/x"));
    assert!(follows(&reach, "http://cdn.example/x"));
    assert!(follows(&reach, "https://other.example/x"));
    assert!(!follows(&reach, "http://other.example/x"));
}

#[test]
fn tokens_with_credentials_come_from_own_hosts_only() {
    let mut settings = settings("https://registry.example", &["auth.example"]);
    let own = reach(&settings);
    let asks = |reach: &Reach, text: &str, with| reach.may_ask_token(&url(text), with).is_ok();
    for realm in ["https://auth.example/token", "https://registry.example/token"] {
        assert!(asks(&own, realm, true) && asks(&own, realm, false), "{realm}");
    }
    assert!(!asks(&own, "https://other.example/token", false));
    settings.follow_public = true;
    let public = reach(&settings);
    assert!(asks(&public, "https://other.example/token", false));
    assert!(!asks(&public, "https://other.example/token", true));
    assert!(!asks(&public, "http://auth.example/token", true));
    assert!(!asks(&public, "https://u:p@auth.example/token", false));
    let text = public.may_ask_token(&url("https://other.example/t?secret"), true);
    let text = text.expect_err("refused").to_string();
    assert!(text.contains("other.example") && text.contains("add it to hosts"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn known_hosts_belong_to_the_known_endpoint() {
    let mut settings = settings("https://registry-1.docker.io", &[]);
    let realm = url("https://auth.docker.io/token");
    assert!(reach(&settings).may_ask_token(&realm, true).is_err());
    settings.host = "docker.io".parse().expect("a host");
    assert!(reach(&settings).may_ask_token(&realm, true).is_ok());
    settings.endpoint = "https://mirror.example".to_owned();
    assert!(reach(&settings).may_ask_token(&realm, true).is_err());
}

#[test]
fn addresses_in_urls_are_checked_in_all_their_spellings() {
    let mut settings = settings("https://registry.example", &[]);
    let public = reach(&settings);
    let refused = [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://10.0.0.1./",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/",
        "https://0.0.0.0/",
    ];
    for bad in refused {
        assert!(public.check_address(&url(bad)).is_err(), "{bad}");
    }
    assert!(public.check_address(&url("https://1.1.1.1/")).is_ok());
    assert!(public.check_address(&url("https://name.example/")).is_ok());
    settings.private = true;
    let private = reach(&settings);
    assert!(private.check_address(&url("http://127.0.0.1:1/")).is_ok());
    assert!(private.check_address(&url("http://169.254.169.254/")).is_err());
    settings.endpoint = "http://169.254.1.1:5000".to_owned();
    assert!(reach(&settings).check_address(&url("http://169.254.1.1:5000/v2/")).is_ok());
    assert!(reach(&settings).check_address(&url("http://169.254.169.254/")).is_err());
}
