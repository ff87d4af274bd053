#![allow(clippy::unwrap_used)]
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::calls::CallClass;
use super::*;

const DEADLINES: PortDeadlines = PortDeadlines {
    preface: (24, Duration::from_secs(5)),
    head: Some(Duration::from_secs(5)),
    idle: Duration::from_secs(60),
    answer: Duration::from_secs(30),
    write: Duration::from_secs(10),
};

fn later(now: Instant, ms: u64) -> Instant {
    now + Duration::from_millis(ms)
}

#[tokio::test]
async fn connections_are_read_in_turns_and_raft_at_once() {
    let (mut client, server) = tokio::io::duplex(4096);
    let connection = Arc::new(PortConnection::new(1, ConnectionOrigin::Unix(None), Instant::now()));
    let mut watched = MonitoredIo::new(server, connection.clone(), Arc::default());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    client.write_all(&[b'x'; 4000]).await.unwrap();
    let mut read = || {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut watched).poll_read(&mut cx, &mut buffer);
        polled.map(|result| result.map(|()| buffer.filled().len()).unwrap())
    };
    assert_eq!([read(), read(), read()], [Poll::Ready(TURN), Poll::Pending, Poll::Ready(4 * TURN)]);
    connection.make_lane();
    assert_eq!(read(), Poll::Ready(4000 - 5 * TURN));
}

#[tokio::test]
async fn a_connection_of_unfinished_requests_is_read_slowly_while_the_port_is_crowded() {
    let (mut client, server) = tokio::io::duplex(8 * TURN);
    let (calls, now) = (Arc::<CallLimiter>::default(), Instant::now());
    let connection = Arc::new(PortConnection::new(1, ConnectionOrigin::Unix(None), now));
    let permits: Vec<_> = (0..128).map(|_| calls.begin(&connection, CallClass::Unary, now)).collect();
    let mut watched = MonitoredIo::new(server, connection.clone(), calls);
    client.write_all(&[b'x'; 8 * TURN]).await.unwrap();
    let mut bytes = [0; 8 * TURN];
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(watched.read(&mut bytes).await.unwrap(), TURN);
    }
    let slow = begun.elapsed();
    assert!(slow >= 3 * SLOW_TURN, "{slow:?}");
    watched.slow_turns = SLOW_TURNS_MAX;
    assert!(!connection.abort.is_cancelled());
    assert_eq!(watched.read(&mut bytes).await.unwrap(), TURN);
    assert!(connection.abort.is_cancelled());
    drop(permits);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut poll =
        |bytes: &mut [u8]| Pin::new(&mut watched).poll_read(&mut cx, &mut ReadBuf::new(bytes)).is_ready();
    assert_eq!([poll(&mut bytes), poll(&mut bytes), poll(&mut bytes)], [false, true, false]);
    assert!(watched.pause.is_none());
}

#[test]
fn who_says_nothing_is_given_up_and_who_speaks_is_not() {
    let now = Instant::now();
    let silent = PortConnection::new(1, ConnectionOrigin::Unix(None), now);
    assert_eq!(silent.check(&DEADLINES, later(now, 4900)), None);
    assert_eq!(silent.check(&DEADLINES, later(now, 5000)), Some("said nothing that this port understands"));
    let speaks = PortConnection::new(2, ConnectionOrigin::Unix(None), now);
    speaks.record_read(24);
    let call = speaks.begin(Phase::Receiving, later(now, 1000));
    assert_eq!(speaks.check(&DEADLINES, later(now, 6000)), None);
    speaks.advance(call, Phase::Sending, later(now, 1000));
    assert!(speaks.check(&DEADLINES, later(now, 31_000)).is_some_and(|why| why.contains("fetch")));
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let now = Instant::now();
    let slow = PortConnection::new(1, ConnectionOrigin::Unix(None), now);
    slow.record_read(100);
    assert!(slow.check(&DEADLINES, later(now, 6000)).is_some_and(|why| why.contains("head")));
}

#[test]
fn an_idle_one_is_asked_and_then_cut() {
    let now = Instant::now();
    let idle = PortConnection::new(1, ConnectionOrigin::Unix(None), now);
    idle.record_read(100);
    let call = idle.begin(Phase::Running, now);
    idle.end(call, now);
    assert_eq!(idle.check(&DEADLINES, later(now, 60_000)), None);
    assert!(idle.leave.is_cancelled() && !idle.abort.is_cancelled());
    assert_eq!(idle.check(&DEADLINES, later(now, 70_000)), Some("is idle"));
    assert!(idle.abort.is_cancelled());
}

#[test]
fn only_calls_that_work_keep_a_place() {
    let now = Instant::now();
    let connection = PortConnection::new(1, ConnectionOrigin::Unix(None), now);
    assert_eq!(connection.occupancy(now), Occupancy::Idle(now));
    let call = connection.begin(Phase::Receiving, now);
    assert_eq!(connection.occupancy(later(now, 500)), Occupancy::Busy);
    assert_eq!(connection.occupancy(later(now, 1000)), Occupancy::Idle(now));
    connection.advance(call, Phase::Running, now);
    assert_eq!(connection.occupancy(later(now, 100_000)), Occupancy::Busy);
    connection.advance(call, Phase::Sending, now);
    assert_eq!(connection.occupancy(later(now, 2000)), Occupancy::Idle(now));
    connection.make_lane();
    assert_eq!(connection.occupancy(later(now, 2000)), Occupancy::Busy);
}
