//! The contract of a carrier, for both.

use std::io;
use std::sync::Arc;

use ddr_net::{Alpn, Standing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::support::{KINDS, carriers, within};

#[tokio::test]
async fn both_ends_know_each_other_and_bytes_go_both_ways() {
    for kind in KINDS {
        for alpn in [Alpn::Messages, Alpn::Content] {
            let made = carriers(kind, 2).await;
            let [(home_a, a), (home_b, b)] = &made[..] else { unreachable!() };
            let node_b = home_b.identity.node_id();
            let dialled = a.dial(b.local_addr(), alpn, Some(node_b));
            let (dialled, accepted) = within(async { tokio::join!(dialled, b.accept()) }).await;
            let (mut near, mut far) = (dialled.unwrap(), accepted.unwrap());
            assert_eq!(near.peer.node, node_b, "{kind:?}");
            assert_eq!(far.peer.node, home_a.identity.node_id(), "{kind:?}");
            assert_eq!((near.alpn, far.alpn), (alpn, alpn));
            assert_eq!(near.peer.standing, Standing::Member);
            assert_eq!(far.peer.standing, Standing::Member);
            assert_eq!(near.peer.remote, b.local_addr());

            near.stream.write_all(b"there").await.unwrap();
            near.stream.flush().await.unwrap();
            far.stream.write_all(b"back").await.unwrap();
            far.stream.flush().await.unwrap();
            let (mut there, mut back) = ([0; 5], [0; 4]);
            within(far.stream.read_exact(&mut there)).await.unwrap();
            within(near.stream.read_exact(&mut back)).await.unwrap();
            assert_eq!((&there, &back), (b"there", b"back"));

            near.stream.shutdown().await.unwrap();
            assert_eq!(within(far.stream.read(&mut there)).await.unwrap(), 0, "the end is seen");
        }
    }
}

#[tokio::test]
async fn another_node_than_expected_sees_no_byte() {
    for kind in KINDS {
        let made = carriers(kind, 2).await;
        let [(home_a, a), (_, b)] = &made[..] else { unreachable!() };
        let dial = a.dial(b.local_addr(), Alpn::Messages, Some(home_a.identity.node_id()));
        let error = within(dial).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{kind:?}");
        b.close();
        // TLS had to shake hands to find out; then nothing follows.
        while let Ok(mut connection) = within(b.accept()).await {
            let mut bytes = Vec::new();
            within(connection.stream.read_to_end(&mut bytes)).await.ok();
            assert!(bytes.is_empty(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_refused() {
    for kind in KINDS {
        let made = carriers(kind, 2).await;
        let gone = made[1].1.local_addr();
        made[1].1.close();
        let pending = within(made[1].1.accept()).await;
        assert!(pending.is_err(), "{kind:?}: a closed carrier accepts nothing");
        // The listening task ends at its next chance.
        let dialled = within(async {
            loop {
                match made[0].1.dial(gone, Alpn::Messages, None).await {
                    Ok(_) => tokio::task::yield_now().await,
                    Err(error) => return error,
                }
            }
        });
        let kind_of_error = dialled.await.kind();
        let refused = [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
        assert!(
            refused.contains(&kind_of_error) || kind_of_error == io::ErrorKind::UnexpectedEof,
            "{kind:?}: {kind_of_error:?}"
        );
    }
}

#[tokio::test]
async fn a_dropped_end_is_noticed() {
    for kind in KINDS {
        let made = carriers(kind, 2).await;
        let dial = made[0].1.dial(made[1].1.local_addr(), Alpn::Content, None);
        let (near, far) = within(async { tokio::join!(dial, made[1].1.accept()) }).await;
        drop(near.unwrap());
        let mut byte = [0];
        let read = within(far.unwrap().stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{kind:?}: {read:?}");
    }
}

#[tokio::test]
async fn many_dials_at_once_all_arrive() {
    const DIALS: usize = 48;
    for kind in KINDS {
        let made = carriers(kind, 2).await;
        let addr = made[1].1.local_addr();
        let mut dials = JoinSet::new();
        for _ in 0..DIALS {
            let carrier = Arc::clone(&made[0].1);
            dials.spawn(async move { carrier.dial(addr, Alpn::Messages, None).await });
        }
        let mut accepted = Vec::new();
        while accepted.len() < DIALS {
            accepted.push(within(made[1].1.accept()).await.unwrap());
        }
        let dialled = within(dials.join_all()).await;
        assert!(dialled.iter().all(Result::is_ok), "{kind:?}");
    }
}
