//! end-8a, end-8b and the catalog: pages.

use ddr_registry::Limits;
use serde_json::{Value, json};

use crate::server::Server;

/// The target of `<target>; rel="next"`.
fn next(link: &str) -> String {
    let (target, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    target.to_owned()
}

/// Follows the links and answers the pages.
async fn walk(server: &Server, first: &str, key: &str) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut target = Some(first.to_owned());
    while let Some(at) = target {
        let answer = server.get(&at).await.expect(200);
        pages.push(answer.json()[key].clone());
        target = answer.header("link").map(next);
    }
    pages
}

async fn tagged(server: &Server, name: &str, tags: &[&str]) {
    let image = server.image(name, "x").await;
    for tag in tags {
        server.put_manifest(name, tag, &image).await.expect(201);
    }
}

#[tokio::test]
async fn tags_in_pages() {
    let server = Server::start().await;
    tagged(&server, "team/app", &["c", "B", "a", "a-1", "d"]).await;
    let all = server.get("/v2/team/app/tags/list").await.expect(200);
    assert_eq!(all.json(), json!({ "name": "team/app", "tags": ["B", "a", "a-1", "c", "d"] }));
    assert_eq!(all.header("link"), None);

    let list = "/v2/team/app/tags/list";
    let answer = server.get(&format!("{list}?n=2")).await;
    assert_eq!(answer.header("link"), Some("</v2/team/app/tags/list?n=2&last=a>; rel=\"next\""));
    let pages = walk(&server, &format!("{list}?n=2"), "tags").await;
    assert_eq!(pages, [json!(["B", "a"]), json!(["a-1", "c"]), json!(["d"])]);
    let pages = walk(&server, &format!("{list}?last=a"), "tags").await;
    assert_eq!(pages, [json!(["a-1", "c", "d"])]);
    let pages = walk(&server, &format!("{list}?n=2&last=aa"), "tags").await;
    assert_eq!(pages, [json!(["c", "d"])]);
    let pages = walk(&server, &format!("{list}?last=zzz"), "tags").await;
    assert_eq!(pages, [json!([])]);
    let pages = walk(&server, &format!("{list}?n=0"), "tags").await;
    assert_eq!(pages, [json!([])]);
    let pages = walk(&server, &format!("{list}?n=18446744073709551615"), "tags").await;
    assert_eq!(pages[0].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn a_page_is_never_longer_than_the_limit() {
    let server = Server::start_with(Limits { page: 2, ..Limits::default() }).await;
    tagged(&server, "lim", &["a", "b", "c"]).await;
    for query in ["", "?n=3", "?n=1000000"] {
        let pages = walk(&server, &format!("/v2/lim/tags/list{query}"), "tags").await;
        assert_eq!(pages, [json!(["a", "b"]), json!(["c"])], "{query}");
    }
}

#[tokio::test]
async fn a_repository_without_tags_has_an_empty_list_and_an_unknown_one_none() {
    let server = Server::start().await;
    let image = server.image("untagged", "x").await;
    let digest = image.digest().to_string();
    server.put_manifest("untagged", &digest, &image).await.expect(201);
    let answer = server.get("/v2/untagged/tags/list").await.expect(200);
    assert_eq!(answer.json(), json!({ "name": "untagged", "tags": [] }));
    for query in ["", "?n=0", "?n=5&last=x"] {
        let answer = server.get(&format!("/v2/unknown/tags/list{query}")).await;
        let error = answer.expect_error(404, "NAME_UNKNOWN");
        assert_eq!(error["detail"]["name"], "unknown");
    }
}

#[tokio::test]
async fn a_page_that_is_none_is_refused() {
    let server = Server::start().await;
    let long = format!("last={}", "a".repeat(256));
    for query in ["n=x", "n=-1", "n=1.5", "n=", "n=1&n=2", &long] {
        for list in ["/v2/a/tags/list", "/v2/_catalog"] {
            server.get(&format!("{list}?{query}")).await.expect_error(400, "UNSUPPORTED");
        }
    }
}

#[tokio::test]
async fn the_catalog_in_pages() {
    let server = Server::start().await;
    let empty = server.get("/v2/_catalog").await.expect(200);
    assert_eq!(empty.json(), json!({ "repositories": [] }));
    // Names that begin like another name must not get lost.
    for name in ["b", "a/b/c", "a", "a/b", "ab"] {
        tagged(&server, name, &["latest"]).await;
    }
    let pages = walk(&server, "/v2/_catalog?n=2", "repositories").await;
    assert_eq!(pages, [json!(["a", "a/b"]), json!(["a/b/c", "ab"]), json!(["b"])]);
    let pages = walk(&server, "/v2/_catalog?last=a%2Fb", "repositories").await;
    assert_eq!(pages, [json!(["a/b/c", "ab", "b"])]);
    assert_eq!(walk(&server, "/v2/_catalog?n=0", "repositories").await, [json!([])]);
}
