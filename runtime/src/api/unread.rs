//! Connections whose clients read nothing: they end after a time, or each would keep its place and what it waits for.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take nothing of what waits for it. A slow line takes some of it in this time: the operating
/// system says that there is room again when about a megabyte has gone.
const READS_WITHIN: Duration = Duration::from_secs(120);

/// A stream to a client, that breaks when nothing can be written for too long.
#[derive(Debug)]
pub(super) struct Unread<S> {
    stream: S,
    /// Since something waits to be written: until when it may.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Unread<S> {
    pub(super) fn new(stream: S) -> Unread<S> {
        Unread { stream, waits: None }
    }

    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.stream), context) {
            self.waits = None;
            return Poll::Ready(written);
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(READS_WITHIN)));
        ready!(waits.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unread<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unread<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.within(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.within(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Waits out what `READS_WITHIN` would be, in a moment.
    const MOMENT: Duration = Duration::from_millis(50);

    fn waiting(stream: tokio::io::DuplexStream) -> Unread<tokio::io::DuplexStream> {
        Unread { stream, waits: Some(Box::pin(sleep(MOMENT))) }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_cut_off() {
        let (mut here, _there) = duplex(4);
        here.write_all(b"full").await.unwrap();
        let mut here = waiting(here);
        let cut_off = tokio::time::timeout(MOMENT * 100, here.write_all(b"more")).await.expect("it does not wait on");
        assert_eq!(cut_off.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn one_that_reads_a_little_has_all_the_time_again() {
        let (here, mut there) = duplex(4);
        let mut here = waiting(here);
        here.write_all(b"full").await.unwrap();
        assert!(here.waits.is_none(), "it counts from the next wait on");
        let written = tokio::spawn(async move { here.write_all(b"more").await.map(|()| here) });
        tokio::time::sleep(MOMENT * 2).await;
        let mut read = [0; 8];
        there.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"fullmore");
        assert!(written.await.unwrap().is_ok());
    }
}
