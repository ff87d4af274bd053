//! What a client sees of the balancing: shares, spares, retries, half-closes, resets, drains.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use trestle_api::v1::{
    AdminState, Algorithm, Backend, CreateBackendRequest, DeleteBackendRequest, Pool, Verdict,
};
use trestle_testkit::{Api, Cluster, Origin, fetch_http, skip};

use crate::trestled;

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);

/// One member with a pool `web` and a listener on it; one member balances as three do.
async fn one(pool: Pool) -> (Cluster, Api, SocketAddr) {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let api = cluster.api(0);
    api.create_pool_with("web", pool).await.unwrap();
    api.create_listener("web", format!("0.0.0.0:{PORT}"), "web").await.unwrap();
    cluster.agreed().await;
    let target = (cluster.members[0].ip, PORT).into();
    (cluster, api, target)
}

fn unchecked(algorithm: Algorithm) -> Pool {
    use trestle_api::v1::{HealthCheck, NoCheck, health_check::Kind};
    let health_check = Some(HealthCheck { kind: Some(Kind::None(NoCheck {})), ..HealthCheck::default() });
    Pool { algorithm: algorithm.into(), health_check, ..Pool::default() }
}

async fn add(api: &Api, name: &str, backend: Backend) {
    let request = CreateBackendRequest {
        parent: "pools/web".to_owned(),
        backend_id: name.to_owned(),
        backend: Some(backend),
        ..CreateBackendRequest::default()
    };
    api.pools().create_backend(request).await.unwrap();
}

