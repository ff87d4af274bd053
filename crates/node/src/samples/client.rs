//! A client that connects anew every 10 ms, whatever becomes of its connections.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::MissedTickBehavior;

use super::ASKED_FROM;
use super::sightings::Sightings;
use crate::plain_http::get;

/// Time between two connections.
const PACE: Duration = Duration::from_millis(10);
/// How long a connection is given: a lost SYN is sent again after a second (RFC 6298, section 2.1). With the pace it bounds how many are
/// open at once.
const PATIENCE: Duration = Duration::from_millis(1500);
const DAY: u64 = 86_400;

/// A client of a balanced service, which says on standard output who answers, and what it cost that this changes.
#[derive(Debug)]
pub struct SampleClient {
    target: SocketAddr,
}

/// The time of day in UTC.
fn clock() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs() % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", since.subsec_millis())
}

/// To standard output; that nobody reads it is no reason to end.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{} {line}", clock());
}

async fn attempt(target: SocketAddr) -> Result<String, String> {
    match tokio::time::timeout(PATIENCE, get(target, "/")).await {
        Ok(Ok((200, body))) => {
            let body = body.trim_end();
            Ok(body.rsplit_once(ASKED_FROM).map_or(body, |(_, member)| member).to_owned())
        }
        Ok(Ok((status, _))) => Err(format!("status {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing within {} ms", PATIENCE.as_millis())),
    }
}

async fn dial(target: SocketAddr, ended: &UnboundedSender<(Instant, Result<String, String>)>) {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let ended = ended.clone();
        let began = Instant::now();
        tokio::spawn(async move { ended.send((began, attempt(target).await)) });
    }
}

impl SampleClient {
    /// A client of the service there.
    pub fn of(target: SocketAddr) -> Self {
        Self { target }
    }

    /// Connects until `end`, and then says what it has seen in all.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let (ended, mut endings) = unbounded_channel();
        let mut seen = Sightings::since(Instant::now());
        say(format_args!("connecting to {} every {} ms", self.target, PACE.as_millis()));
        let watch = async {
            while let Some((began, outcome)) = endings.recv().await {
                seen.take(began, Instant::now(), outcome).into_iter().for_each(say);
            }
        };
        tokio::select! {
            () = dial(self.target, &ended) => {}
            () = watch => {}
            () = end => {}
        }
        say(seen.totals());
    }
}
