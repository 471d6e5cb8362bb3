//! What runs may end, what hangs may not hold anybody up.

use std::time::Duration;

use ddr_oci::digest::Digest;
use ddr_registry::Limits;
use tokio::net::TcpStream;

use crate::client::{Connection, DEADLINE, eventually};
use crate::server::Server;

#[tokio::test]
async fn a_running_upload_is_finished_and_nobody_new_is_served() {
    let mut server = Server::start().await;
    let location = server.begin("drain").await;
    let digest = Digest::sha256(b"12345");
    let mut idle = Connection::open(server.addr).await;
    idle.send_request("GET /v2/", &[], b"").await;
    idle.read_answer(false).await.expect(200);
    let mut connection = Connection::open(server.addr).await;
    let line = format!("PUT {location}?digest={digest}");
    connection.send_head(&line, &[("content-length", "5")]).await;
    connection.send(b"123").await;
    eventually("the upload runs", async || server.get(&location).await.status == 409).await;

    server.stop();
    eventually("the port is closed", async || TcpStream::connect(server.addr).await.is_err()).await;
    assert_eq!(idle.read_to_end().await, b"", "a resting connection is closed");
    connection.send(b"45").await;
    connection.read_answer(false).await.expect(201);
    tokio::time::timeout(DEADLINE, server.ended()).await.expect("nothing is left to wait for");
}

#[tokio::test]
async fn a_request_that_hangs_is_broken_off() {
    let limits = Limits { drain_timeout: Duration::from_millis(200), ..Limits::default() };
    let mut server = Server::start_with(limits).await;
    let location = server.begin("hang").await;
    let mut connection = Connection::open(server.addr).await;
    connection.send_head(&format!("PATCH {location}"), &[("content-length", "5")]).await;
    eventually("the upload runs", async || server.get(&location).await.status == 409).await;
    server.stop();
    tokio::time::timeout(DEADLINE, server.ended()).await.expect("the wait is bounded");
    assert_eq!(connection.read_to_end().await, b"");
}
