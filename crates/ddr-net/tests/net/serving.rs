//! Messages and content between members, for both carriers.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ddr_net::{
    CallError, ClientLimits, GetError, Identity, MemoryNetwork, ServeLimits, UploadFrame,
    any_piece_path, blob_path, manifest_path,
};
use ddr_oci::Digest;
use ddr_proto::id::Key;
use ddr_proto::kad::Reason;
use ddr_proto::wire::{
    BusyAnswer, Holder, MAX_REVOKED, MAX_ZONE_BYTES, Request, RequestEnvelope, Response, SwarmBody,
    SwarmMessage, SwarmPost,
};
use std::sync::Arc;

use crate::support::{
    CALL_TIMEOUT, Home, KINDS, PIECE, REPOSITORY, TestNode, TestService, envelope, eventually,
    memory_addr, nodes, pattern, repository, within,
};

async fn read_all(body: &mut ddr_net::ContentBody) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = within(body.next()).await {
        bytes.extend_from_slice(&frame?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn messages_are_answered_over_one_connection() {
    for kind in KINDS {
        let nodes = nodes(kind, 2, TestService::default).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let message = envelope(&nodes[0].home.identity);
        let node = nodes[1].home.identity.node_id();
        let calls = (0..200).map(|_| client.call(addr, Some(node), &message, CALL_TIMEOUT));
        let answers = within(futures_util::future::join_all(calls)).await;
        for answer in answers {
            let (from, response) = answer.unwrap();
            assert_eq!(from, node);
            assert!(matches!(response, Response::Pong { revoked: 1..=200, .. }));
        }
        assert_eq!(nodes[1].service.messages.load(Ordering::SeqCst), 200);
        assert_eq!(client.connections(), (1, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn content_arrives_whole_in_part_and_as_head() {
    let blob = pattern(3_000_001);
    let digest = Digest::sha256(&blob);
    for kind in KINDS {
        let service = || TestService::default().with_blob(blob.clone());
        let nodes = nodes(kind, 2, service).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let path = blob_path(&digest, Some(&repository()));

        let mut body = within(client.get(addr, None, &path, None)).await.unwrap();
        assert_eq!((body.status, body.size, body.remaining()), (200, 3_000_001, 3_000_001));
        assert_eq!(read_all(&mut body).await.unwrap(), blob);

        for (start, end) in
            [(0, Some(1)), (5, Some(1_000_000)), (2_999_999, None), (7, Some(u64::MAX))]
        {
            let mut body = within(client.get(addr, None, &path, Some((start, end)))).await.unwrap();
            assert_eq!((body.status, body.size), (206, 3_000_001));
            let until = end.map_or(blob.len(), |end| blob.len().min(end as usize));
            assert_eq!(read_all(&mut body).await.unwrap(), blob[start as usize..until]);
        }
        let head = within(client.head(addr, None, &path)).await.unwrap();
        assert_eq!((head.size, head.media_type.as_deref()), (3_000_001, Some("text/x")));
        let past = client.get(addr, None, &path, Some((3_000_001, None)));
        assert_eq!(within(past).await.unwrap_err(), GetError::Unsatisfiable);
        assert_eq!(client.connections(), (0, 1), "{kind:?}: one connection did it all");
    }
}

#[tokio::test]
async fn a_peer_chooses_a_piece_and_says_which() {
    let blob = pattern(300_000);
    let digest = Digest::sha256(&blob);
    for kind in KINDS {
        let nodes = nodes(kind, 2, || TestService::default().with_blob(blob.clone())).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let path = any_piece_path(&digest, &repository());
        let mut body = within(client.get_any_piece(addr, None, &path)).await.unwrap();
        assert_eq!((body.status, body.size, body.start), (206, 300_000, PIECE.start));
        let bytes = read_all(&mut body).await.unwrap();
        assert_eq!(bytes, blob[PIECE.start as usize..PIECE.end as usize]);
        assert_eq!(within(client.head(addr, None, &path)).await.unwrap().size, 300_000);
        assert_eq!(client.connections(), (0, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn who_is_busy_names_others() {
    let blob = pattern(300_000);
    let digest = Digest::sha256(&blob);
    for kind in KINDS {
        let contact = envelope(&Home::new().identity).sender;
        let others = vec![Holder { contact, complete: true }];
        let answer = BusyAnswer { load: 7, others };
        let busy = Some(answer.clone());
        let service = || TestService { busy: busy.clone(), ..TestService::default() };
        let nodes = nodes(kind, 2, || service().with_blob(blob.clone())).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let path = blob_path(&digest, Some(&repository()));
        let piece = client.get(addr, None, &path, Some((0, Some(65_536))));
        assert_eq!(within(piece).await.unwrap_err(), GetError::Busy(Box::new(answer)));
        assert_eq!(client.connections(), (0, 1), "{kind:?}: the connection is of use still");
    }
}

#[tokio::test]
async fn what_is_said_about_a_blob_is_heard_where_it_is() {
    let blob = pattern(10);
    let digest = Digest::sha256(&blob);
    for kind in KINDS {
        let nodes = nodes(kind, 2, || TestService::default().with_blob(blob.clone())).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let say = async |sender: &Identity, blob: &Digest, about: &Digest, name: &str| {
            let body = SwarmBody::Have { pieces: vec![0], load: 0 };
            let messages = vec![SwarmMessage { blob: Key::of_content(about), body }; 2];
            let sender = envelope(sender).sender;
            let post = SwarmPost { sender, repository: name.parse().unwrap(), messages };
            within(client.post(addr, None, blob, &post, CALL_TIMEOUT)).await
        };
        let own = &nodes[0].home.identity;
        assert_eq!(say(own, &digest, &digest, REPOSITORY).await, Ok(true));
        assert_eq!(say(own, &digest, &digest, "other").await, Ok(false));
        let other = Digest::sha256(b"other");
        assert_eq!(say(own, &other, &other, REPOSITORY).await, Ok(false));
        let refused = |status: u16| Err(CallError::Status(status.try_into().unwrap()));
        assert_eq!(say(own, &digest, &other, REPOSITORY).await, refused(400));
        let stranger = Home::new().identity;
        assert_eq!(say(&stranger, &digest, &digest, REPOSITORY).await, refused(403));
        assert_eq!(nodes[1].service.heard.load(Ordering::SeqCst), 2, "{kind:?}");
    }
}

#[tokio::test]
async fn absent_content_and_foreign_repositories_are_not_found() {
    let blob = pattern(10);
    let digest = Digest::sha256(&blob);
    for kind in KINDS {
        let nodes = nodes(kind, 2, || TestService::default().with_blob(blob.clone())).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let other = "another/app".parse().unwrap();
        let absent = Digest::sha256(b"absent");
        for path in [
            blob_path(&absent, Some(&repository())),
            blob_path(&digest, Some(&other)),
            blob_path(&digest, None),
            manifest_path(&absent, Some(&repository())),
        ] {
            let error = within(client.get(addr, None, &path, None)).await.unwrap_err();
            assert_eq!(error, GetError::NotFound, "{kind:?} {path}");
            assert_eq!(within(client.head(addr, None, &path)).await.unwrap_err(), error);
        }
        assert_eq!(client.connections(), (0, 1), "a refusal keeps the connection");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_taken_for_whole() {
    let blob = pattern(1_000_000);
    let path = blob_path(&Digest::sha256(&blob), Some(&repository()));
    for kind in KINDS {
        let service = || TestService {
            break_after: Some(300_000),
            ..TestService::default().with_blob(blob.clone())
        };
        let nodes = nodes(kind, 2, service).await;
        let client = nodes[0].client();
        let mut body = within(client.get(nodes[1].addr(), None, &path, None)).await.unwrap();
        let error = read_all(&mut body).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{kind:?}: {error}");
        assert!(body.remaining() >= 700_000);
        assert!(within(body.next()).await.is_none(), "nothing after an error");
        assert_eq!(client.connections(), (0, 0), "{kind:?}: the connection is not used again");
    }
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let blob = pattern(500_000);
    let path = blob_path(&Digest::sha256(&blob), Some(&repository()));
    for kind in KINDS {
        let service = || TestService {
            stop_after: Some(100_000),
            ..TestService::default().with_blob(blob.clone())
        };
        let nodes = nodes(kind, 2, service).await;
        let read_timeout = Duration::from_millis(50);
        let client = nodes[0].client_with(ClientLimits { read_timeout, ..Default::default() });
        let mut body = within(client.get(nodes[1].addr(), None, &path, None)).await.unwrap();
        assert_eq!(read_all(&mut body).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn a_sender_that_is_not_the_connections_node_is_refused() {
    for kind in KINDS {
        let nodes = nodes(kind, 2, TestService::default).await;
        let forged = envelope(&Identity::generate().unwrap());
        let client = nodes[0].client();
        let error = within(client.call(nodes[1].addr(), None, &forged, CALL_TIMEOUT)).await;
        assert_eq!(error.unwrap_err(), CallError::Status(http::StatusCode::FORBIDDEN), "{kind:?}");
        assert_eq!(nodes[1].service.messages.load(Ordering::SeqCst), 0);
        assert_eq!(nodes[1].service.blamed(), [Reason::WrongSender]);
    }
}

#[tokio::test]
async fn a_list_over_its_limit_is_refused_and_its_sender_blamed() {
    for kind in KINDS {
        let nodes = nodes(kind, 2, TestService::default).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let good = envelope(&nodes[0].home.identity);
        let with = |body: Request| RequestEnvelope { body, ..good.clone() };
        let mut zone = good.clone();
        zone.sender.zone = "z".repeat(MAX_ZONE_BYTES + 1);
        let cases = [
            (zone, "MAX_ZONE_BYTES", http::StatusCode::BAD_REQUEST),
            (
                with(Request::Revoked { serials: vec![[0; 16]; MAX_REVOKED + 1] }),
                "MAX_REVOKED",
                http::StatusCode::BAD_REQUEST,
            ),
            (
                with(Request::Revoked { serials: vec![[0; 16]; 5_000] }),
                "MAX_MESSAGE_BYTES",
                http::StatusCode::PAYLOAD_TOO_LARGE,
            ),
        ];
        for (message, limit, status) in cases {
            let error = within(client.call(addr, None, &message, CALL_TIMEOUT)).await.unwrap_err();
            assert_eq!(error, CallError::Status(status), "{kind:?} {limit}");
            assert_eq!(nodes[1].service.blamed(), [Reason::OverLimit(limit)], "{kind:?}");
        }
        within(client.call(addr, None, &good, CALL_TIMEOUT)).await.unwrap();
        assert_eq!(nodes[1].service.messages.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn one_member_cannot_take_all_connections() {
    let network = MemoryNetwork::new();
    let attach = |index| {
        let home = Home::new();
        let carrier = Arc::new(network.carrier(memory_addr(index), home.identity.node_id()));
        (home, carrier)
    };
    let (home, carrier) = attach(0);
    let limits = ServeLimits { max_connections_per_node: 2, ..ServeLimits::default() };
    let node = TestNode::start_with(home, carrier, TestService::default(), limits);
    let (greedy, others) = (attach(1), attach(2));
    let greedy = TestNode::start(greedy.0, greedy.1, TestService::default());
    let other = TestNode::start(others.0, others.1, TestService::default());
    let message = envelope(&greedy.home.identity);
    let clients: Vec<_> = (0..3).map(|_| greedy.client()).collect();
    let mut answered = 0;
    for client in &clients {
        let answer = within(client.call(node.addr(), None, &message, CALL_TIMEOUT)).await;
        answered += usize::from(answer.is_ok());
    }
    assert_eq!(answered, 2);
    let message = envelope(&other.home.identity);
    within(other.client().call(node.addr(), None, &message, CALL_TIMEOUT)).await.unwrap();
    // A seat is free again when its connection ends.
    drop(clients);
    let client = greedy.client();
    let message = envelope(&greedy.home.identity);
    let again = async {
        while client.call(node.addr(), None, &message, CALL_TIMEOUT).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(again).await;
}

#[tokio::test]
async fn stopping_lets_a_transfer_finish_and_takes_no_new_one() {
    let blob = pattern(2_000_000);
    let path = blob_path(&Digest::sha256(&blob), Some(&repository()));
    for kind in KINDS {
        let nodes = nodes(kind, 2, || TestService::default().with_blob(blob.clone())).await;
        let client = nodes[0].client();
        let mut body = within(client.get(nodes[1].addr(), None, &path, None)).await.unwrap();
        nodes[1].stop();
        assert_eq!(read_all(&mut body).await.unwrap(), blob, "{kind:?}");
        let refused = async {
            while client.get(nodes[1].addr(), None, &path, None).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        within(refused).await;
        eventually("connections go", || client.connections() == (0, 0)).await;
    }
}

#[tokio::test]
async fn content_is_sent_while_it_comes_in_and_counts_with_its_digest() {
    for kind in KINDS {
        let nodes = nodes(kind, 2, TestService::default).await;
        let (client, addr) = (nodes[0].client(), nodes[1].addr());
        let node = nodes[1].home.identity.node_id();
        let bytes = pattern(1_000_001);
        let parts = bytes.chunks(77_777).map(|part| Ok(UploadFrame::Bytes(bytes.slice_ref(part))));
        let parts: Vec<io::Result<UploadFrame>> = parts.collect();
        let send = async |last: Option<io::Result<UploadFrame>>| {
            let all = parts.iter().map(|part| Ok(part.as_ref().expect("bytes").clone()));
            let frames: Vec<io::Result<UploadFrame>> = all.chain(last).collect();
            let frames = futures_util::stream::iter(frames);
            within(client.upload(addr, node, &repository(), Box::pin(frames))).await
        };
        let right = UploadFrame::End(Digest::sha256(&bytes));
        assert_eq!(send(Some(Ok(right))).await, Ok(()), "{kind:?}");
        assert_eq!(
            nodes[1].service.uploaded.lock().unwrap().as_slice(),
            std::slice::from_ref(&bytes)
        );
        let wrong = UploadFrame::End(Digest::sha256(b"x"));
        for last in [Some(Ok(wrong)), None, Some(Err(io::ErrorKind::Other.into()))] {
            assert!(send(last).await.is_err(), "{kind:?}");
        }
        assert_eq!(
            nodes[1].service.uploaded.lock().unwrap().len(),
            1,
            "what broke off is not kept"
        );
    }
}
