//! What h2 leaves out: of an error from below it passes on the kind and the text, and not the error itself, by which TLS and
//! the connection of a check say what is wrong.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fault;

/// Reads and writes as its stream does, and keeps in words why reading was [refused](fault::refused).
pub(super) struct RefusalNote<S> {
    stream: S,
    words: Arc<OnceLock<String>>,
}

impl<S> RefusalNote<S> {
    /// Also returns where the words will be.
    pub(super) fn new(stream: S) -> (Self, Arc<OnceLock<String>>) {
        let words = Arc::default();
        (Self { stream, words: Arc::clone(&words) }, words)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RefusalNote<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(words) = fault::refused(error)
        {
            self.words.get_or_init(|| words);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RefusalNote<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
