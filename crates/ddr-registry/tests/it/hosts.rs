//! To whom a request was addressed: a page that gives its own name to this machine is refused.

use ddr_oci::digest::Digest;
use ddr_registry::Limits;

use crate::client::{Answer, Connection};
use crate::server::Server;

async fn send(server: &Server, line: &str, host: &str) -> Answer {
    let mut connection = Connection::open(server.addr).await;
    connection.send(format!("{line} HTTP/1.1\r\n{host}\r\n").as_bytes()).await;
    connection.read_answer(false).await
}

#[tokio::test]
async fn clients_of_this_machine_are_served_by_all_their_names_for_it() {
    let limits = Limits { hosts: vec!["registry.example".into()], ..Limits::default() };
    let server = Server::start_with(limits).await;
    let port = server.addr.port();
    for host in ["localhost", "127.0.0.1", "[::1]", "registry", "ddr.internal", "Registry.Example"]
    {
        send(&server, "GET /v2/", &format!("Host: {host}:{port}\r\n")).await.expect(200);
        send(&server, "GET /v2/", &format!("Host: {host}\r\n")).await.expect(200);
    }
    send(&server, "GET http://localhost:5000/v2/", "Host: localhost:5000\r\n").await.expect(200);
}

#[tokio::test]
async fn a_name_of_somebody_else_is_refused_and_nothing_is_done() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"");
    let post = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    for host in ["attacker.example", "attacker.example:5000", "127.0.0.1.attacker.example"] {
        let error = send(&server, "GET /v2/_catalog", &format!("Host: {host}\r\n")).await;
        let error = error.expect_error(421, "DENIED");
        assert!(error["message"].as_str().unwrap().contains("[registry]"), "{error}");
        let host = format!("Host: {host}\r\nContent-Length: 0\r\n");
        send(&server, &post, &host).await.expect_error(421, "DENIED");
    }
    let absolute = "GET http://attacker.example/v2/";
    send(&server, absolute, "Host: localhost\r\n").await.expect_error(421, "DENIED");
    server.get(&format!("/v2/a/blobs/{digest}")).await.expect(404);
    for host in ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: me@localhost\r\n"] {
        send(&server, "GET /v2/", host).await.expect_error(400, "UNSUPPORTED");
    }
}
