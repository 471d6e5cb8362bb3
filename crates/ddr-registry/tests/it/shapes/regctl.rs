//! regctl: anonymous mount first, then chunks of one megabyte.

use ddr_oci::digest::Digest;

use super::{encoded, location, say};
use crate::client::Connection;
use crate::server::{Server, noise};

const FIELDS: &str = "Host: localhost:5000\nUser-Agent: regclient/regctl (v0.9.2)";
const MEGABYTE: usize = 1024 * 1024;

#[tokio::test]
async fn chunks_of_a_megabyte_with_recovery_by_the_status() {
    let server = Server::start().await;
    let content = noise(2 * MEGABYTE + 12_345);
    let digest = Digest::sha256(&content);
    let mut connection = Connection::open(server.addr).await;
    let line = format!("POST /v2/team/app/blobs/uploads/?mount={} HTTP/1.1", encoded(&digest));
    let zero = "Content-Length: 0";
    let answer = say(&mut connection, &format!("{line}\n{FIELDS}\n{zero}"), b"").await.expect(202);
    // No least length of a chunk is asked, so it keeps its own.
    assert_eq!(answer.header("oci-chunk-min-length"), None);
    let mut session = location(&answer);

    let send = |session: &str, start: usize, part: &[u8]| {
        let len = part.len();
        format!(
            "PATCH {session} HTTP/1.1\n{FIELDS}\nContent-Length: {len}\n\
             Content-Range: {start}-{}\nContent-Type: application/octet-stream\n\
             Accept-Encoding: gzip",
            start + len - 1
        )
    };
    let first = &content[..MEGABYTE];
    let answer = say(&mut connection, &send(&session, 0, first), first).await.expect(202);
    assert_eq!(answer.header("range"), Some("0-1048575"));
    session = location(&answer);

    // The answer was lost: it sends the chunk again, is told no, and asks where to go on.
    let again = say(&mut connection, &send(&session, 0, first), first).await;
    again.expect_error(416, "BLOB_UPLOAD_INVALID");
    let answer =
        say(&mut connection, &format!("GET {session} HTTP/1.1\n{FIELDS}"), b"").await.expect(204);
    assert_eq!(answer.header("range"), Some("0-1048575"));
    session = location(&answer);
    for start in [MEGABYTE, 2 * MEGABYTE] {
        let part = &content[start..(start + MEGABYTE).min(content.len())];
        let answer = say(&mut connection, &send(&session, start, part), part).await.expect(202);
        let end = start + part.len() - 1;
        assert_eq!(answer.header("range"), Some(&*format!("0-{end}")), "from the first byte on");
        session = location(&answer);
    }
    let line = format!("PUT {session}?digest={} HTTP/1.1", encoded(&digest));
    say(&mut connection, &format!("{line}\n{FIELDS}\n{zero}"), b"").await.expect(201);

    // The next repository takes it over without being told where it is.
    let line = format!("POST /v2/team/two/blobs/uploads/?mount={} HTTP/1.1", encoded(&digest));
    let answer = say(&mut connection, &format!("{line}\n{FIELDS}\n{zero}"), b"").await.expect(201);
    assert_eq!(answer.header("location"), Some(&*format!("/v2/team/two/blobs/{digest}")));
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_cancelled() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.addr).await;
    let post = format!("POST /v2/team/app/blobs/uploads/ HTTP/1.1\n{FIELDS}\nContent-Length: 0");
    let session = location(&say(&mut connection, &post, b"").await.expect(202));
    let cancel = format!("DELETE {session} HTTP/1.1\n{FIELDS}");
    say(&mut connection, &cancel, b"").await.expect(204);
    say(&mut connection, &cancel, b"").await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}
