//! Clients that go on and on, and remember every failure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::wait_for;

/// Time between two requests of one client: hundreds a second would starve the members on two cores.
const PACE: Duration = Duration::from_millis(10);

/// A request that got no whole answer.
#[derive(Debug, Clone)]
pub struct FailedRequest {
    /// When it failed.
    pub at: Instant,
    /// Where it was sent.
    pub target: SocketAddr,
    /// What the client saw.
    pub error: String,
}

/// What the clients have seen.
#[derive(Debug, Clone, Default)]
pub struct TrafficReport {
    /// Answered requests by target, then by answer.
    pub answers: BTreeMap<SocketAddr, BTreeMap<String, u64>>,
    /// Failed requests.
    pub failures: Vec<FailedRequest>,
}

/// What is shared with the clients.
#[derive(Debug, Default)]
struct Seen {
    /// Since the start.
    total: TrafficReport,
    /// Since the last [`Traffic::next`].
    recent: TrafficReport,
}

impl TrafficReport {
    fn add(&mut self, target: SocketAddr, result: &Result<String, String>) {
        match result {
            Ok(answer) => *self.answers.entry(target).or_default().entry(answer.clone()).or_default() += 1,
            Err(error) => {
                self.failures.push(FailedRequest { at: Instant::now(), target, error: error.clone() });
            }
        }
    }

    /// Requests that were answered with `answer`, on all targets.
    pub fn answered(&self, answer: &str) -> u64 {
        self.answers.values().filter_map(|by_answer| by_answer.get(answer)).sum()
    }

    /// Requests of the target that ended, well or not.
    fn ended(&self, target: SocketAddr) -> u64 {
        let answered: u64 =
            self.answers.get(&target).map(|by_answer| by_answer.values().sum()).unwrap_or_default();
        answered + self.failures.iter().filter(|failure| failure.target == target).count() as u64
    }

    /// Failures between two instants do not count; all others do.
    ///
    /// # Panics
    /// When there is such a failure.
    pub fn assert_no_failure_outside(&self, from: Instant, to: Instant) {
        let outside: Vec<_> = self.failures.iter().filter(|f| f.at < from || f.at > to).collect();
        assert!(outside.is_empty(), "failed requests outside the window {from:?} to {to:?}: {outside:#?}");
    }

    /// # Panics
    /// When a request failed.
    pub fn assert_no_failure(&self) {
        assert!(self.failures.is_empty(), "failed requests: {:#?}", self.failures);
    }
}

/// One client for each target.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    targets: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts clients that call `fetch` with their target, again and again, each time on a new connection.
    pub fn start(targets: &[SocketAddr], fetch: fn(SocketAddr) -> Result<String, String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let client = |target: SocketAddr| {
            let (stop, seen) = (stop.clone(), seen.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let result = fetch(target);
                    let mut seen = seen.lock().unwrap();
                    seen.total.add(target, &result);
                    seen.recent.add(target, &result);
                    drop(seen);
                    std::thread::sleep(PACE);
                }
            })
        };
        let threads = targets.iter().map(|target| client(*target)).collect();
        Self { stop, seen, targets: targets.to_vec(), threads }
    }

    /// What the clients have seen since the start.
    pub fn report(&self) -> TrafficReport {
        self.seen.lock().unwrap().total.clone()
    }

    /// Waits until every client has ended `count` requests from now on; answers what was seen in that time. One request
    /// of each client may have begun before.
    ///
    /// # Panics
    /// When that takes more than 60 s.
    pub fn next(&self, count: u64) -> TrafficReport {
        self.seen.lock().unwrap().recent = TrafficReport::default();
        wait_for("requests", Duration::from_secs(60), || {
            let recent = self.seen.lock().unwrap().recent.clone();
            let short = self.targets.iter().find(|target| recent.ended(**target) < count);
            short.map_or(Ok(recent.clone()), |target| Err(format!("{} on {target}", recent.ended(*target))))
        })
    }

    /// Stops the clients and answers what they have seen since the start.
    pub fn stop(mut self) -> TrafficReport {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}
