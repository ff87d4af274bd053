//! What is known of one connection to an own port.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::calls::CallLimiter;
use super::session::CallerSession;
use super::{ClientSource, ConnectionOrigin};

/// Times after which a connection of one port is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortDeadlines {
    /// Bytes with which every connection begins, and how long they may take.
    pub(crate) preface: (u64, Duration),
    /// How long the head of a request may take from its first byte; `None` where many share a connection, so that bytes
    /// tell nothing.
    pub(crate) head: Option<Duration>,
    /// How long a connection may stand without a call.
    pub(crate) idle: Duration,
    /// How long an answer may take to be fetched.
    pub(crate) answer: Duration,
    /// How long a peer may take nothing of what it is sent.
    pub(crate) write: Duration,
}

/// How many calls of a connection may give way or be refused, because requests did not come whole, before it is ended: each takes time
/// from the threads that answer others. A client that sends whole requests has none, however many it makes.
const EVICTED_CALLS_MAX: u32 = 64;

/// Bytes that a connection is read at a time before others have their turn: some 7 heads of calls, each of which takes some
/// 10 us. Without it, a burst of heads on one connection is worked off before anybody else is answered.
const TURN: usize = 512;

/// The most for one whose bytes are not heads: each turn is four times the one before, so that bodies come in few.
const TURN_MAX: usize = 16 * 1024;

/// Requests of a connection that have not come whole, with those that gave way, after which it is read slowly while the port
/// waits for many. A client that makes many calls at a time may send so many heads before their bodies, and is not slowed
/// unless the port is crowded.
const UNFINISHED_MAX: u32 = 8;

/// How long such a connection waits between two turns: 30 of them then take a tenth of the processors.
const SLOW_TURN: Duration = Duration::from_millis(20);

/// Slow turns in a row, a second of them, after which it is ended.
const SLOW_TURNS_MAX: u32 = 50;

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The request is still coming.
    Receiving,
    /// It is worked on, or it is a stream.
    Running,
    /// The answer is there and is being fetched.
    Sending,
}
/// How long a request may be on its way before its connection counts as one that waits for nothing but its client.
const RECEIVING_IS_STUCK: Duration = Duration::from_secs(1);
/// As long for an answer that is not fetched.
const SENDING_IS_STUCK: Duration = Duration::from_secs(2);

/// What a connection is good for when another one needs its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occupancy {
    /// It works, and stays.
    Busy,
    /// It has waited for its client since then, and gives way.
    Idle(Instant),
}

#[derive(Debug)]
struct State {
    received: u64,
    idle_since: Instant,
    /// When the first byte came of what may become a request.
    began: Option<Instant>,
    /// Since when nothing could be written.
    blocked: Option<Instant>,
    calls: BTreeMap<u64, (Phase, Instant)>,
    last_call: u64,
}

/// A connection that was let in.
#[derive(Debug)]
pub(crate) struct PortConnection {
    pub(crate) number: u64,
    pub(crate) origin: ConnectionOrigin,
    pub(crate) source: ClientSource,
    accepted: Instant,
    /// It carries Raft, and keeps its place whatever comes.
    lane: AtomicBool,
    state: Mutex<State>,
    /// Its calls that gave way to others while their requests were still coming, or were refused because of those.
    evicted_calls: AtomicU32,
    /// To be ended at once.
    abort: CancellationToken,
    /// To be ended when its calls have.
    leave: CancellationToken,
    /// Who has come over it; none at a port where nobody shows who it is.
    session: OnceLock<Arc<CallerSession>>,
}

impl PortConnection {
    pub(crate) fn new(number: u64, origin: ConnectionOrigin, now: Instant) -> Self {
        let state = State {
            received: 0,
            idle_since: now,
            began: None,
            blocked: None,
            calls: BTreeMap::new(),
            last_call: 0,
        };
        Self {
            number,
            source: (&origin).into(),
            origin,
            accepted: now,
            lane: AtomicBool::new(false),
            state: Mutex::new(state),
            evicted_calls: AtomicU32::new(0),
            abort: CancellationToken::new(),
            leave: CancellationToken::new(),
            session: OnceLock::new(),
        }
    }

    /// Notes who its client is, once.
    pub(super) fn set_session(&self, session: Arc<CallerSession>) {
        self.session.get_or_init(|| session);
    }

    /// Who its client is; `None` at a port where nobody shows it.
    pub(super) fn session(&self) -> Option<&Arc<CallerSession>> {
        self.session.get()
    }

    /// Whether nobody has shown a certificate where members do.
    pub(super) fn is_anonymous(&self) -> bool {
        self.session().is_some_and(|session| session.is_anonymous())
    }

