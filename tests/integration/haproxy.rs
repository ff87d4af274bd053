//! HAProxy and Trestle check the same servers in the same ways and must come to the same verdicts, whatever happens.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_api::v1::{GetPoolHealthRequest, Verdict};
use trestle_testkit::{
    Api, Authority, Certificate, Cluster, Nginx, Process, has_tools, wait_for, wait_until,
};

use crate::{trestle, trestled};

/// The ways to check: the pool's name, Trestle's options, HAProxy's lines for the section, and words for its servers.
/// `CA` stands for the authority's file.
const WAYS: [(&str, &[&str], &str, &str); 6] = [
    ("tcp", &["tcp"], "", ""),
    ("tls", &["tls"], "", "check-ssl verify none"),
    ("verified", &["tls", "--health-ca", "CA"], "", "check-ssl verify required ca-file CA"),
    (
        "https",
        &["https", "--health-path", "/healthz", "--health-expect", "200"],
        "option httpchk GET /healthz\n  http-check expect status 200",
        "check-ssl verify none",
    ),
    (
        "exchange",
        &[
            "exchange",
            "--health-tls",
            "--health-send",
            r"GET /healthz HTTP/1.0\r\n\r\n",
            "--health-expect",
            " 200 ",
        ],
        "option tcp-check\n  tcp-check send \"GET /healthz HTTP/1.0\\r\\n\\r\\n\"\n  tcp-check expect string \" 200 \"",
        "check-ssl verify none",
    ),
    (
        "etcd",
        &["https", "--health-path", "/health", "--health-body", "\"true\""],
        "option httpchk GET /health\n  http-check expect string '\"true\"'",
        "check-ssl verify none",
    ),
];

/// The ways that web servers are checked in, and those for etcd.
const WEB: &[&str] = &["tcp", "tls", "verified", "https", "exchange"];
const ETCD: &[&str] = &["tcp", "tls", "verified", "etcd"];

/// Who is up, by pool and server.
type Verdicts = BTreeMap<(&'static str, &'static str), bool>;
/// What one of them says, by pool and server: the verdict, and why.
type Said<V> = BTreeMap<(String, String), (V, String)>;

/// A running HAProxy with one section for each way.
struct Haproxy {
    /// Goes before its files.
    _process: Process,
    socket: PathBuf,
    _dir: TempDir,
}

impl Haproxy {
    fn start(servers: &[Watched], ca: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("stats");
        let mut text = format!(
            "global\n  stats socket {} level admin\ndefaults\n  mode tcp\n  timeout connect 1s\n  timeout client 10s\n  \
             timeout server 10s\n  timeout check 4s\n  \
             default-server inter 200ms fastinter 100ms downinter 200ms fall 3 rise 2\n",
            socket.display()
        );
        for (pool, _, section, words) in WAYS {
            text.push_str(&format!("backend {pool}\n  {section}\n"));
            for (name, address, _) in servers.iter().filter(|(_, _, ways)| ways.contains(&pool)) {
                text.push_str(&format!("  server {name} {address} check {}\n", words.replace("CA", ca)));
            }
        }
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-db", "-f"]).arg(&file);
        let process = Process::spawn("haproxy", &mut haproxy, &dir.path().join("output.log"));
        Self { _process: process, socket, _dir: dir }
    }

    /// Its verdicts with their last reasons, as `show stat` tells them: "UP" and "DOWN", and "UP 1/3" or "DOWN 1/2" while
    /// it is in doubt.
    fn verdicts(&self) -> Result<Said<String>, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.write_all(b"show stat\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| format!("haproxy's stats: {error}"))?;
        let mut lines = answer.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let place = |name| head.iter().position(|field| *field == name).ok_or(format!("no {name}: {head:?}"));
        let (status, check) = (place("status")?, place("check_status")?);
        let rows = lines.map(|line| line.split(',').collect::<Vec<_>>()).filter(|row| row.len() > check);
        let servers = rows.filter(|row| row[1] != "BACKEND" && row[1] != "FRONTEND");
        let verdict = |row: Vec<&str>| {
            ((row[0].to_owned(), row[1].to_owned()), (row[status].to_owned(), row[check].to_owned()))
        };
        Ok(servers.map(verdict).collect())
    }
}

/// A server with a certificate, started anew whenever it gets another one.
struct Server {
    address: SocketAddr,
    process: Option<Process>,
    dir: TempDir,
    command: fn(SocketAddr, &Certificate, &Path) -> Command,
}

