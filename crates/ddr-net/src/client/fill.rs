//! Reads as much as is there. TLS gives at most one record (16 KiB) per read; hyper makes one frame
//! per read, and small frames cost more than the bytes in them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::carrier::Stream;

/// A stream whose reads fill the buffer while bytes are there.
pub(super) struct FillReads {
    stream: Box<dyn Stream>,
    /// An error that came after some bytes; it is given at the next read.
    late: Option<io::Error>,
}

impl FillReads {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, late: None }
    }
}

impl AsyncRead for FillReads {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.late.take() {
            return Poll::Ready(Err(error));
        }
        let start = buf.filled().len();
        while buf.remaining() > 0 {
            let before = buf.filled().len();
            match Pin::new(&mut self.stream).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > before => {}
                // End of the stream; the next read finds it again.
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(error)) if before > start => {
                    self.late = Some(error);
                    break;
                }
                Poll::Pending if before > start => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FillReads {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Gives its chunks one by one, then an error.
    struct Chunks(Vec<&'static [u8]>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buf.put_slice(self.0.remove(0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Chunks {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn one_read_takes_what_is_there_and_keeps_the_error_for_later() {
        let mut reads = FillReads::new(Box::new(Chunks(vec![b"ab", b"cd", b"e"])));
        let mut buf = [0; 16];
        assert_eq!(reads.read(&mut buf).await.unwrap(), 5);
        assert_eq!(&buf[..5], b"abcde");
        let error = reads.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn the_end_is_found_after_the_last_bytes() {
        let (mut near, far) = duplex(64);
        let mut reads = FillReads::new(Box::new(far));
        near.write_all(b"last").await.unwrap();
        drop(near);
        let mut all = Vec::new();
        reads.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");
    }
}
