//! What a registry wants to see: the `WWW-Authenticate` header (RFC 9110, section 11.6.1).
//!
//! Decides which challenges are understood: `Bearer` with a realm, and `Basic`. Others, and what is no
//! challenge, are skipped. Never looks at more than [`MAX_CHALLENGE_BYTES`].

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Most bytes of one header that are looked at; a longer one is skipped.
const MAX_CHALLENGE_BYTES: usize = 4096;
/// Most headers.
const MAX_HEADERS: usize = 8;

/// Where to ask for a token, and for what service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Bearer {
    /// A URL.
    pub(crate) realm: String,
    /// To be repeated there.
    pub(crate) service: Option<String>,
}

/// One way to be let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token of somebody else.
    Bearer(Bearer),
}

/// The challenge to answer: the first `Bearer`, else `Basic`.
pub(crate) fn of(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_HEADERS);
    let mut all = Vec::new();
    for value in values.filter_map(|value| value.to_str().ok()) {
        all.extend(parse(value));
    }
    let bearer = all.iter().position(|challenge| matches!(challenge, Challenge::Bearer(_)));
    (!all.is_empty()).then(|| all.swap_remove(bearer.unwrap_or(0)))
}

/// A scheme and its parameters, names as they were written.
struct Raw<'a> {
    scheme: &'a str,
    parameters: Vec<(&'a str, String)>,
}

impl Raw<'_> {
    fn parameter(&self, name: &str) -> Option<String> {
        let found = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    }

    fn understood(&self) -> Option<Challenge> {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (realm, service) = (self.parameter("realm")?, self.parameter("service"));
        Some(Challenge::Bearer(Bearer { realm, service }))
    }
}

fn parse(header: &str) -> Vec<Challenge> {
    if header.len() > MAX_CHALLENGE_BYTES {
        return Vec::new();
    }
    let mut raws: Vec<Raw<'_>> = Vec::new();
    for item in items(header) {
        let (word, rest) = word(item);
        if rest.starts_with('=') {
            let current = raws.last_mut();
            if let (Some(raw), Some(found)) = (current, parameter(item)) {
                raw.parameters.push(found);
            }
        } else if !word.is_empty() {
            raws.push(Raw { scheme: word, parameters: parameter(rest).into_iter().collect() });
        }
    }
    raws.iter().filter_map(Raw::understood).collect()
}

/// What stands between commas that are outside of quotes, without blanks around it.
fn items(header: &str) -> impl Iterator<Item = &str> {
    let (mut in_quotes, mut escaped) = (false, false);
    let between = move |c: char| {
        let is_end = c == ',' && !in_quotes;
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            _ => {}
        }
        is_end
    };
    header.split(between).map(str::trim).filter(|item| !item.is_empty())
}

/// The word (RFC 9110 `token`) at the beginning, and what follows without blanks before it.
fn word(item: &str) -> (&str, &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = item.find(|c| !is_word(c)).unwrap_or(item.len());
    let (word, rest) = item.split_at(end);
    (word, rest.trim_start())
}

/// `name=value` or `name="value"`.
fn parameter(item: &str) -> Option<(&str, String)> {
    let (name, rest) = word(item);
    let value = rest.strip_prefix('=')?.trim();
    if name.is_empty() {
        return None;
    }
    let Some(quoted) = value.strip_prefix('"') else {
        let (value, rest) = word(value);
        return (rest.is_empty() && !value.is_empty()).then(|| (name, value.to_owned()));
    };
    Some((name, unquoted(quoted)?))
}

/// The text up to the closing quote, which must be the last character.
fn unquoted(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(text),
            '\\' => text.push(rest.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
        Challenge::Bearer(Bearer { realm, service })
    }

    #[test]
    fn challenges_of_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let expected = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(parse(hub), [expected]);
        assert_eq!(parse(r#"Basic realm="Sonatype Nexus""#), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        assert_eq!(parse(r#"bEARER realm = "r" , SERVICE=s"#), [bearer("r", Some("s"))]);
    }

    #[test]
    fn several_challenges_in_one_header_are_kept_apart() {
        let both =
            r#"Negotiate abc==, Basic realm="a, b", Bearer realm="r\"x",service="s,t", error=e"#;
        assert_eq!(parse(both), [Challenge::Basic, bearer("r\"x", Some("s,t"))]);
        assert_eq!(parse("Bearer realm=r,Basic"), [bearer("r", None), Challenge::Basic]);
    }

    #[test]
    fn bearer_goes_before_basic_wherever_it_stands() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), None);
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().expect("a value"));
        assert_eq!(of(&headers), Some(Challenge::Basic));
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"r\"".parse().expect("a value"));
        assert_eq!(of(&headers), Some(bearer("r", None)));
    }

    #[test]
    fn the_first_of_equal_parameters_counts() {
        assert_eq!(parse("Bearer realm=a, realm=b"), [bearer("a", None)]);
    }

    #[test]
    fn what_is_no_challenge_is_skipped() {
        let long = format!("Bearer realm=\"{}\"", "x".repeat(MAX_CHALLENGE_BYTES));
        for bad in [
            "",
            ",",
            "=",
            "realm=x",
            "Bearer",
            "Bearer realm",
            "Bearer realm=",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\",
            "Bearer realm=\"x\"y",
            "Bearer service=s",
            "Digest realm=x",
            "Bearerrealm=x",
            &long,
        ] {
            assert_eq!(parse(bad), [], "{bad:.40}");
        }
    }
}
