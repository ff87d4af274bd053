//! Bounds of connections, and clients that wait for a place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use trestle_dataplane::CloseReason;
use trestle_model::{AdminState, BackendSpec, Command, PoolSpec};

use crate::harness::*;
use crate::patch::BackendPatch;

fn waiting(plane: &Plane) -> usize {
    plane.plane.table().pools[&pool_name("p")].waiting()
}

async fn until_waiting(plane: &Plane, count: usize) {
    until(&format!("{count} clients wait"), || waiting(plane) == count).await;
}

fn up_to(max_connections: u32, address: SocketAddr) -> BackendSpec {
    BackendSpec { max_connections, ..at(address) }
}

fn patient() -> PoolSpec {
    PoolSpec { queue_timeout: DEADLINE * 2, ..unchecked() }
}

/// A client that is to wait, connected but not served yet.
async fn wait(plane: &Plane, front: SocketAddr, place: usize) -> Client {
    let stream = soon("a connection", TcpStream::connect(front)).await.unwrap();
    until_waiting(plane, place).await;
    Client { stream, server: String::new() }
}

/// Reads the name of the server that a client that has waited is led to.
async fn served(client: &mut Client) -> String {
    let mut name = [0];
    soon("a name", client.stream.read_exact(&mut name)).await.unwrap();
    char::from(name[0]).to_string()
}

/// Whether the client has heard nothing so far.
fn unserved(client: &Client) -> bool {
    let mut name = [0];
    client.stream.try_read(&mut name).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_full_backend_is_passed_over() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", up_to(1, a.address)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut held = Vec::new();
    let mut word = String::new();
    for _ in 0..6 {
        let client = Client::connect(front).await.unwrap();
        word.push_str(&client.server);
        held.push(client);
    }
    assert_eq!((count(&word, 'a'), count(&word, 'b')), (1, 5), "{word}");
    assert_eq!(plane.backend_counts("p", "a").active, 1);
}

#[tokio::test]
async fn clients_wait_in_the_order_in_which_they_came() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(3, a.address)), ("b", up_to(3, b.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut open = std::collections::VecDeque::new();
    for _ in 0..6 {
        open.push_back(Client::connect(front).await.unwrap());
    }
    let mut queue = std::collections::VecDeque::new();
    for place in 1..=20 {
        queue.push_back(wait(&plane, front, place).await);
    }
    while let Some(mut next) = queue.pop_front() {
        assert!(unserved(&next) && queue.iter().all(unserved));
        let gone = open.pop_front().unwrap();
        let free = gone.server.clone();
        gone.finish().await;
        next.server = served(&mut next).await;
        assert_eq!(next.server, free, "there is no other place");
        assert!(next.works().await);
        open.push_back(next);
    }
    assert_eq!(waiting(&plane), 0);
    assert_eq!([a, b].map(|s| s.open.load(Ordering::SeqCst)), [3, 3]);
}

/// Says its name, and that the connection is over only after it is no longer counted.
async fn counting(most: Arc<AtomicUsize>) -> SocketAddr {
    let socket = TcpListener::bind((ip(), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let open = open.clone();
            tokio::spawn(async move {
                let mut end = [0];
                stream.write_all(b"x").await.unwrap();
                assert_eq!(stream.read(&mut end).await.unwrap(), 0);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_clients_at_once_none_is_lost_and_no_bound_is_passed() {
    const CLIENTS: u64 = 600;
    let most = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let a = counting(most[0].clone()).await;
    let b = counting(most[1].clone()).await;
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(3, a)), ("b", up_to(3, b))]).await;
    let front = plane.listener("l", "p").await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(async move { Client::connect(front).await.unwrap().finish().await }))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(most.map(|m| m.load(Ordering::SeqCst)), [3, 3]);
    assert_eq!(waiting(&plane), 0);
    let led = |name| plane.backend_counts("p", name).connections;
    assert_eq!(led("a") + led("b"), CLIENTS);
    until("every place is free", || ["a", "b"].iter().all(|b| plane.backend_counts("p", b).active == 0))
        .await;
}

#[tokio::test]
async fn over_the_length_of_the_queue_clients_are_reset_at_once() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", PoolSpec { queue_length: 2, ..patient() }, &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    let mut first = wait(&plane, front, 1).await;
    let _second = wait(&plane, front, 2).await;
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::QueueFull, 1).await;
    assert_eq!(waiting(&plane), 2);
    held.finish().await;
    assert_eq!(served(&mut first).await, "a");
}

