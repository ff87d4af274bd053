//! Listeners of thousands of ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Instant;

use tokio::net::TcpStream;
use trestle_dataplane::DataPlaneSettings;
use trestle_model::{Command, ListenAddress, ListenerSpec, VipAddress, VipSpec};

use crate::harness::*;
use crate::patch::ListenerPatch;

/// Kubernetes' NodePorts, below the ports that the kernel chooses from.
const FIRST: u16 = 30_000;
const LAST: u16 = 32_767;
const PORTS: usize = (LAST - FIRST) as usize + 1;

/// Sockets that a listener of one port has here.
const WORKERS: usize = 2;

fn range(ip: IpAddr, last: u16) -> Vec<ListenAddress> {
    vec![ListenAddress::parse(&format!("{ip}:{FIRST}-{last}")).unwrap()]
}

fn prepare(plane: &mut Plane, name: &str, binds: Vec<ListenAddress>) {
    let spec = ListenerSpec::new(binds, pool_name("p"));
    plane.prepare(Command::create((listener_name(name), spec)));
}

/// The listening sockets at an address, by their inodes (proc_net(5)).
fn listening(ip: IpAddr) -> BTreeSet<String> {
    let IpAddr::V4(v4) = ip else { panic!("{ip} is not IPv4") };
    let address = format!("{:08X}:", u32::from_le_bytes(v4.octets()));
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = fields.filter(|f| f.len() > 9 && f[1].starts_with(&address) && f[3] == "0A");
    listening.map(|f| f[9].to_owned()).collect()
}

#[tokio::test]
async fn each_port_of_thousands_has_one_socket_and_accepts() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let mut plane =
        Plane::with(DataPlaneSettings { workers: NonZeroUsize::new(WORKERS).unwrap(), ..settings() });
    plane.pool("p", unchecked(), &[("a", at(a.address))]).await;
    plane.pool("other", unchecked(), &[("b", at(b.address))]).await;
    let small = plane.listener("small", "p").await;
    let used = || plane.plane.descriptors().used;
    assert_eq!(used(), WORKERS);
    let ip = ip();
    prepare(&mut plane, "nodes", range(ip, LAST));
    let start = Instant::now();
    plane.publish().await;
    eprintln!("{PORTS} ports in {:?}", start.elapsed());
    let used = || plane.plane.descriptors().used;
    assert_eq!(plane.errors("nodes"), [""; 0]);
    assert_eq!(used(), WORKERS + PORTS);
    for port in (FIRST..=LAST).step_by(97).chain([LAST]) {
        assert_eq!(servers((ip, port).into(), 1).await, "a", "port {port}");
    }
    // Another pool, and whatever else is no address, leaves the sockets alone.
    let sockets = listening(ip);
    assert_eq!(sockets.len(), PORTS);
    let patch = ListenerPatch { pool: Some(pool_name("other")), ..ListenerPatch::default() };
    plane.update_listener("nodes", patch).await;
    assert_eq!(servers((ip, LAST).into(), 1).await, "b");
    assert_eq!(listening(ip), sockets);
    // Addresses that stay are not closed, also where the listener has so few now that new ones get a socket for each worker.
    let few = ListenerPatch { binds: Some(range(ip, FIRST + 9)), ..ListenerPatch::default() };
    plane.update_listener("nodes", few).await;
    let left = listening(ip);
    assert!(left.len() == 10 && left.is_subset(&sockets), "{left:?}");
    until("descriptors are given back", || plane.plane.descriptors().used == WORKERS + 10).await;
    assert!(TcpStream::connect((ip, FIRST + 10)).await.is_err());
    assert_eq!(servers((ip, FIRST + 9).into(), 1).await, "b");
    assert_eq!(servers(small, 1).await, "a");
}

