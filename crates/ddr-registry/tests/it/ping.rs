//! end-1, and what is no endpoint at all.

use crate::client::Connection;
use crate::server::Server;

#[tokio::test]
async fn ping_says_what_it_is() {
    let server = Server::start().await;
    let answer = server.get("/v2/").await.expect(200);
    assert_eq!(answer.body, b"{}");
    assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-length"), Some("2"));

    let answer = server.head("/v2/").await.expect(200);
    assert_eq!(answer.header("content-length"), Some("2"));
    server.get("/v2").await.expect(200);
}

#[tokio::test]
async fn what_is_no_endpoint_is_404_in_json() {
    let server = Server::start().await;
    for path in ["/", "/v1/", "/v2x", "/v2/a", "/v2/a/b/c", "/v2/a/tags", "/metrics", "//v2/", "*"]
    {
        server.get(path).await.expect_error(404, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_method_that_does_not_exist_there_is_405_with_allow() {
    let server = Server::start().await;
    let digest = format!("sha256:{}", "0".repeat(64));
    for (line, allow) in [
        ("POST /v2/".to_owned(), "GET, HEAD"),
        ("BREW /v2/".to_owned(), "GET, HEAD"),
        ("get /v2/".to_owned(), "GET, HEAD"),
        ("DELETE /v2/_catalog".to_owned(), "GET, HEAD"),
        ("PUT /v2/a/tags/list".to_owned(), "GET, HEAD"),
        ("PUT /v2/a/blobs/".to_owned() + &digest, "GET, HEAD, DELETE"),
        ("GET /v2/a/blobs/uploads/".to_owned(), "POST"),
        ("POST /v2/a/blobs/uploads/x".to_owned(), "GET, HEAD, PATCH, PUT, DELETE"),
        ("POST /v2/a/manifests/latest".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("PATCH /v2/a/referrers/".to_owned() + &digest, "GET, HEAD"),
    ] {
        let answer = server.send(&line, &[], b"").await;
        answer.expect_error(405, "UNSUPPORTED");
        assert_eq!(answer.header("allow"), Some(allow), "{line}");
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.addr).await;
    for line in ["GET /v2/", "HEAD /v2/", "GET /nothing", "POST /v2/", "GET /v2/"] {
        connection.send_request(line, &[], b"").await;
        let answer = connection.read_answer(line.starts_with("HEAD")).await;
        assert!(answer.status < 500);
    }
    // Two at once, the second waiting in the server's buffer.
    connection
        .send(b"GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\nGET /v2/_catalog HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(connection.read_answer(false).await.body, b"{}");
    assert_eq!(connection.read_answer(false).await.body, br#"{"repositories":[]}"#);
}
