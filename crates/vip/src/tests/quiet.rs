//! Before a planned release: new connections are kept out while those that are there go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use trestle_testkit::{has_tools, wait_for};

use super::lab::{Host, LIMIT, Lab, expect_event, lease, vip};
use crate::nft::{FenceTimeout, Nft};
use crate::{KernelEvent, LinuxKernel};

const LONG: Duration = Duration::from_secs(60);
/// How long a connection that is not to come about is waited for: less than the second after which a client tries again
/// (RFC 6298 §2), so that each attempt is one SYN.
const PATIENCE: Duration = Duration::from_millis(300);
const V4: &str = "10.77.0.50/24";
const V6: &str = "fd77::50/64";

/// A server on all addresses of `host` that sends back what it gets; answers its port.
fn echo(host: &Host) -> u16 {
    let listener = host.run(|| TcpListener::bind("[::]:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    // Ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                // Its client may have gone.
                let _ = std::io::copy(&mut stream, &mut back);
            });
        }
    });
    port
}

fn connect(lab: &Lab, to: SocketAddr) -> std::io::Result<TcpStream> {
    lab.client.run(|| TcpStream::connect_timeout(&to, PATIENCE))
}

fn wait_for_connection(lab: &Lab, to: SocketAddr) -> TcpStream {
    wait_for("a connection", LIMIT, || connect(lab, to).map_err(|error| format!("{to}: {error}")))
}

/// One attempt that meets neither an acceptance nor a refusal.
fn expect_no_answer(lab: &Lab, to: SocketAddr) {
    let error = connect(lab, to).map(|_| ()).expect_err("a new connection got through");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}");
}

/// Data goes there and comes back.
fn expect_echo(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // More than fits into one segment.
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(20_000).collect();
    stream.write_all(&sent).unwrap();
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).unwrap();
    assert!(received == sent);
}

/// A member that holds both addresses, the sockets' addresses of a server on them, and an open connection to each.
fn serving(lab: &Lab, kernel: &LinuxKernel) -> Vec<(SocketAddr, TcpStream)> {
    let port = echo(&lab.members[0]);
    let lease = lease(LONG);
    [V4, V6]
        .map(vip)
        .iter()
        .map(|vip| {
            kernel.claim(vip, &lease).unwrap();
            let to = SocketAddr::new(vip.address, port);
            (to, wait_for_connection(lab, to))
        })
        .collect()
}

#[test]
fn new_connections_are_kept_out_and_open_ones_go_on() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    let serving = serving(&lab, &kernel);
    kernel.quiesce(LONG).unwrap();
    // A shorter time than what is left ends nothing.
    kernel.quiesce(PATIENCE / 2).unwrap();
    for (to, open) in &serving {
        expect_no_answer(&lab, *to);
        expect_echo(open);
        expect_no_answer(&lab, *to);
        let own = if to.is_ipv4() { "10.77.0.1" } else { "fd77::1" };
        wait_for_connection(&lab, SocketAddr::new(own.parse().unwrap(), to.port()));
    }
}

#[test]
fn quiet_ends_by_itself_after_its_time() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    let serving = serving(&lab, &kernel);
    for (to, _) in &serving {
        kernel.quiesce(Duration::from_secs(1)).unwrap();
        expect_echo(&wait_for_connection(&lab, *to));
    }
    // A second call prolongs what the first began.
    kernel.quiesce(PATIENCE / 2).unwrap();
    kernel.quiesce(LONG).unwrap();
    for (to, _) in &serving {
        expect_no_answer(&lab, *to);
        expect_no_answer(&lab, *to);
    }
}

#[test]
fn a_claim_ends_it() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, _events) = lab.members[0].open("member");
    let serving = serving(&lab, &kernel);
    kernel.quiesce(LONG).unwrap();
    let again = lease(LONG);
    for (at, text) in [V4, V6].into_iter().enumerate() {
        kernel.release(serving[at].0.ip()).unwrap();
        kernel.claim(&vip(text), &again).unwrap();
        expect_echo(&wait_for_connection(&lab, serving[at].0));
    }
}

#[test]
fn it_outlasts_the_process_but_not_the_next_start() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let address = vip(V4).address;
    member.ip(&format!("address add {V4} dev eth0"));
    let to = SocketAddr::new(address, echo(member));
    let mut nft = member.run(|| Nft::open("trestle_member").unwrap());
    nft.install(&[]).unwrap();
    wait_for_connection(&lab, to);
    nft.quiesce(&[FenceTimeout { address, until: Instant::now() + LONG }]).unwrap();
    // Without its socket, as after a kill.
    drop(nft);
    expect_no_answer(&lab, to);
    let (_kernel, _events) = member.open("member");
    wait_for_connection(&lab, to);
}

#[test]
fn a_flushed_ruleset_comes_back_with_it() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let port = echo(&lab.members[0]);
    let (vip, lease) = (vip(V4), lease(LONG));
    kernel.claim(&vip, &lease).unwrap();
    let to = SocketAddr::new(vip.address, port);
    let open = wait_for_connection(&lab, to);
    kernel.quiesce(LONG).unwrap();
    lab.members[0].run(|| Nft::open("trestle_member").unwrap()).uninstall().unwrap();
    lease.extend(Instant::now() + LONG);
    expect_event(&events, "the rebuilding", |event| matches!(event, KernelEvent::FenceRebuilt(_)));
    expect_no_answer(&lab, to);
    expect_echo(&open);
}

#[test]
fn tables_of_an_earlier_version_are_replaced() {
    let Some(lab) = Lab::build(1) else { return };
    if !has_tools(&["nft"]) {
        return;
    }
    let member = &lab.members[0];
    // Sets and chains as they were before there was any of this, and one of its names for something else.
    let earlier = "table inet trestle_member {
        set guard { type mark; flags timeout; }
        set vips4 { type ipv4_addr; elements = { 10.77.0.50 }; }
        set lease4 { type ipv4_addr; flags timeout; }
        set quiet6 { type mark; }
        chain in {
            type filter hook prerouting priority raw;
            ip daddr @vips4 fib daddr type local ip daddr != @lease4 drop
        }
    }";
    let made = member.run(|| Command::new("nft").arg(earlier).output().unwrap());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (kernel, _events) = member.open("member");
    let serving = serving(&lab, &kernel);
    kernel.quiesce(LONG).unwrap();
    for (to, open) in &serving {
        expect_no_answer(&lab, *to);
        expect_echo(open);
    }
}

#[test]
fn what_a_machine_forwards_to_the_next_holder_passes() {
    let Some(lab) = Lab::build(2) else { return };
    let (router, holder) = (&lab.members[0], &lab.members[1]);
    router.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    holder.ip(&format!("address add {V4} dev eth0"));
    lab.client.ip("-4 route add 10.77.0.50 via 10.77.0.1");
    let address: IpAddr = vip(V4).address;
    let mut nft = router.run(|| Nft::open("trestle_member").unwrap());
    nft.install(&[]).unwrap();
    nft.quiesce(&[FenceTimeout { address, until: Instant::now() + LONG }]).unwrap();
    expect_echo(&wait_for_connection(&lab, SocketAddr::new(address, echo(holder))));
}
