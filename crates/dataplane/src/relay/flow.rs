//! One direction of a connection.

use std::io;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::pipe::{self, Pipe};
use crate::relay::reactor;
use crate::relay::socket::Spliced;
use crate::relay::transport::Transport;

/// Reads of one direction in one poll, so that a fast connection does not keep the others of its worker waiting.
const READS: usize = 4;

/// Bytes spliced in one poll, for the same reason; they take about as long as [`READS`] full reads.
const SPLICED: usize = pipe::CAPACITY;

/// A read of this size is taken for a part of bulk. Smaller ones are copied as cheaply as they would be spliced.
const LARGE: usize = 16 * 1024;

/// Bytes in large reads after which a direction is spliced.
const BULK: u32 = 128 * 1024;

/// Milliseconds without a large read after which those before count no more, and small ones end splicing.
const LULL: u32 = 50;

/// Bytes that were read and that the destination has not taken yet.
#[derive(Debug)]
enum Unsent {
    Copied { bytes: Box<[u8]>, written: usize },
    Spliced(Pipe),
}

/// Why a direction cannot go on.
#[derive(Debug)]
pub(super) enum FlowFault {
    /// Its source failed.
    Read(io::Error),
    /// Its destination failed.
    Write(io::Error),
}

/// A fault of the destination as splice(2) tells it; `ended` when the destination is known to have finished.
///
/// When a connection is reset while some of a call's bytes were taken already, the call says so many, the error is used
/// up (`splice_to_socket` in Linux), and the next one says EPIPE, as after a proper end.
fn splice_fault(error: io::Error, ended: bool) -> FlowFault {
    match error.kind() {
        io::ErrorKind::BrokenPipe if !ended => FlowFault::Write(io::ErrorKind::ConnectionReset.into()),
        _ => FlowFault::Write(error),
    }
}

/// How much came in large reads lately.
#[derive(Debug, Default)]
struct Burst {
    bytes: u32,
    /// Milliseconds on this process's clock, which begins anew after 49 days.
    last: u32,
}

impl Burst {
    /// Takes note of a large read; says whether the direction moves bulk by now.
    fn add(&mut self, read: usize, now: u32) -> bool {
        if self.is_over(now) {
            self.bytes = 0;
        }
        self.last = now;
        self.bytes = self.bytes.saturating_add(u32::try_from(read).unwrap_or(u32::MAX));
        self.bytes >= BULK
    }

    /// Whether the last large read was long ago.
    fn is_over(&self, now: u32) -> bool {
        now.wrapping_sub(self.last) > LULL
    }
}

fn now() -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u32
}

/// The state of a direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Boxed, since most connections never wait for their reader.
    unsent: Option<Box<Unsent>>,
    burst: Burst,
    /// Bytes go through a pipe.
    splicing: bool,
    /// The source has finished, and what it sent was taken by the destination.
    ended: bool,
    /// The source has finished, and everything was passed on, that included.
    pub(super) done: bool,
}

impl Flow {
    /// A direction that begins with bytes that were read before.
    pub(super) fn starting_with(first: Vec<u8>) -> Self {
        let unsent = Unsent::Copied { bytes: first.into_boxed_slice(), written: 0 };
        Self { unsent: Some(Box::new(unsent)), ..Self::default() }
    }

    /// Ends the direction, whatever is under way in it.
    pub(super) fn stop(&mut self) {
        self.done = true;
        self.unsent = None;
    }

    /// Moves what can be moved; ready once the source has finished and the destination knows. With `last`, the destination is
    /// closed right after that.
    pub(super) fn poll(
        &mut self,
        cx: &Context<'_>,
        (from, to): (&mut impl Transport, &mut impl Transport),
        last: bool,
        buffer: &mut [u8],
        moved: &mut u64,
    ) -> Poll<Result<(), FlowFault>> {
        ready!(self.poll_unsent(cx, from, to, last, moved))?;
        if !self.ended {
            for read in 1..=READS {
                if self.splicing {
                    self.ended = ready!(self.poll_splice(cx, from, to, last, buffer, moved))?;
                    break;
                }
                // Another read follows, after which the destination is told.
                let may_end = read < READS && !last;
                self.ended = ready!(self.poll_copy(cx, from, to, may_end, buffer, moved))?;
                if self.ended {
                    break;
                }
            }
            if !self.ended {
                reactor::yield_now(cx);
                return Poll::Pending;
            }
        }
        match to.poll_finish(cx, last) {
            Poll::Ready(finished) => {
                self.done = true;
                Poll::Ready(finished.map_err(FlowFault::Write))
            }
            Poll::Pending => poll_source_failed(cx, from),
        }
    }

    /// Copies once through the worker's buffer; says whether the source has finished. When it `may_end`, and these bytes turn
    /// out to be the last, they wait for the destination to be told.
    fn poll_copy<F: Transport, T: Transport>(
        &mut self,
        cx: &Context<'_>,
        from: &mut F,
        to: &mut T,
        may_end: bool,
        buffer: &mut [u8],
        moved: &mut u64,
    ) -> Poll<Result<bool, FlowFault>> {
        let read = ready!(from.poll_read(cx, buffer)).map_err(FlowFault::Read)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if F::SPLICES && T::SPLICES && read >= LARGE && self.burst.add(read, now()) {
            self.splicing = true;
        }
        let ends = may_end && !self.splicing && from.is_at_end();
        let written = match to.poll_write(cx, bytes, ends) {
            Poll::Ready(written) => written.map_err(FlowFault::Write)?,
            Poll::Pending => 0,
        };
        *moved += written as u64;
        if let Some(rest) = bytes.get(written..).filter(|r| !r.is_empty()) {
            self.unsent = Some(Box::new(Unsent::Copied { bytes: rest.into(), written: 0 }));
            ready!(self.poll_unsent(cx, from, to, false, moved))?;
        }
        Poll::Ready(Ok(false))
    }

