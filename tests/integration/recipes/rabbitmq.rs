//! RabbitMQ, whose log tells who was there before AMQP began.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use trestle_testkit::{Process, has_tools, wait_for};

use super::{Kitchen, LIMIT};

/// Not 5672, which the service of Debian's package takes on all addresses where an init has started it.
const AMQP: u16 = 5673;
/// The one on PATH is a wrapper that changes to another user, and so would not be the process that this test ends.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const STARTED: &str = "Server startup complete";
/// A client's first bytes in AMQP 0-9-1.
const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// Ports that nothing listens at, whatever the address; below those that the kernel gives to clients. Processes that start together
/// have ids that are close, and begin ten ports apart.
fn free_ports() -> [u16; 3] {
    let first = u16::try_from(std::process::id() % 1_000 * 10).unwrap();
    let mut free = (0..10_000)
        .map(|step| 20_000 + (first + step) % 10_000)
        .filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
    std::array::from_fn(|_| free.next().expect("no free port from 20000 to 29999"))
}

/// The nodes' names and ports are registered with it. It goes with the test; one that a node starts would stay.
fn epmd(kitchen: &Kitchen, port: u16) -> Process {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut server = Command::new("epmd");
    server.args(["-port", &port.to_string(), "-address", &address.ip().to_string()]);
    kitchen.start("epmd", &mut server, &[address])
}

/// Starts a node that shares nothing with a RabbitMQ of the machine; `ports` are epmd's and the node's own for others.
fn node(kitchen: &Kitchen, number: u8, ports: [u16; 2]) -> Process {
    let (name, ip) = (format!("recipe{number}"), kitchen.server(number));
    let dir = kitchen.dir.path().join(&name);
    std::fs::create_dir(&dir).unwrap();
    // It would end clients that stop after the greeting after ten seconds.
    std::fs::write(dir.join("rabbitmq.conf"), "handshake_timeout = 600000\n").unwrap();
    let mut server = Command::new(SERVER);
    server.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
    // Where the dump of one that fails goes.
    server.current_dir(&dir);
    // The script becomes the node instead of staying before it.
    server.env("RUNNING_UNDER_SYSTEMD", "1");
    server.env("ERL_EPMD_PORT", ports[0].to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
    server.env("RABBITMQ_NODENAME", format!("{name}@localhost"));
    server.env("RABBITMQ_NODE_IP_ADDRESS", ip.to_string()).env("RABBITMQ_NODE_PORT", AMQP.to_string());
    server.env("RABBITMQ_DIST_PORT", ports[1].to_string()).env("RABBITMQ_LOGS", "-");
    for (variable, file) in [
        ("HOME", ""),
        ("RABBITMQ_MNESIA_BASE", ""),
        ("RABBITMQ_LOG_BASE", ""),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        // Neither of these is there.
        ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
    ] {
        server.env(variable, dir.join(file));
    }
    let own = ip.to_string().replace('.', ",");
    let one = format!("+S 1:1 -kernel inet_dist_use_interface {{{own}}}");
    server.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", one);
    // Whoever connects to see whether it listens would be a client that its log may tell of.
    kitchen.start(&name, &mut server, &[])
}

fn started(node: &mut Process) {
    wait_for("the start of RabbitMQ", LIMIT, || {
        assert_eq!(node.status(), None, "{}", node.output());
        if node.output().contains(STARTED) { Ok(()) } else { Err(node.output()) }
    });
}

/// Connects as an AMQP client and reads Connection.Start, which names the node: answers its number.
fn greet(to: SocketAddr) -> std::io::Result<(TcpStream, u8)> {
    let mut client = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.write_all(HEADER)?;
    // A method frame on channel 0, and its length.
    let mut frame = [0; 7];
    client.read_exact(&mut frame)?;
    assert_eq!(frame[..3], [1, 0, 0], "{frame:?}");
    let length = u32::from_be_bytes(frame[3..].try_into().unwrap());
    let mut start = vec![0; usize::try_from(length).unwrap() + 1];
    client.read_exact(&mut start)?;
    // Class connection, method start; the byte at the end of a frame.
    assert_eq!((&start[..4], start.last()), (&[0, 10, 0, 10][..], Some(&0xce)), "{start:?}");
    let text = String::from_utf8_lossy(&start).into_owned();
    let number = [1, 2].into_iter().find(|number| text.contains(&format!("recipe{number}@")));
    Ok((client, number.unwrap_or_else(|| panic!("no node is named in {text:?}"))))
}

/// Whether the connection of a client that waits has ended.
fn has_ended(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    match client.peek(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_sees_no_check_and_clients_of_a_dead_node_come_to_another() {
    if !has_tools(&["rabbitmq-server", "epmd"]) {
        return;
    }
    let kitchen = Kitchen::new().await;
    let [names, first, second] = free_ports();
    let _epmd = epmd(&kitchen, names);
    let mut nodes = [node(&kitchen, 1, [names, first]), node(&kitchen, 2, [names, second])];
    nodes.iter_mut().for_each(started);

    kitchen.follow("RabbitMQ", &[(":5672", &format!(":{AMQP}"))]);
    // Nothing is at the third.
    kitchen.healthy("rabbitmq", 2);
    kitchen.checks("rabbitmq/node1", 10);
    kitchen.checks("rabbitmq/node2", 10);
    for node in &nodes {
        let log = node.output();
        let (_, since) = log.split_once(STARTED).unwrap();
        for complaint in ["AMQP connection", "[warning]", "[error]"] {
            assert!(!since.contains(complaint), "{complaint}: {since}");
        }
    }

    // What the page says that this check does not see: the kernel takes connections for a node that hangs.
    nodes[0].freeze();
    kitchen.checks("rabbitmq/node1", 5);
    nodes[0].thaw();

    let front = kitchen.front(AMQP);
    let met = || wait_for("a greeting", LIMIT, || greet(front));
    let clients = [met(), met()];
    let [(lost, dies), (kept, stays)] = &clients;
    assert_ne!(dies, stays, "the second client is where there are fewer connections");
    nodes[usize::from(*dies) - 1].kill();
    wait_for("the end of the dead node's client", LIMIT, || {
        if has_ended(lost) { Ok(()) } else { Err("it is open") }
    });
    kitchen.healthy("rabbitmq", 1);
    for _ in 0..2 {
        assert_eq!(met().1, *stays);
    }
    assert!(!has_ended(kept), "the client of the other node lost its connection");
}
