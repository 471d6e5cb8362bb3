//! Parts of content that are not those that were asked for.

use ddr_containerd::ContainerdError;
use ddr_oci::Digest;
use futures_util::TryStreamExt as _;

use crate::fake::{Fake, Reply};

/// A part of content: its offset, below 128, and its bytes.
fn part(offset: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    [&[0x08, offset, 0x12, length], bytes].concat()
}

/// What comes of bytes 2 to 8.
async fn read(parts: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let fake = Fake::always(Reply::ok(&parts));
    let bytes = fake.connect().await.read("one", &Digest::sha256(b"x"), 2..8).await?;
    let parts: Vec<_> = bytes.try_collect().await?;
    Ok(parts.concat())
}

#[tokio::test]
async fn parts_follow_each_other() {
    assert_eq!(read(&[part(2, b"cdefgh")]).await.expect("bytes"), b"cdefgh");
    assert_eq!(
        read(&[part(2, b"cd"), part(4, b""), part(4, b"efgh")]).await.expect("bytes"),
        b"cdefgh"
    );
}

#[tokio::test]
async fn other_parts_are_errors() {
    for parts in [
        vec![],
        vec![part(1, b"cdefgh")],
        vec![part(0, b"cd"), part(4, b"efgh")],
        vec![part(2, b"cde")],
        vec![part(2, b"cdefghi")],
        vec![part(2, b"cd"), part(5, b"fgh")],
        vec![part(2, b"cd"), part(2, b"cdefgh")],
        vec![part(2, b"cdefgh"), part(8, b"i")],
        vec![b"\x12\x05a".to_vec()],
    ] {
        let error = read(&parts).await.expect_err("an error");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{parts:?}");
    }
}

#[tokio::test]
async fn ranges_that_nothing_has_are_not_asked_for() {
    let fake = Fake::always(Reply::ok(&[]));
    let containerd = fake.connect().await;
    let digest = Digest::sha256(b"x");
    let bytes = containerd.read("one", &digest, 5..5).await.expect("nothing");
    assert!(bytes.try_collect::<Vec<_>>().await.expect("nothing").is_empty());
    let error = containerd.read("one", &digest, u64::MAX - 1..u64::MAX).await.err();
    assert!(matches!(error, Some(ContainerdError::Failed(_))), "{error:?}");
    let error = containerd.read("a\nb", &digest, 0..1).await.err();
    assert!(matches!(error, Some(ContainerdError::Settings(_))), "{error:?}");
}