#[tokio::test]
async fn without_a_queue_nobody_waits() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", PoolSpec { queue_length: 0, ..patient() }, &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::QueueFull, 1).await;
    held.finish().await;
    until("the place is free", || plane.backend_counts("p", "a").active == 0).await;
    assert_eq!(servers(front, 1).await, "a");
}

#[tokio::test]
async fn who_waits_too_long_is_reset() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    let spec = PoolSpec { queue_timeout: Duration::from_millis(50), ..unchecked() };
    plane.pool("p", spec, &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut held = Client::connect(front).await.unwrap();
    assert!(turned_away(front).await);
    plane.until_closed("l", CloseReason::QueueTimeout, 1).await;
    assert_eq!(waiting(&plane), 0);
    assert!(held.works().await);
}

#[tokio::test]
async fn who_resets_while_waiting_leaves_the_queue_and_who_only_finishes_stays() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    let gone = wait(&plane, front, 1).await;
    let mut next = wait(&plane, front, 2).await;
    next.stream.write_all(b"all I have to say").await.unwrap();
    next.stream.shutdown().await.unwrap();
    gone.stream.set_zero_linger().unwrap();
    drop(gone);
    plane.until_closed("l", CloseReason::ClientReset, 1).await;
    until_waiting(&plane, 1).await;
    held.finish().await;
    let mut heard = String::new();
    soon("the answer", next.stream.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "aall I have to say");
}

#[tokio::test]
async fn places_that_a_change_makes_go_to_those_who_wait() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(1, a.address)), ("b", at(b.address))]).await;
    plane.admin("p", "b", AdminState::Draining { timeout: None }).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    let mut clients = Vec::new();
    for place in 1..=4 {
        clients.push(wait(&plane, front, place).await);
    }
    let raised = BackendPatch { max_connections: Some(2), ..BackendPatch::default() };
    plane.update_backend("p", "a", raised).await;
    assert_eq!(served(&mut clients[0]).await, "a");
    until_waiting(&plane, 3).await;
    let (c, name) = (Server::start("c").await, backend_name("c"));
    plane.apply(Command::create((pool_name("p"), name, up_to(1, c.address)))).await;
    assert_eq!(served(&mut clients[1]).await, "c");
    until_waiting(&plane, 2).await;
    plane.admin("p", "b", AdminState::Enabled).await;
    assert_eq!(served(&mut clients[2]).await, "b");
    assert_eq!(served(&mut clients[3]).await, "b");
    assert_eq!(waiting(&plane), 0);
    held.finish().await;
}

#[tokio::test]
async fn who_waits_for_nothing_any_more_is_reset() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let mut held = Client::connect(front).await.unwrap();
    let mut next = wait(&plane, front, 1).await;
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    assert_eq!(next.end().await, Some(std::io::ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::NoBackend, 1).await;
    assert!(held.works().await);
}

#[tokio::test]
async fn after_a_failed_connect_a_client_waits_for_the_others_only() {
    let b = Server::start("b").await;
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(1, free())), ("b", up_to(1, b.address))]).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    assert_eq!(held.server, "b");
    let mut clients = Vec::new();
    for place in 1..=3 {
        clients.push(wait(&plane, front, place).await);
    }
    let failed = || plane.backend_counts("p", "a").connect_failures;
    until("all have failed at a", || failed() >= 3).await;
    assert_eq!(waiting(&plane), 3);
    let mut last = held;
    for mut next in clients {
        last.finish().await;
        assert_eq!(served(&mut next).await, "b");
        last = next;
    }
    assert!(failed() <= 4, "a retry tries each backend once");
}

#[tokio::test]
async fn a_member_that_stops_resets_those_who_wait() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let _held = Client::connect(front).await.unwrap();
    let mut next = wait(&plane, front, 1).await;
    assert_eq!(soon("the end", plane.plane.finish(Duration::from_millis(20))).await, 2);
    assert_eq!(next.end().await, Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(plane.listener_counts("l").closed(CloseReason::MemberShutdown), 2);
}

