//! What broken and hostile clients send. The server answers or closes, and goes on serving.

use ddr_oci::digest::Digest;
use ddr_oci::media_type::OCI_MANIFEST;

use crate::client::Connection;
use crate::server::{Noise, Server};

#[tokio::test]
async fn malformed_names() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"");
    let long = "a".repeat(256);
    for name in [
        "UPPER", "a//b", "a/../b", "-a", "a-", "a..b", "a___b", ".", "%2e%2e", "a%2Fb", "a%20b",
        "a%00", &long,
    ] {
        for line in [
            format!("GET /v2/{name}/tags/list"),
            format!("GET /v2/{name}/manifests/latest"),
            format!("PUT /v2/{name}/manifests/latest"),
            format!("GET /v2/{name}/blobs/{digest}"),
            format!("POST /v2/{name}/blobs/uploads/"),
            format!("GET /v2/{name}/referrers/{digest}"),
        ] {
            let answer = server.send(&line, &[], b"").await;
            assert_eq!(answer.status, 400, "{line}");
            let code = answer.json()["errors"][0]["code"].clone();
            assert!(code == "NAME_INVALID" || code == "UNSUPPORTED", "{line}: {code}");
        }
    }
    let answer = server.post("/v2/ok/blobs/uploads/?mount=sha256:zz&from=ok", b"").await;
    answer.expect_error(400, "DIGEST_INVALID");
    let mount = format!("/v2/ok/blobs/uploads/?mount={digest}&from=NOT%20OK");
    server.post(&mount, b"").await.expect_error(400, "NAME_INVALID");
}

#[tokio::test]
async fn a_web_page_is_not_served() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"from a page");
    let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    let headers = [("origin", "http://page.example"), ("content-type", "text/plain")];
    server.send(&line, &headers, b"from a page").await.expect_error(403, "DENIED");
    server.get(&format!("/v2/a/blobs/{digest}")).await.expect(404);
}

#[tokio::test]
async fn a_header_of_ten_thousand_bytes_is_431() {
    let server = Server::start().await;
    let long = "x".repeat(10_000);
    let answer = server.send("GET /v2/", &[("x-long", &long)], b"").await;
    answer.expect_error(431, "SIZE_INVALID");

    // Many small ones are as much.
    let names: Vec<String> = (0..90).map(|n| format!("x-{n}")).collect();
    let value = "v".repeat(110);
    let fields: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), value.as_str())).collect();
    let answer = server.send("GET /v2/", &fields, b"").await;
    answer.expect_error(431, "SIZE_INVALID");

    // Just under the limit is fine.
    let answer = server.send("GET /v2/", &[("x-long", &"x".repeat(8_000))], b"").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_header_without_end_is_cut_off() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.addr).await;
    connection.send(b"GET /v2/ HTTP/1.1\r\nx-long: ").await;
    connection.try_send(&vec![b'x'; 4 * 1024 * 1024]).await;
    let answer = connection.read_to_end().await;
    // A reset may eat the answer; what must not be is that the bytes are taken for ever.
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "), "{answer:?}");

    let mut connection = Connection::open(server.addr).await;
    connection.send(b"GET /v2/ HTTP/1.1\r\n").await;
    for n in 0..200 {
        connection.try_send(format!("x-{n}: v\r\n").as_bytes()).await;
    }
    connection.try_send(b"\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{answer:?}");
    server.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn a_target_over_the_limit_is_414() {
    let server = Server::start().await;
    let long = "a".repeat(10_000);
    server.get(&format!("/v2/{long}/tags/list")).await.expect_error(414, "UNSUPPORTED");
    let answer = server.get(&format!("/v2/a/tags/list?last={long}")).await;
    answer.expect_error(414, "UNSUPPORTED");
    let mut connection = Connection::open(server.addr).await;
    let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    connection.try_send(endless.as_bytes()).await;
    let answer = connection.read_to_end().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 414 "), "{answer:?}");
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused() {
    let server = Server::start().await;
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00";
    for garbage in [
        &b"\r\n\r\n\r\n\r\nhello\r\n\r\n"[..],
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        tls_hello,
        b"GET\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nx\x00y: z\r\n\r\n",
        b"G\xffT /v2/ HTTP/1.1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame of HTTP/2, is it?",
    ] {
        let mut connection = Connection::open(server.addr).await;
        connection.try_send(garbage).await;
        let answer = connection.read_to_end().await;
        let text = String::from_utf8_lossy(&answer);
        let refused =
            answer.is_empty() || text.starts_with("HTTP/1.1 400 ") || !text.contains("HTTP/1.1 2");
        assert!(refused, "{:?}: {text}", String::from_utf8_lossy(garbage));
    }
    server.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn random_bytes_and_random_requests_harm_nobody() {
    let server = Server::start().await;
    let methods = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "X"];
    for seed in 0..150 {
        let mut noise = Noise(seed);
        let mut connection = Connection::open(server.addr).await;
        let len = usize::from(noise.next().unwrap()) * 3;
        let bytes: Vec<u8> = noise.by_ref().take(len).collect();
        if seed % 2 == 0 {
            connection.try_send(&bytes).await;
        } else {
            // A request whose target is noise within what a target may hold.
            let method = methods[usize::from(noise.next().unwrap()) % methods.len()];
            let alphabet = b"abz09/.-_:%?&=@~A";
            let path = bytes.iter().map(|b| alphabet[usize::from(*b) % alphabet.len()] as char);
            let path: String = path.take(120).collect();
            let head = format!("{method} /v2/{path} HTTP/1.1\r\nhost: a\r\n\r\n");
            connection.try_send(head.as_bytes()).await;
            let answer = connection.read_answer(method == "HEAD").await;
            assert!(answer.status < 500, "seed {seed}: {head}");
        }
    }
    server.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn a_body_whose_framing_breaks_leaves_what_came_before() {
    let server = Server::start().await;
    let location = server.begin("frame").await;
    let mut connection = Connection::open(server.addr).await;
    let fields = [("transfer-encoding", "chunked")];
    connection.send_head(&format!("PATCH {location}"), &fields).await;
    connection.send_chunk(b"12345").await;
    connection.send(b"not a length\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&answer));
    crate::client::eventually("the first chunk is in the session", async || {
        server.get(&location).await.header("range") == Some("0-4")
    })
    .await;
}

#[tokio::test]
async fn half_a_manifest_is_no_manifest() {
    let server = Server::start().await;
    let image = server.image("half", "x").await;
    let len = image.bytes.len().to_string();
    let mut connection = Connection::open(server.addr).await;
    let fields = [("content-type", OCI_MANIFEST), ("content-length", &len)];
    connection.send_head("PUT /v2/half/manifests/latest", &fields).await;
    connection.send(&image.bytes[..image.bytes.len() / 2]).await;
    drop(connection);
    server.get("/v2/half/manifests/latest").await.expect_error(404, "MANIFEST_UNKNOWN");
    server.put_manifest("half", "latest", &image).await.expect(201);
}

#[tokio::test]
async fn old_http_is_answered() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.addr).await;
    connection.send(b"GET /v2/ HTTP/1.0\r\n\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(answer.starts_with(b"HTTP/1.0 200 "), "{:?}", String::from_utf8_lossy(&answer));
    assert!(answer.ends_with(b"\r\n\r\n{}"));
}
