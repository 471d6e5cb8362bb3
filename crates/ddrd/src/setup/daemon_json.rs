//! One entry more in docker's daemon.json, with every other byte as it was.
//!
//! The text is checked by a JSON reader first; what is put in is put in as text, so that order and layout of
//! the file stay.

use serde_json::Value;

const KEY: &str = "registry-mirrors";

/// Why a text cannot be changed: the line, if it is known, and what is wrong there.
type Wrong = (Option<usize>, String);

/// `text` with `url` as first of the mirrors, or as it is if `url` is one; and what it says then.
///
/// # Errors
///
/// It is not a JSON object, or the mirrors are no list of texts.
pub(super) fn with_mirror(text: &str, url: &str) -> Result<(String, Value), Wrong> {
    let new = changed(text, url)?;
    let value = serde_json::from_str(&new).map_err(|error| wrong(&error))?;
    Ok((new, value))
}

fn changed(text: &str, url: &str) -> Result<String, Wrong> {
    if text.trim().is_empty() {
        return Ok(fresh(url));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let Value::Object(settings) = &value else {
        return Err((Some(1), "not a JSON object".to_owned()));
    };
    let Some(mirrors) = settings.get(KEY) else {
        return Ok(with_member(text, url, settings.is_empty()));
    };
    let key_at = members(text).into_iter().rfind(|member| member.key == KEY);
    let at = key_at.map_or(0, |member| member.value_at);
    let texts = mirrors.as_array().filter(|list| list.iter().all(Value::is_string));
    let Some(mirrors) = texts else {
        let line = 1 + text[..at].matches('\n').count();
        return Err((Some(line), format!("{KEY} is not a list of texts")));
    };
    let same = |mirror: &Value| mirror.as_str().is_some_and(|m| m.trim_end_matches('/') == url);
    if mirrors.iter().any(same) {
        return Ok(text.to_owned());
    }
    Ok(with_entry(text, at + 1, url, mirrors.is_empty()))
}

fn wrong(error: &serde_json::Error) -> Wrong {
    (Some(error.line()), format!("not JSON: {error}"))
}

fn fresh(url: &str) -> String {
    format!("{{\n  \"{KEY}\": [\"{url}\"]\n}}\n")
}

/// The list that begins before `at` with one entry more in front, laid out as the others are.
fn with_entry(text: &str, at: usize, url: &str, is_empty: bool) -> String {
    let (before, after) = text.split_at(at);
    let space = &after[..after.len() - after.trim_start().len()];
    match (is_empty, space) {
        (true, _) => format!("{before}\"{url}\"{}", after.trim_start()),
        (false, "") => format!("{before}\"{url}\", {after}"),
        (false, space) => format!("{before}{space}\"{url}\",{after}"),
    }
}

/// The object with one member more at its end, laid out as the others are.
fn with_member(text: &str, url: &str, is_empty: bool) -> String {
    if is_empty {
        return fresh(url);
    }
    let end = text.trim_end().len() - 1;
    let (inner, close) = (text[..end].trim_end(), &text[text[..end].trim_end().len()..]);
    let open = text.len() - text.trim_start().len() + 1;
    let rest = &text[open..];
    let space = &rest[..rest.len() - rest.trim_start().len()];
    let space = if space.is_empty() { " " } else { space };
    format!("{inner},{space}\"{KEY}\": [\"{url}\"]{close}")
}

struct Member {
    key: String,
    /// Offset of its value.
    value_at: usize,
}

/// The members of the object that `text`, which is known to be one, is.
fn members(text: &str) -> Vec<Member> {
    let (bytes, mut members) = (text.as_bytes(), Vec::new());
    let (mut at, mut depth) = (0, 0);
    let mut last_text = String::new();
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let end = end_of_text(bytes, at);
                if depth == 1 {
                    last_text = serde_json::from_str(&text[at..end]).unwrap_or_default();
                }
                at = end;
                continue;
            }
            b':' if depth == 1 => {
                let rest = &text[at + 1..];
                let value_at = text.len() - rest.trim_start().len();
                members.push(Member { key: last_text.clone(), value_at });
            }
            _ => {}
        }
        at += 1;
    }
    members
}

