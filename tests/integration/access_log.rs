//! The access log: what each end of a connection looks like in it, and that the log's own troubles stop nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trestle_api::v1::{BootstrapClusterRequest, CloseConnectionsRequest};
use trestle_testkit::{Api, Member, Origin, Subnet, fetch_http, get, wait_for, wait_until};

use crate::trestled;

const LIMIT: Duration = Duration::from_secs(20);

/// What documents promise: the keys of the JSON form and the columns of the text form, in this order.
const COLUMNS: [&str; 15] = [
    "time",
    "client",
    "listener",
    "local",
    "pool",
    "backend",
    "backend_address",
    "server_name",
    "bytes_in",
    "bytes_out",
    "connect_ms",
    "duration_ms",
    "retries",
    "reason",
    "member",
];

/// A member with this log, a pool of each name, and a listener for each on the ports from 8080.
async fn logging(
    subnet: &Subnet,
    format: &str,
    file: &Path,
    pools: &[(&str, Option<SocketAddr>)],
) -> (Member, Api) {
    let more = format!("access_log = \"{format}\"\naccess_log_file = \"{}\"\n", file.display());
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), &more);
    member.start();
    let api = member.api();
    api.cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
    for (port, (pool, backend)) in (8080..).zip(pools) {
        api.create_pool(pool, None).await.unwrap();
        if let Some(address) = backend {
            api.create_backend(pool, "a", address).await.unwrap();
        }
        api.create_listener(pool, SocketAddr::from((member.ip, port)), pool).await.unwrap();
    }
    wait_until("everything in force", LIMIT, async || {
        let status = api.status().await.map_err(|status| status.to_string())?.members.remove(0);
        let all =
            status.listeners_bound as usize == pools.len() && status.in_force_revision == status.revision;
        if all { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    (member, api)
}

fn lines(file: &Path, count: usize) -> Vec<String> {
    wait_for(&format!("{count} lines"), LIMIT, || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count { Ok(lines) } else { Err(text) }
    })
}

/// A line of either form as words by column; "-" for nothing.
fn columns(format: &str, line: &str) -> Vec<String> {
    if format == "text" {
        return line.split(' ').map(str::to_owned).collect();
    }
    let object: Value = serde_json::from_str(line).unwrap();
    assert_eq!(object.as_object().unwrap().len(), COLUMNS.len(), "{line}");
    let places: Vec<_> = COLUMNS.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{line}");
    let word = |key: &&str| match &object[*key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    COLUMNS.iter().map(word).collect()
}

/// One connection to each listener, ended in its way. Answers the client's address of each.
async fn five_ends(member: &Member, api: &Api) -> [String; 5] {
    let front = |port| SocketAddr::from((member.ip, port));
    let connect = |port| {
        let stream = TcpStream::connect(front(port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    let from = |stream: &TcpStream| stream.local_addr().unwrap().to_string();
    let ask = |stream: &mut TcpStream, version: &str| {
        stream.write_all(format!("GET / HTTP/{version}\r\n\r\n").as_bytes()).unwrap();
    };

    let mut client_closes = connect(8080);
    ask(&mut client_closes, "1.1");
    assert!(client_closes.read(&mut [0; 256]).unwrap() > 0);
    client_closes.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client_closes.read(&mut [0]).unwrap(), 0);

    // The server of an HTTP/1.0 request finishes first.
    let mut backend_closes = connect(8080);
    ask(&mut backend_closes, "1.0");
    backend_closes.read_to_end(&mut Vec::new()).unwrap();
    backend_closes.shutdown(Shutdown::Write).unwrap();

    let mut no_backend = connect(8081);
    assert!(no_backend.read(&mut [0]).is_err());
    let mut connect_fails = connect(8082);
    assert!(connect_fails.read(&mut [0]).is_err());

    let mut operator_closes = connect(8080);
    ask(&mut operator_closes, "1.1");
    assert!(operator_closes.read(&mut [0; 256]).unwrap() > 0);
    let request = CloseConnectionsRequest { all: true, ..CloseConnectionsRequest::default() };
    api.connections().close_connections(request).await.unwrap();
    assert!(operator_closes.read(&mut [0]).is_err());
    [&client_closes, &backend_closes, &no_backend, &connect_fails, &operator_closes].map(from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_has_its_line_in_both_forms() {
    for format in ["text", "json"] {
        let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
        let file = dir.path().join("access.log");
        let origin = Origin::start((subnet.ip(11), 0), "origin");
        let nobody = TcpListener::bind((subnet.ip(12), 0)).unwrap().local_addr().unwrap();
        let pools = [("web", Some(origin.address())), ("empty", None), ("dead", Some(nobody))];
        let (mut member, api) = logging(&subnet, format, &file, &pools).await;
        let clients = five_ends(&member, &api).await;
        let reasons =
            ["client_closed", "backend_closed", "no_backend", "connect_failed", "closed_by_operator"];
        let all: Vec<_> = lines(&file, 5).iter().map(|line| columns(format, line)).collect();
        for (client, reason) in clients.iter().zip(reasons) {
            // Not by the address alone: the kernel may give two clients of different listeners the same port.
            let found = all.iter().find(|line| line[1] == *client && line[13] == reason);
            let line = found.unwrap_or_else(|| panic!("no line of {client} says {reason}: {all:?}"));
            assert_eq!((line.len(), line[14].as_str()), (15, "m1"), "{line:?}");
            let (pool, port) = match reason {
                "no_backend" => ("empty", 8081),
                "connect_failed" => ("dead", 8082),
                _ => ("web", 8080),
            };
            assert_eq!((&*line[2], line[3].clone()), (pool, SocketAddr::from((member.ip, port)).to_string()));
            assert!(line[0].ends_with('Z') && line[11].parse::<f64>().is_ok(), "{line:?}");
            let reached = line[10].parse::<f64>().is_ok() && line[8] == "18" && line[9] != "0";
            match pool {
                "web" => {
                    assert!(reached && line[4..7] == ["web", "a", &origin.address().to_string()], "{line:?}")
                }
                _ => assert_eq!((&*line[5], &*line[6], &*line[8], &*line[10]), ("-", "-", "0", "-")),
            }
        }
        assert!(member.stop().success());
        assert_eq!(lines(&file, 5).len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_opened_anew_on_hangup() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let (file, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let origin = Origin::start((subnet.ip(11), 0), "origin");
    let (mut member, _api) = logging(&subnet, "text", &file, &[("web", Some(origin.address()))]).await;
    let front = SocketAddr::from((member.ip, 8080));
    fetch_http(front).unwrap();
    lines(&file, 1);
    std::fs::rename(&file, &moved).unwrap();
    fetch_http(front).unwrap();
    lines(&moved, 2);
    member.process().hang_up();
    wait_for("a new file", LIMIT, || if file.exists() { Ok(()) } else { Err("there is none") });
    fetch_http(front).unwrap();
    assert_eq!(lines(&file, 1).len(), 1);
    assert_eq!(lines(&moved, 2).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_stops_nothing() {
    let (subnet, dir) = (Subnet::claim(), tempfile::tempdir().unwrap());
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let origin = Origin::start((subnet.ip(11), 0), "origin");
    let (mut member, _api) = logging(&subnet, "json", &pipe, &[("web", Some(origin.address()))]).await;
    let front = SocketAddr::from((member.ip, 8080));
    for _ in 0..50 {
        assert_eq!(fetch_http(front), Ok("origin".to_owned()));
    }
    // What waited is written once somebody reads; then the reader stops reading, and the pipe fills up.
    let mut reader = BufReader::new(std::fs::File::open(&pipe).unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("\"listener\":\"web\""), "{line}");
    for _ in 0..500 {
        assert_eq!(fetch_http(front), Ok("origin".to_owned()));
    }
    assert_eq!(get(member.http(), "/livez").unwrap().status, 200);
    assert!(get(member.http(), "/metrics").unwrap().body.contains("\ntrestle_access_log_dropped_total 0\n"));
    assert!(member.stop().success(), "the end does not wait for the pipe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_output_is_a_log_too() {
    let subnet = Subnet::claim();
    let origin = Origin::start((subnet.ip(11), 0), "origin");
    let (member, _api) = logging(&subnet, "json", Path::new("-"), &[("web", Some(origin.address()))]).await;
    fetch_http((member.ip, 8080).into()).unwrap();
    wait_for("the line", LIMIT, || {
        let output = member.output();
        if output.contains("{\"time\":\"") { Ok(()) } else { Err(output) }
    });
}
