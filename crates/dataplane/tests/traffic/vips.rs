//! Listeners of virtual IPs are there before the address is; a drained member accepts nowhere else; and what the data plane
//! says of its fitness.

use std::net::{SocketAddr, TcpStream};
use std::process::Command as Process;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use socket2::{Domain, Socket, Type};
use trestle_dataplane::Verdict;
use trestle_model::{AdminState, Bind, Command, ListenerSpec, VipAddress, VipName, VipSpec};

use crate::harness::*;

/// Addresses of documentation (RFC 5737, RFC 3849), on no machine.
const V4: &str = "192.0.2.10";
const V6: &str = "2001:db8::10";

fn vip_name(name: &str) -> VipName {
    VipName::parse(name).unwrap()
}

impl Plane {
    async fn vip(&mut self, name: &str, address: &str) {
        let spec = VipSpec::new(VipAddress::parse(address).unwrap());
        self.apply(Command::create((vip_name(name), spec))).await;
    }

    fn faults(&self) -> Vec<String> {
        let faults = self.plane.accepting().err().unwrap_or_default();
        faults.into_iter().map(|fault| fault.why).collect()
    }

    fn bound(&self, listener: &str) -> Vec<SocketAddr> {
        self.plane.table().listeners[&listener_name(listener)].bound().collect()
    }
}

/// A plane that looks again only when it is told of something.
fn patient() -> Plane {
    Plane::with(trestle_dataplane::DataPlaneSettings {
        drift_interval: Duration::from_secs(3600),
        ..settings()
    })
}

fn at_port(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub(crate) fn ip_command(arguments: &str) {
    let output = Process::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `body` in a network namespace of its own that has nothing but a loopback interface.
#[expect(unsafe_code, reason = "rustix leaves it to the caller that nothing else relies on the namespace")]
pub(crate) fn alone(body: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: a network namespace concerns sockets that this thread opens later, and threads that it starts.
            match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                Err(Errno::PERM) => {
                    let all = std::env::var("TRESTLE_TEST_ALL").as_deref() == Ok("1");
                    assert!(!all, "TRESTLE_TEST_ALL is set, but network namespaces take root");
                    eprintln!("skipped: network namespaces take root");
                    return;
                }
                made => made.unwrap(),
            }
            ip_command("link set lo up");
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
        });
    });
}

async fn comes_and_goes(plane: &mut Plane, ip: &str, add: &str) {
    let front = at_port(ip, 7000);
    plane.listener_at("l", front, "a").await;
    assert!(plane.errors("l")[0].contains("it is not on this machine"), "{:?}", plane.errors("l"));
    plane.vip("v", ip).await;
    assert_eq!(plane.errors("l"), [""; 0], "not bound when its virtual IP came");
    assert_eq!(plane.bound("l"), [front]);
    for _ in 0..3 {
        assert!(TcpStream::connect(front).is_err(), "{front} is here");
        ip_command(&format!("addr add {add} dev lo"));
        // An IPv6 address gets its route a moment after `ip` has returned; a closed port would be refused, not unreachable.
        let unreachable =
            || TcpStream::connect(front).is_err_and(|e| e.kind() == std::io::ErrorKind::NetworkUnreachable);
        until("the kernel has a route to the address", || !unreachable()).await;
        // More than one worker gets some of them.
        assert_eq!(servers(front, 16).await, "a".repeat(16));
        let mut open = Client::connect(front).await.unwrap();
        assert!(open.works().await);
        ip_command(&format!("addr del {add} dev lo"));
        assert_eq!(plane.bound("l"), [front]);
    }
    plane.remove_listener("l").await;
    plane.apply(Command::delete(vip_name("v"))).await;
}

#[test]
fn a_virtual_ip_accepts_as_soon_as_it_is_there() {
    alone(async {
        let server = Server::start("a").await;
        let mut plane = patient();
        plane.pool("a", unchecked(), &[("a", at(server.address))]).await;
        comes_and_goes(&mut plane, V4, &format!("{V4}/32")).await;
        comes_and_goes(&mut plane, V6, &format!("{V6}/128 nodad")).await;
        // Others are still told of an address that is a mistake.
        plane.vip("v", V4).await;
        plane.listener_at("typo", at_port("192.0.2.11", 7000), "a").await;
        assert!(plane.errors("typo")[0].contains("it is not on this machine"));
        plane.remove_listener("typo").await;
    });
}

