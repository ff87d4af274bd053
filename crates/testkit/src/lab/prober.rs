//! A client that connects at a fixed rate whatever becomes of its attempts, and the gap that it saw.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::host::Host;

/// One new connection, a request on it and the answer.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began to connect.
    pub start: Instant,
    /// When it had its answer or was given up.
    pub end: Instant,
    /// The member that served it, as its backend saw it; or what went wrong.
    pub outcome: Result<IpAddr, ProbeFailure>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeFailure {
    /// No answer in time. A lost SYN is sent again after a second only, so a lost one counts here unless patience is
    /// longer than that.
    Late,
    /// The connection was refused.
    Refused,
    /// The connection was reset after it had been accepted.
    Reset,
    /// The connection ended without a whole answer.
    CutShort,
    /// The kernel found nobody with that address.
    Unreachable,
    /// Something else.
    Other(ErrorKind),
}

/// Tries until it is finished.
#[derive(Debug)]
pub struct Prober {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prober {
    /// Begins to try `target` from `host`, with `pace` between two attempts; each is given up after `patience`.
    pub fn start(host: &Host, target: SocketAddr, pace: Duration, patience: Duration) -> Self {
        let host = host.clone();
        Self::begin(target, pace, patience, move || host.enter())
    }

    /// As [`Prober::start`], from where the test itself runs.
    pub fn here(target: SocketAddr, pace: Duration, patience: Duration) -> Self {
        Self::begin(target, pace, patience, || ())
    }

    fn begin(
        target: SocketAddr,
        pace: Duration,
        patience: Duration,
        enter: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (attempts, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (attempts.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(open_loop(target, (pace, patience), &seen, &stopped));
        });
        Self { attempts, stop, thread }
    }

    /// How many attempts have ended so that `wanted` accepts them, of those that began after `since`.
    pub fn count(&self, since: Instant, wanted: impl Fn(&Attempt) -> bool) -> usize {
        let attempts = self.attempts.lock().unwrap();
        // The last ones come last, but for those that took long.
        attempts.iter().filter(|attempt| attempt.start > since && wanted(attempt)).count()
    }

    /// Begins no more attempts, waits for those under way, and answers all in the order in which they ended.
    ///
    /// # Panics
    /// When the thread that tried did.
    pub fn finish(self) -> Vec<Attempt> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        std::mem::take(&mut *self.attempts.lock().unwrap())
    }
}

/// Attempts under way are bounded by the rate and the patience.
async fn open_loop(
    target: SocketAddr,
    (pace, patience): (Duration, Duration),
    seen: &Arc<Mutex<Vec<Attempt>>>,
    stop: &AtomicBool,
) {
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    while !stop.load(Ordering::Acquire) {
        ticks.tick().await;
        let seen = seen.clone();
        tasks.spawn(async move {
            let start = Instant::now();
            let outcome = match tokio::time::timeout(patience, exchange(target)).await {
                Ok(Ok(member)) => Ok(member),
                Ok(Err(error)) => Err(failure(error.kind())),
                Err(_) => Err(ProbeFailure::Late),
            };
            seen.lock().unwrap().push(Attempt { start, end: Instant::now(), outcome });
        });
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
}

/// One request on a connection of its own; answers the address that the backend was asked from.
async fn exchange(target: SocketAddr) -> Result<IpAddr, Error> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(64);
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let member = answer.trim_end().rsplit(' ').next().and_then(|member| member.parse().ok());
    member.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

fn failure(kind: ErrorKind) -> ProbeFailure {
    match kind {
        ErrorKind::ConnectionRefused => ProbeFailure::Refused,
        // A reset that comes between connecting and sending is seen as the latter.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => ProbeFailure::Reset,
        ErrorKind::UnexpectedEof => ProbeFailure::CutShort,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ProbeFailure::Unreachable,
        ErrorKind::TimedOut => ProbeFailure::Late,
        other => ProbeFailure::Other(other),
    }
}

/// The longest time without a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// From one answer to the next; or to the end of watching, if none came.
    pub length: Duration,
    /// Whether there was an answer after it.
    pub over: bool,
}

/// The longest time between two answers of which the second came after `fault`; `until` is the end of watching.
/// `attempts` are in the order in which they ended. Without any success before it the gap begins with `fault`.
pub fn gap(attempts: &[Attempt], fault: Instant, until: Instant) -> Gap {
    let mut last = None;
    let mut longest = Gap { length: Duration::ZERO, over: true };
    for attempt in attempts.iter().filter(|attempt| attempt.outcome.is_ok()) {
        let length = attempt.end - last.unwrap_or(fault).min(attempt.end);
        if attempt.end > fault && length > longest.length {
            longest = Gap { length, over: true };
        }
        last = Some(attempt.end);
    }
    let silent = until.saturating_duration_since(last.unwrap_or(fault));
    if silent > longest.length { Gap { length: silent, over: false } } else { longest }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Attempts that ended so many milliseconds after the first moment; negative ones failed.
    fn attempts(zero: Instant, ends: &[i64]) -> Vec<Attempt> {
        let attempt = |end: &i64| Attempt {
            start: zero,
            end: zero + Duration::from_millis(end.unsigned_abs()),
            outcome: if *end > 0 { Ok(Ipv4Addr::LOCALHOST.into()) } else { Err(ProbeFailure::Late) },
        };
        ends.iter().map(attempt).collect()
    }

    #[test]
    fn the_gap_is_the_longest_time_between_answers_that_ends_after_the_fault() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let found = |ends: &[i64], fault, until| {
            let gap = gap(&attempts(zero, ends), at(fault), at(until));
            (gap.length.as_millis(), gap.over)
        };
        assert_eq!(found(&[1, 2, 3, 4, 5], 2, 5), (1, true));
        // The one before the fault counts only as far as it goes on after it.
        assert_eq!(found(&[1, 50, 51, 52, -53, 60, 61], 51, 61), (8, true));
        assert_eq!(found(&[10, 20, -30, -40, 500, 501], 21, 502), (480, true));
        // Nothing came back.
        assert_eq!(found(&[10, 20, -30, -40], 25, 100), (80, false));
        assert_eq!(found(&[-30, -40], 25, 100), (75, false));
        assert_eq!(found(&[-30, 35], 25, 36), (10, true));
    }
}
