//! The clients in front of the proxies, in a process of their own. Each prints what it did as numbers on one line.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::backend::{ANSWER, BULK, CHUNK, ECHO, MESSAGE, REQUEST, SHORT};
use crate::figures::Samples;

/// Connections that are busy at a time.
const CLIENTS: usize = 32;
/// Connections that move bulk at a time.
const MOVERS: usize = 2;
/// Addresses that idle connections come from.
const IDLE_CLIENTS: usize = 8;
/// Connections of the open loop.
const SENDERS: u32 = 4;
/// Latencies are taken for each window of this length, and of the windows the middle one. A machine that stands still for
/// some milliseconds now and then, which has nothing to do with a proxy, spoils a few windows; over a whole run, the 99th
/// percentile without any proxy was between 0.1 and 1.3 ms within a minute.
const WINDOW: Duration = Duration::from_millis(100);
/// A round of the open loop that takes longer was interrupted: it is a few calls that do not wait.
const ROUND: Duration = Duration::from_micros(100);

/// Runs the load that `arguments` name, against the address that comes first in them.
pub(crate) async fn run(arguments: &[String]) {
    let number = |place: usize| arguments[place].parse::<f64>().unwrap();
    let target: SocketAddr = arguments[0].parse().unwrap();
    let time = || Duration::from_secs_f64(number(2));
    match arguments[1].as_str() {
        "short" => println!("{}", together(CLIENTS, |_| short(target, time())).await),
        "echo" => println!("{}", together(CLIENTS, |_| echo(target, time())).await),
        "bulk" => println!("{}", together(MOVERS, |_| bulk(target, time())).await),
        "paced" => paced(target, time(), number(3)),
        "idle" => idle(target).await,
        other => panic!("no load is called {other}"),
    }
}

/// The sum of what `count` clients do at once.
async fn together<F>(count: usize, client: impl Fn(usize) -> F) -> u64
where
    F: Future<Output = u64> + Send + 'static,
{
    let clients: Vec<_> = (0..count).map(|number| tokio::spawn(client(number))).collect();
    let mut sum = 0;
    for client in clients {
        sum += client.await.unwrap();
    }
    sum
}

/// Connects, asks, reads to the end, again and again; answers how often.
async fn short(target: SocketAddr, time: Duration) -> u64 {
    let start = Instant::now();
    let request = [SHORT; REQUEST];
    let mut answer = Vec::with_capacity(2 * ANSWER);
    let mut count = 0;
    while start.elapsed() < time {
        let mut stream = TcpStream::connect(target).await.unwrap();
        stream.write_all(&request).await.unwrap();
        answer.clear();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), ANSWER, "an answer of another length");
        count += 1;
    }
    count
}

async fn exchange(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) {
    stream.write_all(&message[..]).await.unwrap();
    stream.read_exact(message).await.unwrap();
    assert_eq!(message[0], ECHO);
}

/// Sends small requests on one connection, each after the last one's answer; answers how many.
async fn echo(target: SocketAddr, time: Duration) -> u64 {
    let mut stream = TcpStream::connect(target).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut message = [ECHO; MESSAGE];
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        exchange(&mut stream, &mut message).await;
        count += 1;
    }
    count
}

/// Reads as fast as it goes; answers how many bytes.
async fn bulk(target: SocketAddr, time: Duration) -> u64 {
    let mut stream = TcpStream::connect(target).await.unwrap();
    stream.write_all(&[BULK]).await.unwrap();
    let mut buffer = vec![0; CHUNK];
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the bytes end");
        count += read as u64;
    }
    count
}

/// Small requests at a fixed rate, whether or not answers are late; prints the median and the 99th percentile of the
/// middle window in nanoseconds. It never sleeps: how soon a sleeping client is woken varies more than what a proxy adds.
fn paced(target: SocketAddr, time: Duration, rate: f64) {
    let interval = Duration::from_secs_f64(f64::from(SENDERS) / rate);
    let start = Instant::now() + Duration::from_millis(50);
    let mut senders: Vec<_> =
        (0..SENDERS).map(|number| Sender::new(target, start + interval * number / SENDERS)).collect();
    let count = time.div_duration_f64(WINDOW) as usize;
    let mut windows = vec![Samples::default(); count];
    let mut round = start;
    while let Some(samples) = windows.get_mut(start.elapsed().div_duration_f64(WINDOW) as usize) {
        let away = round.elapsed();
        round = Instant::now();
        if away > ROUND {
            senders.iter_mut().for_each(|sender| sender.forgive(away));
        }
        samples.extend(senders.iter_mut().filter_map(|sender| sender.step(interval)));
    }
    for part in [0.5, 0.99] {
        let mut middle = Samples::default();
        middle.extend(windows.iter().filter(|window| !window.is_empty()).map(|window| window.quantile(part)));
        print!("{} ", middle.quantile(0.5).as_nanos());
    }
    println!();
}

/// A connection of the open loop, on which a request is due at each tick of an interval.
struct Sender {
    stream: std::net::TcpStream,
    message: [u8; MESSAGE],
    /// When the next request is due.
    due: Instant,
    /// The next request was due before the last one's answer was there.
    late: bool,
    /// From when the time of the request under way counts, and how much of its answer is there.
    waiting: Option<(Instant, usize)>,
    /// The request under way does not count.
    forgiven: bool,
}

impl Sender {
    fn new(target: SocketAddr, due: Instant) -> Self {
        let stream = std::net::TcpStream::connect(target).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, message: [ECHO; MESSAGE], due, late: false, waiting: None, forgiven: false }
    }

    /// Takes note that this thread did not run for a while, which is not the proxy's fault: what was under way does not
    /// count, and what became due is due that much later.
    fn forgive(&mut self, away: Duration) {
        self.due += away;
        self.late = false;
        self.forgiven = self.waiting.is_some();
    }

    /// Sends what is due, or reads what is there; answers how long a request took that is answered now. Its time counts
    /// from when it was due, if the one before was late, and else from when it was sent.
    fn step(&mut self, interval: Duration) -> Option<Duration> {
        let now = Instant::now();
        let Some((begun, received)) = &mut self.waiting else {
            if now >= self.due {
                // One small message fits, as the last one's answer is there.
                self.stream.write_all(&self.message).unwrap();
                self.waiting = Some((if self.late { self.due } else { now }, 0));
                self.due += interval;
            }
            return None;
        };
        match self.stream.read(&mut self.message[*received..]) {
            Ok(read) => {
                assert!(read > 0, "the answers end");
                *received += read;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        if *received < MESSAGE {
            return None;
        }
        let took = begun.elapsed();
        self.waiting = None;
        self.late = Instant::now() >= self.due;
        (!std::mem::take(&mut self.forgiven)).then_some(took)
    }
}

/// A connection from one of several addresses: a single client gets a share of a proxy's connections only.
async fn connect_from(client: usize, target: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let last = u8::try_from(1 + client % IDLE_CLIENTS).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 1, last], 0))).unwrap();
    socket.connect(target).await.unwrap()
}

/// Opens connections until there are as many as each line of the input says, has one answer on each, and lets them be.
async fn idle(target: SocketAddr) {
    let mut open = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let goal: usize = line.unwrap().trim().parse().unwrap();
        while open.len() < goal {
            let mut stream = connect_from(open.len(), target).await;
            exchange(&mut stream, &mut [ECHO; MESSAGE]).await;
            open.push(stream);
        }
        println!("{goal}");
    }
}
