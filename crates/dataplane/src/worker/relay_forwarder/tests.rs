#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::accept::bind;
use crate::connection::relay_state::tests::state;

const DEADLINE: Duration = Duration::from_secs(20);

/// How many of these connections the server has ended by now; they must not block.
fn ended(streams: &mut [TcpStream]) -> usize {
    streams
        .iter_mut()
        .filter(|stream| {
            let read = (&**stream).read(&mut [0]);
            read.is_ok() || read.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
        })
        .count()
}

/// Each worker has a queue of its own for each address, so that the kernel goes on handing out connections to one while
/// another does nothing.
#[test]
fn a_worker_that_stalls_stops_nobody_elses_accepts() {
    let listening: SocketAddr =
        std::net::TcpListener::bind((Ipv4Addr::new(127, 8, 255, 1), 0)).unwrap().local_addr().unwrap();
    let sockets = bind::open(listening, 2, true, false).unwrap();
    let state = state();
    let (mut commands, mut threads) = (Vec::new(), Vec::new());
    let (go_on, stalled) = channel::<()>();
    let mut stall = Some(stalled);
    for socket in sockets {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(WorkerCommand::Listen(listening, socket)).unwrap();
        commands.push(sender);
        let (connections, stall) = (Arc::new(ConnectionTable::new(state.clone())), stall.take());
        threads.push(std::thread::spawn(move || {
            let (runtime, source) = reactor::runtime().unwrap();
            source.install();
            runtime.block_on(async {
                if let Some(stall) = stall {
                    // Not a task that waits: the thread does.
                    tokio::spawn(async move { stall.recv().unwrap_or_default() });
                }
                crate::worker::run(connections, receiver).await;
            });
        }));
    }
    // No listener is in the table, so whoever is accepted is reset.
    let mut clients: Vec<TcpStream> = (0..64)
        .filter_map(|_| TcpStream::connect_timeout(&listening, DEADLINE).ok())
        .inspect(|stream| stream.set_nonblocking(true).unwrap())
        .collect();
    let start = Instant::now();
    let lost = 64 - clients.len();
    while lost + ended(&mut clients) < 8 {
        assert!(start.elapsed() < DEADLINE, "nobody accepts");
        std::thread::yield_now();
    }
    assert!(lost + ended(&mut clients) < 64, "the stall is none");
    let (mut watch, mut now) = (WorkerWatch::new(&commands), start);
    loop {
        // The clock of the watch is ahead of the real one, which the other worker needs to answer.
        now += Duration::from_millis(100);
        match &watch.look(now)[..] {
            [fault] if fault.starts_with("worker 0 has not run for ") => break,
            faults => assert!(start.elapsed() < DEADLINE, "{faults:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(go_on);
    while !watch.look(now).is_empty() {
        assert!(start.elapsed() < DEADLINE, "it runs, and is not seen to");
        std::thread::yield_now();
    }
    while lost + ended(&mut clients) < 64 {
        assert!(start.elapsed() < DEADLINE, "who waited at the stalled worker is lost");
        std::thread::yield_now();
    }
    drop(commands);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
