//! The clients in front of the proxies, in a process of their own. Each prints what it did as numbers on one line.

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::{ANSWER, BULK, CHUNK, ECHO, MESSAGE, REQUEST, SHORT};
use crate::figures::Samples;

/// Connections that are busy at a time.
const CLIENTS: usize = 32;
/// Connections that move bulk at a time.
const MOVERS: usize = 2;
/// Connections of the open loop.
const SENDERS: u32 = 4;

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

/// Small requests at a fixed rate, whether or not answers are late; prints the median and the 99th percentile in
/// nanoseconds.
fn paced(target: SocketAddr, time: Duration, rate: f64) {
    let interval = Duration::from_secs_f64(f64::from(SENDERS) / rate);
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| std::thread::spawn(move || send(target, time, interval, interval * number / SENDERS)))
        .collect();
    let mut samples = Samples::default();
    for sender in senders {
        samples.join(sender.join().unwrap());
    }
    println!("{} {}", samples.quantile(0.5).as_nanos(), samples.quantile(0.99).as_nanos());
}

/// A request at each tick of `interval`. Its time counts from when it was due, if the one before was late, and else from
/// when it was sent: that this thread woke up late is not the proxy's fault.
fn send(target: SocketAddr, time: Duration, interval: Duration, offset: Duration) -> Samples {
    let mut stream = std::net::TcpStream::connect(target).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut message = [ECHO; MESSAGE];
    let mut samples = Samples::default();
    let start = Instant::now() + Duration::from_millis(50) + offset;
    let mut due = start;
    while due - start < time {
        let now = Instant::now();
        let late = now > due;
        std::thread::sleep(due.saturating_duration_since(now));
        let begun = if late { due } else { Instant::now() };
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut message).unwrap();
        samples.add(begun.elapsed());
        due += interval;
    }
    samples
}

/// Opens connections until there are as many as each line of the input says, has one answer on each, and lets them be.
async fn idle(target: SocketAddr) {
    let mut open = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let goal: usize = line.unwrap().trim().parse().unwrap();
        while open.len() < goal {
            let mut stream = TcpStream::connect(target).await.unwrap();
            exchange(&mut stream, &mut [ECHO; MESSAGE]).await;
            open.push(stream);
        }
        println!("{goal}");
    }
}
