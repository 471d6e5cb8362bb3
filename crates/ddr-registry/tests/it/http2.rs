//! HTTP/2 with prior knowledge on the same port.

use bytes::Bytes;
use ddr_oci::digest::Digest;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use std::time::Duration;

use ddr_registry::Limits;

use crate::client::eventually;
use crate::server::{Server, noise};

async fn connect(server: &Server) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    target: &str,
    body: &[u8],
) -> Response<Incoming> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{target}"))
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap();
    sender.ready().await.unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn push_and_pull_over_one_connection() {
    let server = Server::start().await;
    let content = noise(3_000_000);
    let digest = Digest::sha256(&content);
    let mut sender = connect(&server).await;
    let ping = send(&mut sender, Method::GET, "/v2/", b"").await;
    assert_eq!(ping.status(), 200);

    let post = format!("/v2/h2/blobs/uploads/?digest={digest}");
    let created = send(&mut sender, Method::POST, &post, &content).await;
    assert_eq!(created.status(), 201);
    assert_eq!(created.headers()["location"], format!("/v2/h2/blobs/{digest}"));

    let blob = format!("/v2/h2/blobs/{digest}");
    let head = send(&mut sender, Method::HEAD, &blob, b"").await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], "3000000");
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());

    let get = send(&mut sender, Method::GET, &blob, b"").await;
    assert_eq!(get.headers()["content-length"], "3000000");
    assert!(get.into_body().collect().await.unwrap().to_bytes() == content);

    let missing = format!("/v2/h2/blobs/{}", Digest::sha256(b"missing"));
    assert_eq!(send(&mut sender, Method::GET, &missing, b"").await.status(), 404);
}

#[tokio::test]
async fn requests_of_one_connection_do_not_wait_for_each_other() {
    let server = Server::start().await;
    let digest = server.push_blob("h2", &noise(4_000_000)).await;
    let sender = connect(&server).await;
    // The first response is not read until the others are done: its window fills up.
    let blob = format!("/v2/h2/blobs/{digest}");
    let slow = send(&mut sender.clone(), Method::GET, &blob, b"").await;
    for _ in 0..20 {
        let ping = send(&mut sender.clone(), Method::GET, "/v2/", b"").await;
        assert_eq!(ping.into_body().collect().await.unwrap().to_bytes(), "{}");
    }
    assert_eq!(slow.into_body().collect().await.unwrap().to_bytes().len(), 4_000_000);
}

#[tokio::test]
async fn a_header_over_the_limit_is_431() {
    let server = Server::start().await;
    let mut sender = connect(&server).await;
    let request = Request::get("http://localhost/v2/")
        .header("x-long", "x".repeat(10_000))
        .body(Full::default())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 431);
    assert_eq!(send(&mut sender, Method::GET, "/v2/", b"").await.status(), 200);
}

#[tokio::test]
async fn a_response_that_is_not_taken_does_not_hold_its_memory_for_ever() {
    let short = Duration::from_millis(200);
    let limits = Limits { write_progress_timeout: short, idle_timeout: short, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let digest = server.push_blob("h2", &noise(4_000_000)).await;
    let sender = connect(&server).await;
    let blob = format!("/v2/h2/blobs/{digest}");
    // The connection is alive all the time, only this stream has no window left.
    let untaken = send(&mut sender.clone(), Method::GET, &blob, b"").await;
    let buffers = server.buffers();
    eventually("its pieces are in memory", async || buffers.free() < buffers.total()).await;
    let mut told = false;
    eventually("its memory is free", async || {
        let mut sender = sender.clone();
        told |= sender.ready().await.is_err();
        if !told {
            let request = Request::get("http://localhost/v2/").body(Full::default()).unwrap();
            told |= sender.send_request(request).await.is_err();
        }
        buffers.free() == buffers.total()
    })
    .await;
    assert!(told, "the connection takes no new requests");
    assert!(untaken.into_body().collect().await.is_err(), "it ends short");
}