    /// Moves about as much as a pipe holds through one; says whether the source has finished.
    fn poll_splice<F: Transport, T: Transport>(
        &mut self,
        cx: &Context<'_>,
        from: &mut F,
        to: &mut T,
        last: bool,
        buffer: &mut [u8],
        moved: &mut u64,
    ) -> Poll<Result<bool, FlowFault>> {
        let Some(mut pipe) = Pipe::take() else {
            // As good as new: bulk is to be seen again before a pipe is asked for.
            self.burst = Burst::default();
            self.splicing = false;
            return Poll::Ready(Ok(false));
        };
        let mut spliced = 0;
        while spliced < SPLICED {
            match pipe.fill(cx, from).map_err(FlowFault::Read)? {
                Poll::Ready(Spliced::End) => return Poll::Ready(Ok(true)),
                Poll::Ready(Spliced::Stuck) => {
                    self.rest(spliced, now());
                    return self.poll_copy(cx, from, to, false, buffer, moved);
                }
                Poll::Ready(Spliced::Bytes(filled)) => {
                    if filled >= LARGE {
                        self.burst.last = now();
                    }
                    spliced += filled;
                }
                Poll::Pending => {
                    self.rest(spliced, now());
                    return Poll::Pending;
                }
            }
            while pipe.filled() > 0 {
                match pipe.empty(cx, to).map_err(|error| splice_fault(error, last))? {
                    Poll::Ready(given) => *moved += given as u64,
                    Poll::Pending => {
                        self.unsent = Some(Box::new(Unsent::Spliced(pipe)));
                        return self.poll_unsent(cx, from, to, last, moved).map_ok(|()| false);
                    }
                }
            }
        }
        Poll::Ready(Ok(false))
    }

    /// Takes note that there is nothing more to read after so many bytes of a turn, and ends splicing when those were
    /// not bulk any more. A source that pauses for a moment leaves some turns with little or nothing: were that the end,
    /// the next 128 KiB would be copied, again and again.
    fn rest(&mut self, spliced: usize, now: u32) {
        if spliced > 0 && self.burst.is_over(now) {
            self.burst = Burst::default();
            self.splicing = false;
        }
    }

    /// Writes what is left over from earlier; ready when nothing is.
    fn poll_unsent(
        &mut self,
        cx: &Context<'_>,
        from: &impl Transport,
        to: &mut impl Transport,
        last: bool,
        moved: &mut u64,
    ) -> Poll<Result<(), FlowFault>> {
        while let Some(unsent) = self.unsent.as_deref_mut() {
            let given = match unsent {
                Unsent::Copied { bytes, written } => match bytes.get(*written..).filter(|r| !r.is_empty()) {
                    Some(rest) => to.poll_write(cx, rest, false).map_ok(|given| {
                        *written += given;
                        given
                    }),
                    None => Poll::Ready(Ok(0)),
                },
                Unsent::Spliced(pipe) if pipe.filled() > 0 => {
                    pipe.empty(cx, to).map_err(|error| splice_fault(error, last))?.map(Ok)
                }
                Unsent::Spliced(_) => Poll::Ready(Ok(0)),
            };
            match given.map_err(FlowFault::Write)? {
                Poll::Ready(0) => self.unsent = None,
                Poll::Ready(given) => *moved += given as u64,
                Poll::Pending => return poll_source_failed(cx, from),
            }
        }
        match to.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed.map_err(FlowFault::Write)),
            Poll::Pending => poll_source_failed(cx, from),
        }
    }
}

/// While nothing is read from the source, nothing else would tell that it was reset.
fn poll_source_failed(cx: &Context<'_>, from: &impl Transport) -> Poll<Result<(), FlowFault>> {
    if from.socket().poll_failed(cx)
        && let Some(error) = from.socket().take_error().map_err(FlowFault::Read)?
    {
        return Poll::Ready(Err(FlowFault::Read(error)));
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_reads_close_together_are_bulk() {
        let mut burst = Burst::default();
        assert!(!burst.add(LARGE, 1000));
        let together = (1..8).map(|i| burst.add(LARGE, 1000 + i * LULL)).last();
        assert_eq!(together, Some(true));
        assert!(!burst.add(LARGE, 1000 + 8 * LULL + 1), "what came before the lull still counts");
        let apart = (1..100).any(|i| burst.add(LARGE, 2000 + i * (LULL + 1)));
        assert!(!apart);
    }

    #[test]
    fn only_bytes_after_a_lull_end_splicing() {
        let burst = Burst { bytes: BULK, last: 1000 };
        let mut flow = Flow { splicing: true, burst, ..Flow::default() };
        for (spliced, now) in [(0, 1000), (1, 1000 + LULL), (0, 9000)] {
            flow.rest(spliced, now);
            assert!(flow.splicing, "{spliced} bytes at {now} ended it");
        }
        flow.rest(1, 1001 + LULL);
        assert!(!flow.splicing);
        assert!(!flow.burst.add(LARGE, 1001 + LULL), "bulk is to be seen again");
    }
}