#[tokio::test]
async fn where_descriptors_are_few_small_listeners_come_first_and_connections_are_accepted() {
    const LIMIT: usize = 200;
    let server = Server::start("a").await;
    let mut plane = Plane::with(DataPlaneSettings { descriptors: Some(LIMIT), ..settings() });
    plane.prepare_pool("p", unchecked(), &[("a", at(server.address))]);
    let (all, small) = (ip(), free());
    // By name it comes first.
    prepare(&mut plane, "all", range(all, LAST));
    plane.prepare_listener("small", small, "p");
    plane.publish().await;
    assert_eq!(plane.errors("small"), [""; 0]);
    // Half of them, but for an eighth that is kept for listeners with few ports.
    assert_eq!(plane.plane.descriptors().used, 88);
    let bound = FIRST + (88 - WORKERS) as u16;
    assert_eq!(
        plane.errors("all"),
        [format!(
            "{all}:{bound}-{LAST}: not listening: the 88 file descriptors that this member has for listening sockets are \
             taken; raise its limit (LimitNOFILE, ulimit -n) or name fewer ports"
        )]
    );
    for front in [small, (all, bound - 1).into()] {
        assert_eq!(servers(front, 1).await, "a");
    }
    // Of listeners with one port there is room for six more.
    for _ in 0..6 {
        let late = plane.listener(&format!("late{}", plane.state.revision), "p").await;
        assert_eq!(servers(late, 1).await, "a");
    }
    let last = free();
    plane.listener_at("last", last, "p").await;
    assert!(plane.errors("last")[0].starts_with(&format!("{last}: not listening: the 100 file descriptors")));
    plane.remove_listener("all").await;
    until("the last one is bound", || plane.errors("last").is_empty()).await;
    assert_eq!(servers(last, 1).await, "a");
}

#[tokio::test]
async fn an_address_for_which_connections_leave_no_descriptors_is_bound_as_they_end() {
    let server = Server::start("a").await;
    let mut plane = Plane::with(DataPlaneSettings { descriptors: Some(16), ..settings() });
    plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    // On no machine (RFC 5737), so that no other test has it; addresses of virtual IPs are bound all the same.
    let late = SocketAddr::from(([192, 0, 2, 200], FIRST));
    let address = VipAddress::parse("192.0.2.200/24").unwrap();
    let (name, spec) = (address.default_name().unwrap(), VipSpec::new(address));
    plane.prepare(Command::create((name, spec)));
    let mut clients = Vec::new();
    // Seven connections of two descriptors each beside the two listening sockets.
    for _ in 0..7 {
        clients.push(crate::sources::client_from(clients.len() as u8 + 1, front).await);
    }
    plane.listener_at("late", late, "p").await;
    let crowded = "not listening yet: connections have all file descriptors";
    assert!(plane.errors("late")[0].starts_with(&format!("{late}: {crowded}")), "{:?}", plane.errors("late"));
    assert_eq!(plane.plane.accepting(), Ok(()), "load is no reason to hand virtual IPs over");
    clients.pop().unwrap().finish().await;
    until("the address is bound", || plane.errors("late").is_empty()).await;
}

#[tokio::test]
async fn a_range_with_a_port_of_the_member_itself_says_which_and_has_the_others() {
    let server = Server::start("a").await;
    let ip = ip();
    // As the admin API's, at one address of several.
    let own = std::net::TcpListener::bind((ip, FIRST + 5)).unwrap();
    let own_ports = vec![own.local_addr().unwrap()];
    let mut plane = Plane::with(DataPlaneSettings { own_ports, ..settings() });
    plane.prepare_pool("p", unchecked(), &[("a", at(server.address))]);
    prepare(&mut plane, "l", range(ip, FIRST + 9));
    plane.publish().await;
    let at_it = format!("{ip}:{}: it is a port of this member itself", FIRST + 5);
    assert!(
        plane.errors("l").len() == 1 && plane.errors("l")[0].starts_with(&at_it),
        "{:?}",
        plane.errors("l")
    );
    assert_eq!(servers((ip, FIRST + 6).into(), 1).await, "a");
}

#[tokio::test]
async fn a_range_that_another_process_has_is_told_in_one_line_and_bound_when_it_is_free() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    plane.prepare_pool("p", unchecked(), &[("a", at(server.address))]);
    let ip = ip();
    let last = FIRST + 299;
    let strangers: Vec<_> =
        (FIRST..=last).map(|port| std::net::TcpListener::bind((ip, port)).unwrap()).collect();
    prepare(&mut plane, "l", range(ip, last));
    plane.publish().await;
    let said = plane.errors("l");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with(&format!("{ip}:{FIRST}-{last}: address already in use by another process;")));
    assert_eq!(plane.plane.descriptors().used, 0, "what could not be opened takes no descriptor");
    drop(strangers);
    until("all are bound", || plane.errors("l").is_empty()).await;
    assert_eq!(plane.plane.descriptors().used, 300);
    let address: SocketAddr = (ip, last).into();
    assert_eq!(servers(address, 1).await, "a");
}