/// The offset behind the text that begins at `at`.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "http://127.0.0.1:5000";

    fn new(text: &str) -> String {
        with_mirror(text, URL).unwrap().0
    }

    #[test]
    fn a_member_is_laid_out_as_the_others() {
        assert_eq!(new(" \n"), fresh(URL));
        assert_eq!(new("{}"), fresh(URL));
        assert_eq!(
            new("{\n\t\"debug\": true\n}\n"),
            "{\n\t\"debug\": true,\n\t\"registry-mirrors\": [\"http://127.0.0.1:5000\"]\n}\n"
        );
        assert_eq!(
            new(r#"{"debug":true}"#),
            r#"{"debug":true, "registry-mirrors": ["http://127.0.0.1:5000"]}"#
        );
    }

    #[test]
    fn an_entry_is_laid_out_as_the_others_and_is_first() {
        let with = |inner: &str| format!("{{\"registry-mirrors\": [{inner}]}}");
        assert_eq!(new(&with("")), with("\"http://127.0.0.1:5000\""));
        assert_eq!(new(&with(" \n ")), with("\"http://127.0.0.1:5000\""));
        assert_eq!(new(&with("\"a\"")), with("\"http://127.0.0.1:5000\", \"a\""));
        assert_eq!(
            new(&with("\n  \"a\",\n  \"b\"\n")),
            with("\n  \"http://127.0.0.1:5000\",\n  \"a\",\n  \"b\"\n")
        );
    }

    #[test]
    fn a_mirror_that_is_there_stays_where_it_is() {
        let there = r#"{ "registry-mirrors" : ["https://a.b", "http://127.0.0.1:5000/"] }"#;
        assert_eq!(new(there), there);
    }

    #[test]
    fn keys_in_texts_and_below_are_not_taken_for_ours() {
        let text = r#"{"a": {"registry-mirrors": ["x"]}, "b": "\"registry-mirrors\": [", "c": 1}"#;
        let value: Value = serde_json::from_str(&new(text)).unwrap();
        assert_eq!(value["registry-mirrors"], serde_json::json!([URL]));
        assert_eq!(value["a"]["registry-mirrors"], serde_json::json!(["x"]));
        let escaped = r#"{"registry\u002dmirrors": ["x"]}"#;
        assert_eq!(new(escaped), r#"{"registry\u002dmirrors": ["http://127.0.0.1:5000", "x"]}"#);
    }

    #[test]
    fn what_is_no_object_of_settings_is_refused_with_its_line() {
        let line = |text: &str| with_mirror(text, URL).unwrap_err().0;
        assert_eq!(line("[]"), Some(1));
        assert_eq!(line("{\n\n// comment\n}"), Some(3));
        assert_eq!(line("{\n \"registry-mirrors\":\n  \"a\"}"), Some(3));
        assert_eq!(line("{\"registry-mirrors\": [1]}"), Some(1));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~\u{e9}\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_other_setting_is_kept(
            settings in prop::collection::btree_map("[ -~]{0,10}", json(), 0..5),
            mirrors in prop::option::of(prop::collection::vec("[ -~]{0,10}", 0..3)),
            pretty in any::<bool>(),
        ) {
            let mut old: serde_json::Map<String, Value> = settings.into_iter().collect();
            if let Some(mirrors) = mirrors {
                old.insert(KEY.to_owned(), mirrors.into());
            }
            let value = Value::Object(old.clone());
            let text = if pretty { format!("{value:#}\n") } else { value.to_string() };
            let (text, Value::Object(mut new)) = with_mirror(&text, URL).unwrap() else {
                panic!("no object");
            };
            prop_assert_eq!(&with_mirror(&text, URL).unwrap().0, &text, "twice is once");
            let mut first = vec![Value::from(URL)];
            first.extend(old.remove(KEY).and_then(|list| list.as_array().cloned()).unwrap_or_default());
            prop_assert_eq!(new.remove(KEY), Some(Value::from(first)));
            prop_assert_eq!(new, old);
        }
    }
}