fn connect(target: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(target).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the connection ended with a reset.
fn was_reset(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    matches!(stream.read_to_end(&mut rest), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_give_shares_and_backups_wait() {
    let (mut cluster, api, target) = one(unchecked(Algorithm::RoundRobin)).await;
    let origins =
        ["light", "heavy", "none", "spare"].map(|name| Origin::start((cluster.subnet.ip(11), 0), name));
    let backend = |origin: &Origin, weight| Backend {
        address: origin.address().to_string(),
        weight: Some(weight),
        ..Backend::default()
    };
    add(&api, "light", backend(&origins[0], 1)).await;
    add(&api, "heavy", backend(&origins[1], 3)).await;
    add(&api, "none", backend(&origins[2], 0)).await;
    add(&api, "spare", Backend { backup: true, ..backend(&origins[3], 1) }).await;
    cluster.agreed().await;
    let mut answers: Vec<String> = (0..40).map(|_| fetch_http(target).unwrap()).collect();
    answers.sort();
    assert_eq!(answers, [vec!["heavy"; 30], vec!["light"; 10]].concat());

    for name in ["light", "heavy"] {
        api.set_state(&format!("pools/web/backends/{name}"), AdminState::Disabled).await.unwrap();
    }
    cluster.agreed().await;
    assert_eq!(fetch_http(target), Ok("spare".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_connections_goes_where_fewest_are_open() {
    let (mut cluster, api, target) = one(unchecked(Algorithm::LeastConnections)).await;
    let origins = ["a", "b"].map(|name| Origin::start((cluster.subnet.ip(11), 0), name));
    for (name, origin) in ["a", "b"].iter().zip(&origins) {
        api.create_backend("web", name, origin.address()).await.unwrap();
    }
    cluster.agreed().await;
    let open = |target| {
        let mut stream = connect(target);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = [0; 256];
        let count = stream.read(&mut answer).unwrap();
        let name = String::from_utf8_lossy(&answer[..count]).trim().chars().last().unwrap();
        (name, stream)
    };
    let held: Vec<_> = (0..6).map(|_| open(target)).collect();
    assert_eq!(held.iter().filter(|(name, _)| *name == 'a').count(), 3);
    // With a's connections gone, new ones go there until they are even again.
    let held: Vec<_> = held.into_iter().filter(|(name, _)| *name == 'b').collect();
    trestle_testkit::wait_until("the end of a's connections", PATIENCE, async || {
        let open = api.status().await.unwrap().members[0].active_connections;
        if open == 3 { Ok(()) } else { Err(open) }
    })
    .await;
    let more: Vec<_> = (0..3).map(|_| open(target)).collect();
    assert!(
        more.iter().all(|(name, _)| *name == 'a'),
        "{:?}",
        more.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_backend_costs_a_client_nothing() {
    // No checks: only the failed connect itself can save the client.
    let (mut cluster, api, target) = one(unchecked(Algorithm::RoundRobin)).await;
    let (mut dead, alive) = (
        Origin::start((cluster.subnet.ip(11), 0), "dead"),
        Origin::start((cluster.subnet.ip(12), 0), "alive"),
    );
    api.create_backend("web", "dead", dead.address()).await.unwrap();
    api.create_backend("web", "alive", alive.address()).await.unwrap();
    cluster.agreed().await;
    dead.stop();
    for _ in 0..20 {
        assert_eq!(fetch_http(target), Ok("alive".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_usable_backend_clients_are_reset_at_once() {
    let interval = Duration::from_millis(100).try_into().ok();
    let check = trestle_api::v1::HealthCheck { interval, fast_interval: interval, ..Default::default() };
    let (mut cluster, api, target) = one(Pool { health_check: Some(check), ..Pool::default() }).await;
    assert!(was_reset(connect(target)), "an empty pool");
    let mut origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    api.create_backend("web", "a", origin.address()).await.unwrap();
    cluster.agreed().await;
    api.verdict("web", |_| true, Verdict::Healthy).await;
    assert_eq!(fetch_http(target), Ok("origin".to_owned()));
    origin.stop();
    api.verdict("web", |_| true, Verdict::Unhealthy).await;
    assert!(was_reset(connect(target)), "no healthy backend");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closes_resets_and_bulk_pass_through() {
    let (mut cluster, api, target) = one(unchecked(Algorithm::RoundRobin)).await;
    let backend = TcpListener::bind((cluster.subnet.ip(11), 0)).unwrap();
    api.create_backend("web", "a", backend.local_addr().unwrap()).await.unwrap();
    cluster.agreed().await;

    // The client ends its half; the backend then answers with all that it got, 32 MiB.
    let data: Vec<u8> =
        (0..32_u32 << 20).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let client = connect(target);
    let (mut server, _) = backend.accept().unwrap();
    let echo = std::thread::spawn(move || {
        let mut all = Vec::new();
        server.read_to_end(&mut all).unwrap();
        server.write_all(&all).unwrap();
    });
    let (mut reading, sent) = (client.try_clone().unwrap(), data.clone());
    let writing = std::thread::spawn(move || {
        (&client).write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    reading.read_to_end(&mut back).unwrap();
    assert!(back == data, "{} bytes back, {} sent, or not the same", back.len(), data.len());
    writing.join().unwrap();
    echo.join().unwrap();

    // The backend resets: it closes with unread data in its buffer.
    let mut client = connect(target);
    let (server, _) = backend.accept().unwrap();
    client.write_all(b"unread").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.peek(&mut [0; 6]).unwrap();
    drop(server);
    assert!(was_reset(client), "the backend's reset reaches the client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_spares_open_connections_disabling_and_removing_do_not() {
    let (mut cluster, api, target) = one(unchecked(Algorithm::RoundRobin)).await;
    let ask = |stream: &mut TcpStream| -> std::io::Result<usize> {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        stream.read(&mut [0; 256])
    };
    for (round, last) in ["disable", "remove"].into_iter().enumerate() {
        let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
        let (name, full) = (format!("b{round}"), format!("pools/web/backends/b{round}"));
        api.create_backend("web", &name, origin.address()).await.unwrap();
        cluster.agreed().await;
        let mut open = connect(target);
        assert!(ask(&mut open).unwrap() > 0);

        api.set_state(&full, AdminState::Draining).await.unwrap();
        cluster.agreed().await;
        assert!(was_reset(connect(target)), "no new connections while it drains");
        assert!(ask(&mut open).unwrap() > 0, "an open connection goes on");

        if last == "disable" {
            api.set_state(&full, AdminState::Disabled).await.unwrap();
        } else {
            let request = DeleteBackendRequest { name: full, ..DeleteBackendRequest::default() };
            api.pools().delete_backend(request).await.unwrap();
        }
        let ended = open.read(&mut [0; 16]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{last} closes open connections: {ended:?}");
        let kind = ended.err().map(|error| error.kind());
        assert!(!matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{last} left it open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_every_kind_leave_nothing_behind() {
    let (mut cluster, api, target) = one(unchecked(Algorithm::RoundRobin)).await;
    let backend = TcpListener::bind((cluster.subnet.ip(11), 0)).unwrap();
    api.create_backend("web", "a", backend.local_addr().unwrap()).await.unwrap();
    cluster.agreed().await;
    // Each round one that says nothing, one that is cut off by the client, and one by the backend, with bytes under way.
    let round = || {
        let clients = [connect(target), connect(target), connect(target)];
        let servers = [(); 3].map(|()| backend.accept().unwrap().0);
        for (mut client, mut server) in clients.iter().zip(&servers).skip(1) {
            client.write_all(&[1; 100_000]).unwrap();
            server.read_exact(&mut [0; 10]).unwrap();
            server.write_all(&[2; 1_000]).unwrap();
        }
        let [quiet, cut, other] = clients;
        drop((cut, quiet));
        drop(servers);
        drop(other);
    };
    let settled = async |cluster: &mut Cluster, limit: usize| {
        trestle_testkit::wait_until("descriptors to be given back", PATIENCE, async || {
            let active = api.status().await.unwrap().members[0].active_connections;
            let open = cluster.members[0].descriptors();
            if active == 0 && open <= limit {
                Ok(open)
            } else {
                Err(format!("{active} connections, {open} open"))
            }
        })
        .await
    };
    // The first rounds fill what is kept for later, such as pipes.
    (0..20).for_each(|_| round());
    let before = settled(&mut cluster, usize::MAX).await;
    (0..200).for_each(|_| round());
    settled(&mut cluster, before + 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_is_balanced_like_ipv4() {
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        skip("there is no IPv6 on the loopback interface");
        return;
    };
    // Port 0 gave it, and nobody else asks for it in the moment between.
    let bind = probe.local_addr().unwrap();
    drop(probe);
    let mut cluster = Cluster::start(trestled(), 1).await;
    let origin = Origin::start("[::1]:0".parse::<SocketAddr>().unwrap(), "six");
    let api = cluster.api(0);
    api.create_pool("six", None).await.unwrap();
    api.create_backend("six", "a", origin.address()).await.unwrap();
    api.create_listener("six", bind, "six").await.unwrap();
    cluster.agreed().await;
    assert_eq!(fetch_http(bind), Ok("six".to_owned()));
}
