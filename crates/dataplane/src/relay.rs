//! Moving bytes between the two legs of a connection.
//!
//! No memory is held while nothing moves: a worker's connections share one buffer, which is used only within a poll.
//! Bytes that the other leg does not take stay in a buffer of their own until it does, and until then nothing more is
//! read, so that a slow reader slows the writer down and costs at most one buffer for each direction.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::reason::CloseReason;

/// Size of a worker's shared buffer. Costs per byte fall little beyond it, and it still fits a core's second cache.
const SCRATCH: usize = 64 * 1024;

/// Reads of one direction in one poll, so that a fast connection does not keep the others of its worker waiting.
const READS: usize = 4;

/// How often the reading leg of a stalled direction is asked whether it was reset. Nothing is read while the other leg
/// takes nothing, so nothing else would tell.
const STALL_CHECK: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Bytes that a poll moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// From the client to the backend.
    pub(crate) up: u64,
    /// From the backend to the client.
    pub(crate) down: u64,
}

/// Bytes that were read and that the other leg has not taken yet.
#[derive(Debug)]
struct Pending {
    bytes: Box<[u8]>,
    written: usize,
    check: Interval,
}

impl Pending {
    fn new(bytes: &[u8]) -> Box<Self> {
        let mut check = interval_at(Instant::now() + STALL_CHECK, STALL_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Box::new(Self { bytes: bytes.into(), written: 0, check })
    }
}

/// Why a direction cannot go on.
#[derive(Debug)]
enum Fault {
    /// Its source failed.
    Read(io::Error),
    /// Its destination failed.
    Write(io::Error),
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Flow {
    pending: Option<Box<Pending>>,
    /// The source has finished, and everything was passed on, that included.
    done: bool,
}

impl Flow {
    /// Moves what can be moved; ready once the source has finished and the destination knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        moved: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..READS {
            ready!(self.poll_pending(cx, from, to, moved))?;
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read)).map_err(Fault::Read)?;
            let bytes = read.filled();
            if bytes.is_empty() {
                let told = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.done = true;
                return Poll::Ready(told.map_err(Fault::Write));
            }
            let taken = match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(taken) => taken.map_err(Fault::Write)?,
                Poll::Pending => 0,
            };
            *moved += taken as u64;
            if let Some(rest) = bytes.get(taken..).filter(|r| !r.is_empty()) {
                self.pending = Some(Pending::new(rest));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is left over from earlier; ready when nothing is.
    fn poll_pending(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &mut TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<(), Fault>> {
        while let Some(pending) = &mut self.pending {
            let Some(rest) = pending.bytes.get(pending.written..).filter(|r| !r.is_empty()) else {
                self.pending = None;
                break;
            };
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(taken) => {
                    let taken = taken.map_err(Fault::Write)?;
                    pending.written += taken;
                    *moved += taken as u64;
                }
                Poll::Pending => {
                    while pending.check.poll_tick(cx).is_ready() {
                        if let Some(error) = from.take_error().map_err(Fault::Read)? {
                            return Poll::Ready(Err(Fault::Read(error)));
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Client,
    Backend,
}

impl Leg {
    fn closed(self) -> CloseReason {
        match self {
            Leg::Client => CloseReason::ClientClosed,
            Leg::Backend => CloseReason::BackendClosed,
        }
    }

    fn failed(self, error: &io::Error) -> CloseReason {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
        match (self, error.kind()) {
            (Leg::Client, ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected) => {
                CloseReason::ClientReset
            }
            (Leg::Backend, ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected) => {
                CloseReason::BackendReset
            }
            (Leg::Client, _) => CloseReason::ClientLost,
            (Leg::Backend, _) => CloseReason::BackendLost,
        }
    }
}

/// Two legs and what is under way between them.
#[derive(Debug)]
pub(crate) struct Relay {
    client: TcpStream,
    backend: TcpStream,
    up: Flow,
    down: Flow,
    /// How the connection ends, as far as it is known: the first leg to finish or to break decides.
    ending: Option<CloseReason>,
    /// A leg no longer takes bytes because it was reset; the other one is reset once what it is owed was sent.
    broken: bool,
}

impl Relay {
    /// Relays between two connected legs. `first` goes to the backend before anything else: bytes that were read from
    /// the client to decide where it is led, or a header for the backend. It counts as bytes from the client.
    pub(crate) fn new(client: TcpStream, backend: TcpStream, first: Vec<u8>) -> Self {
        let up = Flow { pending: (!first.is_empty()).then(|| Pending::new(&first)), done: false };
        Self { client, backend, up, down: Flow::default(), ending: None, broken: false }
    }

    /// Moves what can be moved, and adds it to `moved`; ready when the connection has ended, and why.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moved: &mut Moved) -> Poll<CloseReason> {
        BUFFER.with_borrow_mut(|buffer| {
            // The backend's side first: an answer that came before a reset is still passed on.
            for source in [Leg::Backend, Leg::Client] {
                let (flow, from, to, moved) = match source {
                    Leg::Client => (&mut self.up, &mut self.client, &mut self.backend, &mut moved.up),
                    Leg::Backend => (&mut self.down, &mut self.backend, &mut self.client, &mut moved.down),
                };
                if flow.done {
                    continue;
                }
                match flow.poll(cx, from, to, buffer, moved) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => {
                        self.ending.get_or_insert(source.closed());
                    }
                    Poll::Ready(Err(fault)) => {
                        if let Some(reason) = self.fault(source, &fault) {
                            return Poll::Ready(reason);
                        }
                    }
                }
            }
            match self.ending {
                Some(reason) if self.up.done && self.down.done => {
                    if self.broken {
                        self.reset();
                    }
                    Poll::Ready(reason)
                }
                _ => Poll::Pending,
            }
        })
    }

    /// Takes note of a fault in the direction from `source`; returns how the connection ends when it ends now.
    fn fault(&mut self, source: Leg, fault: &Fault) -> Option<CloseReason> {
        let (flow, target) = match source {
            Leg::Client => (&mut self.up, Leg::Backend),
            Leg::Backend => (&mut self.down, Leg::Client),
        };
        match fault {
            Fault::Read(error) => {
                self.reset();
                Some(source.failed(error))
            }
            Fault::Write(error) => {
                // What the leg sent before it broke can still be read, so the other direction goes on. It ends soon:
                // a socket that was reset reads as finished after that. EPIPE says that the leg had finished properly
                // before (RFC 9293 §3.10.7.4, tcp_reset in Linux), so that there is no reset to pass on.
                flow.done = true;
                flow.pending = None;
                if error.kind() != io::ErrorKind::BrokenPipe {
                    self.broken = true;
                    self.ending = Some(target.failed(error));
                }
                self.ending.get_or_insert(target.closed());
                None
            }
        }
    }

    /// Makes both legs end with a reset when they are dropped.
    pub(crate) fn reset(&mut self) {
        for leg in [&self.client, &self.backend] {
            // Fails only where the peer has reset first.
            let _ = leg.set_zero_linger();
        }
    }
}