/// `openssl s_server`, which answers every request with a page of its own.
fn openssl(address: SocketAddr, certificate: &Certificate, _: &Path) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_server", "-www", "-accept", &address.to_string()]);
    openssl.arg("-cert").arg(certificate.cert()).arg("-key").arg(certificate.key());
    openssl
}

/// A cluster of one etcd.
fn etcd(address: SocketAddr, certificate: &Certificate, dir: &Path) -> Command {
    let (clients, peers) = (format!("https://{address}"), format!("http://{}:2380", address.ip()));
    let mut etcd = Command::new("etcd");
    etcd.args(["--name", "e", "--log-level", "error", "--initial-cluster", &format!("e={peers}")]);
    etcd.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    etcd.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    etcd.arg("--data-dir").arg(dir.join("data"));
    etcd.arg("--cert-file").arg(certificate.cert()).arg("--key-file").arg(certificate.key());
    etcd
}

impl Server {
    fn start(
        address: SocketAddr,
        certificate: &Certificate,
        command: fn(SocketAddr, &Certificate, &Path) -> Command,
    ) -> Self {
        let mut server = Self { address, process: None, dir: TempDir::new().unwrap(), command };
        server.restart_with(certificate);
        server
    }

    fn restart_with(&mut self, certificate: &Certificate) {
        self.kill();
        let mut command = (self.command)(self.address, certificate, self.dir.path());
        let name = command.get_program().to_string_lossy().into_owned();
        self.process = Some(Process::spawn(name.clone(), &mut command, &self.dir.path().join("output.log")));
        wait_for(&name, Duration::from_secs(20), || {
            TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).map(drop)
        });
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }
}

/// Trestle's verdicts with their reasons.
async fn seen_by_trestle(api: &Api) -> Result<Said<Verdict>, String> {
    let mut seen = BTreeMap::new();
    for (pool, ..) in WAYS {
        let request = GetPoolHealthRequest { name: format!("pools/{pool}"), ..Default::default() };
        let health = api.pools().get_pool_health(request).await.map_err(|status| status.to_string())?;
        for backend in health.into_inner().backends {
            let name = backend.name.rsplit('/').next().unwrap_or_default().to_owned();
            for view in &backend.views {
                seen.insert((pool.to_owned(), name.clone()), (view.verdict(), view.reason.clone()));
            }
        }
    }
    Ok(seen)
}

/// Both views of the same servers.
struct Both {
    api: Api,
    haproxy: Haproxy,
    expected: Verdicts,
    failures: usize,
}

impl Both {
    /// Waits until both have the expected verdicts, which are those from before but for these pools of one server.
    async fn agree(&mut self, what: &str, server: &'static str, pools: &[&'static str], up: bool) {
        self.failures += usize::from(!up);
        for pool in pools {
            self.expected.insert((*pool, server), up);
        }
        wait_until(what, Duration::from_secs(60), async || {
            let trestle = seen_by_trestle(&self.api).await?;
            let haproxy = self.haproxy.verdicts()?;
            let wrong: Vec<String> = self
                .expected
                .iter()
                .filter_map(|((pool, server), up)| {
                    let key = ((*pool).to_owned(), (*server).to_owned());
                    let (ours, theirs) = (trestle.get(&key), haproxy.get(&key));
                    let wanted = if *up { (Verdict::Healthy, "UP") } else { (Verdict::Unhealthy, "DOWN") };
                    let same = ours.is_some_and(|(verdict, _)| *verdict == wanted.0)
                        && theirs.is_some_and(|(status, _)| status == wanted.1);
                    (!same).then(|| {
                        format!("{pool}/{server}: trestle {ours:?}, haproxy {theirs:?}, wanted {up}")
                    })
                })
                .collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
        })
        .await;
    }
}

/// Those of `ways` that do TLS, and those that verify a certificate or not.
fn tls<'a>(ways: &[&'a str]) -> Vec<&'a str> {
    ways.iter().copied().filter(|way| *way != "tcp").collect()
}

fn unverified<'a>(ways: &[&'a str]) -> Vec<&'a str> {
    ways.iter().copied().filter(|way| *way != "verified").collect()
}

