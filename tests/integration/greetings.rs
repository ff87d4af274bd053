//! Who a client is and where it wants to go: PROXY headers between HAProxy, Trestle and nginx, and TLS led by name.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::{Authority, Cluster, Nginx, Process, has_tools, wait_for};

use crate::{finish, trestle, trestled};

const LIMIT: Duration = Duration::from_secs(20);

/// Starts a program and returns when it listens.
fn start(what: &str, command: &mut Command, dir: &TempDir, listening: &[SocketAddr]) -> Process {
    let process = Process::spawn(what, command, &dir.path().join("output.log"));
    for address in listening {
        let connect = || TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop);
        wait_for(&format!("{what} on {address}"), LIMIT, connect);
    }
    process
}

/// An nginx that takes PROXY headers and answers with the client's address that they name.
fn telling_nginx(address: SocketAddr) -> (Process, TempDir) {
    let dir = TempDir::new().unwrap();
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
         fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  \
         server {{ listen {address} proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr\"; }} }}\n}}\n"
    );
    std::fs::write(dir.path().join("nginx.conf"), configuration).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    (start("nginx", &mut nginx, &dir, &[address]), dir)
}

/// A HAProxy with a port for each version of the header, in front of the same server, which it reaches from `source`.
fn haproxy(ports: [SocketAddr; 2], source: Ipv4Addr, server: SocketAddr) -> (Process, TempDir) {
    let dir = TempDir::new().unwrap();
    let mut text =
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 10s\n  timeout server 10s\n".to_owned();
    for (address, words) in ports.iter().zip(["send-proxy", "send-proxy-v2"]) {
        text.push_str(&format!(
            "listen {words}\n  bind {address}\n  server s {server} source {source} {words}\n"
        ));
    }
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(&file);
    (start("haproxy", &mut haproxy, &dir, &ports), dir)
}

fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10"]).args(arguments);
    finish(&mut curl).expect_success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_address_goes_through_haproxy_and_trestle_to_nginx() {
    if !has_tools(&["haproxy", "nginx", "curl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 1).await;
    let endpoints = cluster.endpoints();
    let ip = |host| cluster.subnet.ip(host);
    let other = ip(201);
    let (client, proxy, web) = (ip(200), ip(30), SocketAddr::from((ip(11), 8080)));
    let front = SocketAddr::from((cluster.members[0].ip, 8000));
    let before = [SocketAddr::from((ip(31), 8000)), SocketAddr::from((ip(32), 8000))];
    let _nginx = telling_nginx(web);
    for version in ["v1", "v2"] {
        let often = ["--health", "http", "--health-interval", "200ms", "--health-fast-interval", "100ms"];
        let pool = ["pool", "create", version, "--send-proxy", version];
        trestle(&endpoints, &[&pool[..], &often[..]].concat()).expect_success();
        let backend = format!("{version}/nginx");
        trestle(&endpoints, &["backend", "add", &backend, &web.to_string()]).expect_success();
        // Checks send a header, too, without which this nginx answers nothing.
        wait_for("the check succeeds", LIMIT, || {
            let seen = trestle(&endpoints, &["backend", "list", version]).stdout;
            if seen.contains("healthy on 1/1") { Ok(()) } else { Err(seen) }
        });
    }
    let bind = front.to_string();
    let listener = ["listener", "create", "front", "--bind", &bind, "--pool", "v1"];
    let trusted = ["--accept-proxy-from", &proxy.to_string()];
    trestle(&endpoints, &[&listener[..], &trusted[..]].concat()).expect_success();
    cluster.agreed().await;
    let _haproxy = haproxy(before, proxy, front);
    for version in ["v1", "v2"] {
        trestle(&endpoints, &["listener", "update", "front", "--pool", version]).expect_success();
        cluster.agreed().await;
        for address in before.iter().chain([&front]) {
            let seen = curl(&["--interface", &client.to_string(), &format!("http://{address}/")]);
            assert_eq!(seen, client.to_string(), "{version} through {address}");
        }
    }
    // Whom the header names is who counts.
    let deny = ["listener", "update", "front", "--deny", &client.to_string()];
    trestle(&endpoints, &deny).expect_success();
    cluster.agreed().await;
    for address in before.iter().chain([&front]) {
        let ask = |interface: Ipv4Addr| {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--max-time", "10", "--interface", &interface.to_string()]);
            finish(curl.arg(format!("http://{address}/")))
        };
        assert_ne!(ask(client).code, Some(0), "{address}");
        assert_eq!(ask(other).expect_success(), other.to_string());
    }
}

/// An etcd that is reached over TLS.
fn etcd(ip: Ipv4Addr, certificate: &trestle_testkit::Certificate) -> (Process, TempDir) {
    let dir = TempDir::new().unwrap();
    let (clients, peers) = (format!("https://{ip}:2379"), format!("http://{ip}:2380"));
    let mut etcd = Command::new("etcd");
    etcd.args(["--name", "e", "--data-dir"]).arg(dir.path().join("data"));
    etcd.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    etcd.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    etcd.args(["--initial-cluster", &format!("e={peers}")]);
    etcd.arg("--cert-file").arg(certificate.cert()).arg("--key-file").arg(certificate.key());
    (start("etcd", &mut etcd, &dir, &[(ip, 2379).into()]), dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_and_curl_are_led_by_name_through_one_port() {
    if !has_tools(&["etcd", "etcdctl", "nginx", "curl", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 1).await;
    let endpoints = cluster.endpoints();
    let ip = |host| cluster.subnet.ip(host);
    let authority = Authority::generate("ours");
    let certificate = authority.sign("DNS:localhost,DNS:www.example,DNS:a.apps.example,DNS:other.example", 2);
    let ca = authority.cert();
    let ca = ca.to_str().unwrap();
    let _etcd = etcd(ip(11), &certificate);
    let _webs = [("www", 12), ("apps", 13), ("rest", 14)]
        .map(|(name, host)| Nginx::start(name, ip(host), &[8443], &certificate));
    let backends = [("etcd", 11, 2379), ("www", 12, 8443), ("apps", 13, 8443), ("rest", 14, 8443)];
    for (pool, host, port) in backends {
        trestle(&endpoints, &["pool", "create", pool, "--health", "tls"]).expect_success();
        let address = format!("{}:{port}", ip(host));
        trestle(&endpoints, &["backend", "add", &format!("{pool}/a"), &address]).expect_success();
    }
    // localhost is the one name that resolves everywhere, and etcdctl takes no other name than the one that it dials.
    let front = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (bind, port) = (front.to_string(), front.port());
    let routes =
        ["--route", "localhost=etcd", "--route", "www.example=www", "--route", "*.apps.example=apps"];
    let listener = ["listener", "create", "tls", "--bind", &bind, "--pool", "rest"];
    trestle(&endpoints, &[&listener[..], &routes[..]].concat()).expect_success();
    cluster.agreed().await;

    let etcdctl = |arguments: &[&str]| {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &format!("https://localhost:{port}")]);
        finish(etcdctl.args(["--cacert", ca, "--command-timeout", "10s"]).args(arguments)).expect_success()
    };
    let large = "x".repeat(100_000);
    etcdctl(&["put", "key", &large]);
    assert_eq!(etcdctl(&["get", "key", "--print-value-only"]).trim_end(), large);
    for (name, server) in [
        ("www.example", "www"),
        ("a.apps.example", "apps"),
        ("other.example", "rest"),
        ("www.example", "www"),
    ] {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/");
        let seen = curl(&["--cacert", ca, "--resolve", &resolve, &url]);
        assert_eq!(seen.trim_end(), server, "{name}");
    }
    // Without TLS, to the listener's own pool, which answers in its way.
    assert!(curl(&[&format!("http://127.0.0.1:{port}/")]).contains("400"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_first_shares_a_listener_with_tls_routes() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let endpoints = cluster.endpoints();
    let run = |args: &[&str]| trestle(&endpoints, args);
    let server = TcpListener::bind((cluster.subnet.ip(11), 0)).unwrap();
    let address = server.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            // A client that went away has heard enough.
            let _ = stream.write_all(b"220 ready\r\n").and_then(|()| stream.read_exact(&mut [0; 6]));
            let _ = stream.write_all(b"221 bye\r\n");
        }
    });
    for pool in ["smtp", "tls"] {
        run(&["pool", "create", pool, "--health", "none"]).expect_success();
    }
    run(&["backend", "add", "smtp/a", &address]).expect_success();
    let front = SocketAddr::from((cluster.members[0].ip, 2525));
    let bind = front.to_string();
    let create = ["listener", "create", "mail", "--bind", &bind, "--pool", "smtp", "--wait"];
    let route = ["--route", "mail.example.com=tls", "--first-bytes-timeout"];
    let refused = run(&[&create[..], &route, &["1ms"]].concat());
    assert!(
        refused.stderr.contains("first_bytes_timeout \"1ms\": must be 10ms to 60s"),
        "{}",
        refused.stderr
    );
    run(&[&create[..], &route, &["200ms"]].concat()).expect_success();

    let mut client = TcpStream::connect_timeout(&front, LIMIT).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    run(&["listener", "update", "mail", "--on-silence", "pool", "--wait"]).expect_success();
    let mut client = TcpStream::connect_timeout(&front, LIMIT).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let mut said = String::new();
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"QUIT\r\n").unwrap();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "221 bye\r\n");

    let shown = run(&["listener", "get", "mail"]).expect_success();
    assert!(shown.contains("FIRST-BYTES-TIMEOUT          200ms\n"), "{shown}");
    assert!(shown.contains("ON-SILENCE                   pool\n"), "{shown}");
    let listed = run(&["listener", "list"]).expect_success();
    assert!(listed.contains("1 route, first-bytes-timeout 200ms, on-silence pool"), "{listed}");
    assert!(cluster.members[0].stop().success());
}