    /// Whole between any two statements.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_lane(&self) -> bool {
        self.lane.load(Relaxed)
    }

    pub(super) fn make_lane(&self) {
        self.lane.store(true, Relaxed);
    }

    /// Ends it at once.
    pub(crate) fn abort(&self) {
        self.abort.cancel();
    }

    pub(crate) async fn aborted(&self) {
        self.abort.cancelled().await;
    }

    /// Ends it when its calls have.
    pub(super) fn leave(&self) {
        self.leave.cancel();
    }

    pub(crate) async fn close_requested(&self) {
        self.leave.cancelled().await;
    }

    /// A call begins; answers its number.
    pub(crate) fn begin(&self, phase: Phase, now: Instant) -> u64 {
        let mut state = self.state();
        state.began = None;
        state.last_call += 1;
        let number = state.last_call;
        state.calls.insert(number, (phase, now));
        number
    }

    /// A call has come this far.
    pub(crate) fn advance(&self, call: u64, phase: Phase, now: Instant) {
        if let Some(known) = self.state().calls.get_mut(&call) {
            *known = (phase, now);
        }
    }

    pub(crate) fn end(&self, call: u64, now: Instant) {
        let mut state = self.state();
        state.calls.remove(&call);
        if state.calls.is_empty() {
            state.idle_since = now;
        }
    }

    /// A call gave way to another one while its request was still coming, or was refused because others of its are.
    pub(crate) fn count_eviction(&self) {
        if self.evicted_calls.fetch_add(1, Relaxed) >= EVICTED_CALLS_MAX {
            self.abort();
        }
    }

    /// Whether many of its requests have not come whole, those that gave way among them.
    pub(super) fn leaves_many_unfinished(&self) -> bool {
        let evicted_calls = self.evicted_calls.load(Relaxed);
        if evicted_calls >= UNFINISHED_MAX {
            return true;
        }
        let state = self.state();
        let unfinished = state.calls.values().filter(|(phase, _)| *phase == Phase::Receiving);
        unfinished.count() as u32 + evicted_calls >= UNFINISHED_MAX
    }

    /// Calls that have not ended.
    pub(crate) fn calls(&self) -> usize {
        self.state().calls.len()
    }

    pub(crate) fn occupancy(&self, now: Instant) -> Occupancy {
        if self.is_lane() {
            return Occupancy::Busy;
        }
        let state = self.state();
        let mut since = state.idle_since;
        for (phase, at) in state.calls.values() {
            let age = now.saturating_duration_since(*at);
            match phase {
                Phase::Receiving if age >= RECEIVING_IS_STUCK => since = *at,
                Phase::Sending if age >= SENDING_IS_STUCK => since = *at,
                _ => return Occupancy::Busy,
            }
        }
        Occupancy::Idle(since)
    }

    /// Ends it if it has had its time, and says why.
    pub(crate) fn check(&self, deadlines: &PortDeadlines, now: Instant) -> Option<&'static str> {
        let over = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        let state = self.state();
        let (bytes, limit) = deadlines.preface;
        let why = if state.received < bytes && over(self.accepted, limit) {
            "said nothing that this port understands"
        } else if state.blocked.is_some_and(|since| over(since, deadlines.write)) {
            "takes nothing of what it is sent"
        } else if state
            .calls
            .values()
            .any(|(phase, at)| *phase == Phase::Sending && over(*at, deadlines.answer))
        {
            "does not fetch its answer"
        } else if let (Some(began), Some(limit)) = (state.began, deadlines.head)
            && state.calls.is_empty()
            && over(began, limit)
        {
            "does not finish the head of its request"
        } else if state.calls.is_empty() && !self.is_lane() && over(state.idle_since, deadlines.idle) {
            self.leave.cancel();
            // Once it was asked it has as long as anybody to be gone.
            if !over(state.idle_since, deadlines.idle + deadlines.write) {
                return None;
            }
            "is idle"
        } else {
            return None;
        };
        self.abort();
        Some(why)
    }

    fn record_read(&self, bytes: usize) {
        let mut state = self.state();
        state.received = state.received.saturating_add(bytes as u64);
        if state.began.is_none() && state.calls.is_empty() {
            state.began = Some(Instant::now());
        }
    }

    fn record_write(&self, done: bool) {
        let mut state = self.state();
        if done {
            state.blocked = None;
        } else if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }
}

/// A connection's socket, or what is above it, whose progress is noted, and which is read in turns with others.
#[derive(Debug)]
pub(crate) struct MonitoredIo<Io> {
    io: Io,
    connection: Arc<PortConnection>,
    calls: Arc<CallLimiter>,
    /// Bytes of its next turn.
    turn: usize,
    /// It has had its turn: others are next.
    had_turn: bool,
    /// It waits this long for its next turn.
    pause: Option<Pin<Box<Sleep>>>,
    slow_turns: u32,
}

impl<Io> MonitoredIo<Io> {
    pub(crate) fn new(io: Io, connection: Arc<PortConnection>, calls: Arc<CallLimiter>) -> Self {
        Self { io, connection, calls, turn: TURN, had_turn: false, pause: None, slow_turns: 0 }
    }

    /// Whether it may be read now.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.had_turn) {
            let many = self.connection.leaves_many_unfinished();
            self.turn = if many { TURN } else { (self.turn * 4).min(TURN_MAX) };
            if !(many && self.calls.is_crowded()) {
                self.slow_turns = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.slow_turns += 1;
            if self.slow_turns > SLOW_TURNS_MAX {
                self.connection.abort();
            }
            self.pause = Some(Box::pin(sleep(SLOW_TURN)));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for MonitoredIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Those that carry Raft are few, and known.
        let takes_turns = !self.connection.is_lane();
        if takes_turns {
            ready!(self.poll_turn(cx));
        }
        let room = if takes_turns { buffer.remaining().min(self.turn) } else { buffer.remaining() };
        let mut turn = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut turn);
        let bytes = turn.filled().len();
        buffer.advance(bytes);
        if bytes > 0 {
            self.had_turn = takes_turns;
            self.connection.record_read(bytes);
        }
        if bytes < room {
            self.turn = TURN;
        }
        polled
    }
}

impl<Io: AsyncWrite + Unpin> MonitoredIo<Io> {
    fn record_result(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.connection.record_write(polled.is_ready());
        polled
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for MonitoredIo<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.record_result(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.record_result(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