#[tokio::test]
async fn a_drained_member_accepts_only_at_virtual_ips() {
    let server = Server::start("a").await;
    let mut plane = patient();
    plane.pool("a", unchecked(), &[("a", at(server.address))]).await;
    plane.vip("v", V4).await;
    let front = plane.listener("own", "a").await;
    let reserved = at_port(V4, 7000);
    plane.listener_at("virtual", reserved, "a").await;
    let mut open = Client::connect(front).await.unwrap();

    plane.plane.drain(true, None);
    until("its own address is closed", || plane.bound("own").is_empty()).await;
    assert!(plane.errors("own")[0].ends_with("this member is drained"), "{:?}", plane.errors("own"));
    assert!(TcpStream::connect(front).is_err());
    assert_eq!(plane.bound("virtual"), [reserved]);
    assert_eq!(plane.faults(), [""; 0]);
    assert!(open.works().await);
    let also = plane.listener("also", "a").await;
    assert!(plane.bound("also").is_empty(), "{also} is bound on a drained member");

    // Virtual IPs are reached through wildcards too.
    let any = at_port("0.0.0.0", free().port());
    plane.listener_at("any", any, "a").await;
    let fault = format!("listener any: {any}: not listening: this member is drained");
    assert_eq!(plane.faults(), [fault]);

    plane.plane.drain(false, None);
    until("all are open again", || {
        ["own", "also", "any"].iter().all(|listener| plane.errors(listener).is_empty())
    })
    .await;
    assert_eq!(servers(front, 2).await, "aa");
    assert_eq!(plane.faults(), [""; 0]);
    assert!(open.works().await);
    open.finish().await;
}

#[tokio::test]
async fn an_address_of_a_virtual_ip_that_cannot_be_bound_makes_unfit() {
    let server = Server::start("a").await;
    let mut plane = Plane::start();
    plane.pool("a", unchecked(), &[("a", at(server.address))]).await;
    plane.vip("v", V4).await;
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stranger.set_freebind_v4(true).unwrap();
    let taken = at_port(V4, 7001);
    stranger.bind(&taken.into()).unwrap();
    stranger.listen(1).unwrap();
    plane.listener_at("elsewhere", at_port("192.0.2.99", 7001), "a").await;
    assert_eq!(plane.faults(), [""; 0], "no virtual IP has that address");
    plane.listener_at("l", taken, "a").await;
    let [fault] = &plane.faults()[..] else { panic!("one fault, not {:?}", plane.faults()) };
    assert!(fault.starts_with("listener l: 192.0.2.10:7001: address already in use"), "{fault}");
    drop(stranger);
    until("it is fit after all", || plane.faults().is_empty()).await;
    plane.plane.finish(Duration::ZERO).await;
    assert_eq!(plane.faults()[0], "the data plane has stopped");
}

#[tokio::test]
async fn a_backend_at_a_virtual_ip_of_a_listener_leads_back() {
    let mut plane = Plane::start();
    plane.vip("v", V4).await;
    let backend = |port| at(at_port(V4, port));
    plane.pool("a", unchecked(), &[("same", backend(7002)), ("other", backend(7003))]).await;
    plane.listener_at("l", at_port(V4, 7002), "a").await;
    let leads_back = |plane: &Plane, name| {
        let table = plane.plane.table();
        table.barred(table.pools[&pool_name("a")].backend(&backend_name(name)).unwrap()).is_some()
    };
    assert!(leads_back(&plane, "same") && !leads_back(&plane, "other"));
}

#[tokio::test]
async fn a_pool_is_dead_when_all_its_backends_that_are_in_use_are_unhealthy() {
    let server = Server::start("a").await;
    let (mut plane, gone) = (Plane::start(), free());
    for pool in ["dead", "unused", "mixed", "off"] {
        let second = if pool == "mixed" { server.address } else { gone };
        plane.pool(pool, checked(), &[("a", at(gone)), ("b", at(second))]).await;
    }
    plane.pool("unknown", unchecked(), &[("a", at(gone))]).await;
    plane.pool("empty", checked(), &[]).await;
    for pool in ["dead", "mixed", "off", "unknown", "empty"] {
        plane.listener(pool, pool).await;
    }
    plane.admin("off", "a", AdminState::Disabled).await;
    plane.admin("off", "b", AdminState::Disabled).await;
    for (pool, backend) in [("dead", "a"), ("dead", "b"), ("unused", "a"), ("unused", "b"), ("mixed", "a")] {
        plane.until_verdict(pool, backend, Verdict::Unhealthy).await;
    }
    plane.until_verdict("mixed", "b", Verdict::Healthy).await;
    assert_eq!(plane.plane.dead_pools(), [pool_name("dead")]);
    plane.admin("mixed", "b", AdminState::Draining { timeout: None }).await;
    assert_eq!(plane.plane.dead_pools(), [pool_name("dead"), pool_name("mixed")]);
    // A pool that only a route leads to counts as well.
    let mut spec = ListenerSpec::new(vec![Bind::parse(&free().to_string()).unwrap()], pool_name("empty"));
    spec.routes = vec![trestle_model::Route {
        server_names: Vec::new(),
        alpn: vec!["h2".into()],
        pool: pool_name("unused"),
    }];
    plane.apply(Command::create((listener_name("routes"), spec))).await;
    assert!(plane.plane.dead_pools().contains(&pool_name("unused")));
    let _server = Server::start_at("b", gone).await;
    until("they are back", || plane.plane.dead_pools().is_empty()).await;
}
