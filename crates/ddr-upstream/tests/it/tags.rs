//! Lists of tags and of referrers.

use ddr_oci::{Descriptor, Digest, media_type};
use ddr_upstream::UpstreamError;

use crate::bed::{repository, upstream};
use crate::server::{Reply, Server};

/// More than any list here.
const MANY: usize = 100;

/// The page that `path` asks for; `rest` is how links to the next begin.
fn page(path: &str, rest: &str, [first, second, third]: [Reply; 3]) -> Reply {
    let next = |last: &str| format!("<{rest}last={last}>; rel=\"next\"");
    match path.split_once("last=").map(|(_, last)| last) {
        None => first.header("Link", &next("a")),
        Some("a") => second.header("Link", &next("b")),
        _ => third,
    }
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let tags = |tags: &str| Reply::ok(format!(r#"{{"name":"team/app","tags":[{tags}]}}"#));
    let server = Server::start(move |seen| {
        let pages = [tags(r#""b","a""#), tags(r#""no tag","1.0""#), tags(r#""c""#)];
        page(&seen.path, "/v2/team/app/tags/list?n=1000&", pages)
    })
    .await;
    let found = upstream(&server).tags(&repository(), MANY).await.expect("an answer");
    let found: Vec<String> = found.expect("a list").iter().map(ToString::to_string).collect();
    assert_eq!(found, ["1.0", "a", "b", "c"]);
    let base = "GET /v2/team/app/tags/list?n=1000";
    assert_eq!(
        server.lines(),
        [base.to_owned(), format!("{base}&last=a"), format!("{base}&last=b")]
    );
    let two = upstream(&server).tags(&repository(), 2).await.expect("an answer").expect("a list");
    assert_eq!(two.len(), 2);
}

#[tokio::test]
async fn a_list_ends_where_pages_bring_nothing_new_or_lead_elsewhere() {
    let other = Server::start(|_| Reply::ok(r#"{"tags":["foreign"]}"#)).await;
    for target in ["/v2/team/app/tags/list?n=1000", &format!("{}/v2/x", other.base()), "::"] {
        let link = format!("<{target}>; rel=\"next\"");
        let reply = Reply::ok(r#"{"tags":["a"]}"#).header("Link", &link);
        let server = Server::start(move |_| reply.clone()).await;
        let tags = upstream(&server).tags(&repository(), MANY).await.expect("an answer");
        assert_eq!(tags.expect("a list").len(), 1);
        assert!(server.lines().len() <= 2 && other.seen().is_empty());
    }
}

#[tokio::test]
async fn lists_that_are_none() {
    for (reply, expected) in [
        (Reply::new(404), Some(None)),
        (Reply::ok(r#"{"tags":null}"#), Some(Some(0))),
        (Reply::ok(r#"{"name":"x"}"#), Some(Some(0))),
        (Reply::ok("[1]"), None),
        (Reply::ok("x"), None),
        (Reply::ok(vec![b' '; 8 * 1024 * 1024 + 1]), None),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let tags = upstream(&server).tags(&repository(), MANY).await;
        match (tags, expected) {
            (Ok(tags), Some(expected)) => assert_eq!(tags.map(|tags| tags.len()), expected),
            (Err(UpstreamError::Failed(_)), None) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn referrers_come_page_by_page() {
    let one = |name: &str| {
        let digest = Digest::sha256(name.as_bytes());
        Descriptor::new(media_type::OCI_MANIFEST, digest, 1)
    };
    let reply = move |names: &[&str]| {
        let all: Vec<Descriptor> = names.iter().map(|name| one(name)).collect();
        Reply::ok(ddr_oci::referrers::index(&all)).header("Content-Type", media_type::OCI_INDEX)
    };
    let server = Server::start(move |seen| {
        page(&seen.path, "?", [reply(&["x", "y"]), reply(&["z"]), reply(&[])])
    })
    .await;
    let (upstream, subject) = (upstream(&server), Digest::sha256(b"subject"));
    let found = upstream.referrers(&repository(), &subject, MANY).await.expect("an answer");
    assert_eq!(found.expect("a list"), [one("x"), one("y"), one("z")]);
    let found = upstream.referrers(&repository(), &subject, 1).await.expect("an answer");
    assert_eq!(found.expect("a list").len(), 1);
    let base = format!("GET /v2/team/app/referrers/{subject}");
    assert_eq!(server.lines()[..2], [base.clone(), format!("{base}?last=a")]);
}

#[tokio::test]
async fn a_list_of_referrers_that_never_ends_is_cut() {
    let mut one = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(b"x"), 1);
    one.annotations.insert("k".to_owned(), "v".repeat(3 * 1024 * 1024));
    let reply = Reply::ok(ddr_oci::referrers::index(&[one])).header("Link", "<?more>; rel=next");
    let server = Server::start(move |_| reply.clone()).await;
    let subject = Digest::sha256(b"subject");
    let found = upstream(&server).referrers(&repository(), &subject, MANY).await;
    assert_eq!(found.expect("an answer").expect("a list").len(), 6);
}

#[tokio::test]
async fn referrers_that_are_no_list() {
    type Is = fn(&Result<Option<Vec<Descriptor>>, UpstreamError>) -> bool;
    let unknown: Is = |answer| matches!(answer, Ok(None));
    let failed: Is = |answer| matches!(answer, Err(UpstreamError::Failed(_)));
    let denied: Is = |answer| matches!(answer, Err(UpstreamError::Denied(_)));
    for (reply, is) in [
        (Reply::new(404), unknown),
        (Reply::new(400), unknown),
        (Reply::new(405), unknown),
        (Reply::new(403), denied),
        (Reply::new(500), failed),
        (Reply::ok("{}"), failed),
        (Reply::ok("x"), failed),
        (Reply::ok(vec![b' '; 4 * 1024 * 1024 + 1]), failed),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let (subject, upstream) = (Digest::sha256(b"subject"), upstream(&server));
        let answer = upstream.referrers(&repository(), &subject, MANY).await;
        assert!(is(&answer), "{answer:?}");
    }
}