/// A server, where it is, and the ways that it is checked in.
type Watched = (&'static str, SocketAddr, &'static [&'static str]);

async fn watched_by_both(cluster: &mut Cluster, servers: &[Watched], ca: &str) -> Both {
    let endpoints = cluster.endpoints();
    for (pool, check, ..) in WAYS {
        let check = check.iter().map(|word| if *word == "CA" { ca } else { *word });
        let often =
            ["--health-interval", "200ms", "--health-fast-interval", "100ms", "--health-timeout", "1s"];
        let arguments: Vec<&str> =
            ["pool", "create", pool, "--health"].into_iter().chain(check).chain(often).collect();
        trestle(&endpoints, &arguments).expect_success();
        for (name, address, _) in servers.iter().filter(|(_, _, ways)| ways.contains(&pool)) {
            let path = format!("{pool}/{name}");
            trestle(&endpoints, &["backend", "add", &path, &address.to_string()]).expect_success();
        }
    }
    cluster.agreed().await;
    let haproxy = Haproxy::start(servers, ca);
    let mut both = Both { api: cluster.api(0), haproxy, expected: Verdicts::new(), failures: 0 };
    for (name, _, ways) in servers {
        both.agree("the beginning", name, ways, true).await;
    }
    both
}

/// What happens to nginx.
async fn nginx_fails(both: &mut Both, nginx: &mut Nginx, good: &Certificate, bad: &Certificate) {
    let pages = ["https", "exchange"];
    nginx.kill();
    both.agree("nginx is killed", "nginx", WEB, false).await;
    nginx.restart();
    both.agree("nginx is back", "nginx", WEB, true).await;
    nginx.set_healthy(false);
    both.agree("nginx answers 503", "nginx", &pages, false).await;
    nginx.set_healthy(true);
    both.agree("nginx answers 200", "nginx", &pages, true).await;
    // Frozen, the kernel still takes its connections.
    nginx.freeze();
    both.agree("nginx hangs", "nginx", &tls(WEB), false).await;
    nginx.thaw();
    both.agree("nginx goes on", "nginx", &tls(WEB), true).await;
    nginx.restart_with(bad);
    both.agree("nginx has another's certificate", "nginx", &["verified"], false).await;
    nginx.restart_with(good);
    both.agree("nginx has its certificate back", "nginx", &["verified"], true).await;
}

/// What happens to a server of another kind.
async fn server_fails(
    both: &mut Both,
    (name, server, ways): (&'static str, &mut Server, &[&'static str]),
    good: &Certificate,
    bad: &Certificate,
) {
    server.kill();
    both.agree(&format!("{name} is killed"), name, ways, false).await;
    server.restart_with(bad);
    // It stays down for those who verify it.
    both.agree(&format!("{name} is back with another's certificate"), name, &unverified(ways), true).await;
    server.restart_with(good);
    both.agree(&format!("{name} has its certificate back"), name, ways, true).await;
    server.process().freeze();
    both.agree(&format!("{name} hangs"), name, &tls(ways), false).await;
    server.process().thaw();
    both.agree(&format!("{name} goes on"), name, &tls(ways), true).await;
    server.restart_with(bad);
    both.agree(&format!("{name} has another's certificate"), name, &["verified"], false).await;
    server.restart_with(good);
    both.agree(&format!("{name} has its own again"), name, &["verified"], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_and_trestle_agree_through_failures() {
    if !has_tools(&["haproxy", "nginx", "openssl", "etcd"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 1).await;
    let (ours, others) = (Authority::generate("ours"), Authority::generate("others"));
    let ips: [Ipv4Addr; 3] = [11, 12, 13].map(|number| cluster.subnet.ip(number));
    let names = ips.map(|ip| format!("IP:{ip}")).join(",");
    let (good, bad) = (ours.sign(&names, 10), others.sign(&names, 10));
    let mut nginx = Nginx::start("nginx", ips[0], &[6443], &good);
    let mut openssl = Server::start((ips[1], 6443).into(), &good, openssl);
    let mut etcd = Server::start((ips[2], 2379).into(), &good, etcd);
    let servers = [
        ("nginx", (ips[0], 6443).into(), WEB),
        ("openssl", openssl.address, WEB),
        ("etcd", etcd.address, ETCD),
    ];
    let mut both = watched_by_both(&mut cluster, &servers, ours.cert().to_str().unwrap()).await;
    for _ in 0..2 {
        nginx_fails(&mut both, &mut nginx, &good, &bad).await;
        server_fails(&mut both, ("openssl", &mut openssl, WEB), &good, &bad).await;
        server_fails(&mut both, ("etcd", &mut etcd, ETCD), &good, &bad).await;
    }
    assert_eq!(both.failures, 20);
}