#[tokio::test]
async fn busy_primaries_are_waited_for_though_a_backup_is_free() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane = Plane::start();
    let backup = BackendSpec { backup: true, ..at(b.address) };
    plane.pool("p", patient(), &[("a", up_to(1, a.address)), ("b", backup)]).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    let mut next = wait(&plane, front, 1).await;
    held.finish().await;
    assert_eq!(served(&mut next).await, "a");
    let mut last = wait(&plane, front, 1).await;
    plane.admin("p", "a", AdminState::Draining { timeout: None }).await;
    assert_eq!(served(&mut last).await, "b");
}

/// Connects, and goes without having said anything: by a proper end, or by a reset.
async fn gone(front: SocketAddr, reset: bool) -> TcpStream {
    let stream = soon("a connection", TcpStream::connect(front)).await.unwrap();
    if reset {
        stream.set_zero_linger().unwrap();
    }
    stream
}

#[tokio::test]
async fn who_closes_while_waiting_and_has_said_nothing_is_not_led_to_a_server() {
    let a = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("p", patient(), &[("a", up_to(1, a.address))]).await;
    let front = plane.listener("l", "p").await;
    let held = Client::connect(front).await.unwrap();
    let mut leaving = Vec::new();
    for number in 0..40 {
        leaving.push(gone(front, number % 2 == 0).await);
    }
    until_waiting(&plane, 40).await;
    let mut asking = wait(&plane, front, 41).await;
    asking.stream.write_all(b"?").await.unwrap();
    asking.stream.shutdown().await.unwrap();
    drop(leaving);
    until_waiting(&plane, 1).await;
    plane.until_closed("l", CloseReason::ClientClosed, 20).await;
    plane.until_closed("l", CloseReason::ClientReset, 20).await;
    held.finish().await;
    let mut heard = String::new();
    soon("the answer", asking.stream.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "a?");
    assert_eq!(plane.backend_counts("p", "a").connections, 2);
}

/// An address that neither accepts nor refuses: its queue is full.
async fn silent() -> (std::net::TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip(), 0).into()).unwrap();
    let listener = socket.listen(0).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let moment = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(moment, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}

#[tokio::test]
async fn who_goes_while_a_backend_does_not_answer_is_forgotten_at_once() {
    let (full, _waiting) = silent().await;
    let mut plane = Plane::start();
    let spec = PoolSpec { connect_timeout: DEADLINE * 2, ..unchecked() };
    plane.pool("p", spec, &[("a", up_to(2, full.local_addr().unwrap()))]).await;
    let front = plane.listener("l", "p").await;
    let active = || plane.backend_counts("p", "a").active;
    let (closed, reset) = (gone(front, false).await, gone(front, true).await);
    until("both are on their way", || active() == 2).await;
    drop((closed, reset));
    until("their places are free", || active() == 0).await;
    plane.until_closed("l", CloseReason::ClientClosed, 1).await;
    plane.until_closed("l", CloseReason::ClientReset, 1).await;
    // One that has asked something waits for the answer.
    let mut asking = gone(front, false).await;
    asking.write_all(b"?").await.unwrap();
    asking.shutdown().await.unwrap();
    until("it is on its way", || active() == 1).await;
    let next = gone(front, false).await;
    until("another is as well", || active() == 2).await;
    drop(next);
    until("that one has gone", || active() == 1).await;
    assert_eq!(plane.listener_counts("l").active, 1);
}

#[tokio::test]
async fn who_goes_before_a_retry_is_not_led_to_another_backend() {
    let (full, _waiting) = silent().await;
    let b = Server::start("b").await;
    let mut plane = Plane::start();
    let spec = PoolSpec {
        connect_timeout: Duration::from_secs(3),
        algorithm: trestle_model::Algorithm::First,
        ..unchecked()
    };
    let silent = full.local_addr().unwrap();
    plane.pool("p", spec, &[("a", at(silent)), ("b", at(b.address))]).await;
    let front = plane.listener("l", "p").await;
    let leaving = gone(front, false).await;
    let mut staying = gone(front, false).await;
    until("both are on their way", || plane.backend_counts("p", "a").active == 2).await;
    drop(leaving);
    assert_eq!(soon("the name", staying.read_u8()).await.unwrap(), b'b');
    assert_eq!(plane.backend_counts("p", "b").connections, 1);
}
