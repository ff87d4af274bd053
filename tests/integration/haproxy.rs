//! HAProxy and Trestle check the same servers in the same ways and must come to the same verdicts, whatever happens.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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
const WAYS: [(&str, &[&str], &str, &str); 4] = [
    ("tcp", &["tcp"], "", ""),
    ("tls", &["tls"], "", "check-ssl verify none"),
    ("verified", &["tls", "--health-ca", "CA"], "", "check-ssl verify required ca-file CA"),
    (
        "https",
        &["https", "--health-path", "/healthz", "--health-expect", "200"],
        "option httpchk GET /healthz\n  http-check expect status 200",
        "check-ssl verify none",
    ),
];

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
    fn start(servers: &[(&str, SocketAddr)], ca: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("stats");
        let mut text = format!(
            "global\n  stats socket {} level admin\ndefaults\n  mode tcp\n  timeout connect 1s\n  timeout client 10s\n  \
             timeout server 10s\n  timeout check 1s\n  \
             default-server inter 200ms fastinter 100ms downinter 200ms fall 3 rise 2\n",
            socket.display()
        );
        for (pool, _, section, words) in WAYS {
            text.push_str(&format!("backend {pool}\n  {section}\n"));
            for (name, address) in servers {
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

/// `openssl s_server`, which answers every request with a page of its own.
struct SslServer {
    address: SocketAddr,
    process: Option<Process>,
    dir: TempDir,
}

impl SslServer {
    fn start(address: SocketAddr, certificate: &Certificate) -> Self {
        let mut server = Self { address, process: None, dir: TempDir::new().unwrap() };
        server.restart_with(certificate);
        server
    }

    fn restart_with(&mut self, certificate: &Certificate) {
        self.kill();
        let mut openssl = Command::new("openssl");
        openssl.args(["s_server", "-www", "-accept", &self.address.to_string()]);
        openssl.arg("-cert").arg(certificate.cert()).arg("-key").arg(certificate.key());
        let process = Process::spawn("openssl s_server", &mut openssl, &self.dir.path().join("output.log"));
        self.process = Some(process);
        wait_for("openssl s_server", Duration::from_secs(10), || {
            TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).map(drop)
        });
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

/// Trestle's verdicts with their reasons.
async fn seen_by_trestle(api: &Api) -> Result<Said<Verdict>, String> {
    let mut seen = BTreeMap::new();
    for (pool, ..) in WAYS {
        let request = GetPoolHealthRequest { name: format!("pools/{pool}") };
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
    transitions: usize,
}

impl Both {
    /// Waits until both have the expected verdicts, which are those from before but for these pools of one server.
    async fn agree(&mut self, what: &str, server: &'static str, pools: &[&'static str], up: bool) {
        for pool in pools {
            let before = self.expected.insert((*pool, server), up);
            self.transitions += usize::from(before.is_some_and(|before| before != up));
        }
        wait_until(what, Duration::from_secs(30), async || {
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

const ALL: [&str; 4] = ["tcp", "tls", "verified", "https"];
const TLS: [&str; 3] = ["tls", "verified", "https"];

async fn watched_by_both(cluster: &mut Cluster, servers: &[(&'static str, SocketAddr)], ca: &str) -> Both {
    let endpoints = cluster.endpoints();
    for (pool, check, ..) in WAYS {
        let check = check.iter().map(|word| if *word == "CA" { ca } else { *word });
        let often =
            ["--health-interval", "200ms", "--health-fast-interval", "100ms", "--health-timeout", "1s"];
        let arguments: Vec<&str> =
            ["pool", "create", pool, "--health"].into_iter().chain(check).chain(often).collect();
        trestle(&endpoints, &arguments).expect_success();
        for (name, address) in servers {
            let path = format!("{pool}/{name}");
            trestle(&endpoints, &["backend", "add", &path, &address.to_string()]).expect_success();
        }
    }
    cluster.agreed().await;
    let haproxy = Haproxy::start(servers, ca);
    let mut both = Both { api: cluster.api(0), haproxy, expected: Verdicts::new(), transitions: 0 };
    for (name, _) in servers {
        both.agree("the beginning", name, &ALL, true).await;
    }
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_and_trestle_agree_through_failures() {
    if !has_tools(&["haproxy", "nginx", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 1).await;
    let (ours, others) = (Authority::generate("ours"), Authority::generate("others"));
    let ips: [Ipv4Addr; 2] = [cluster.subnet.ip(11), cluster.subnet.ip(12)];
    let names = format!("IP:{},IP:{}", ips[0], ips[1]);
    let (good, bad) = (ours.sign(&names, 10), others.sign(&names, 10));
    let mut nginx = Nginx::start("nginx", ips[0], &[6443], &good);
    let mut openssl = SslServer::start((ips[1], 6443).into(), &good);
    let servers = [("nginx", (ips[0], 6443).into()), ("openssl", (ips[1], 6443).into())];
    let mut both = watched_by_both(&mut cluster, &servers, ours.cert().to_str().unwrap()).await;

    nginx.kill();
    both.agree("nginx is killed", "nginx", &ALL, false).await;
    nginx.restart();
    both.agree("nginx is back", "nginx", &ALL, true).await;
    nginx.set_healthy(false);
    both.agree("nginx answers 503", "nginx", &["https"], false).await;
    nginx.set_healthy(true);
    both.agree("nginx answers 200", "nginx", &["https"], true).await;
    openssl.kill();
    both.agree("openssl is killed", "openssl", &ALL, false).await;
    openssl.restart_with(&bad);
    // It stays down for those who verify it.
    both.agree("openssl has another's certificate", "openssl", &["tcp", "tls", "https"], true).await;
    openssl.restart_with(&good);
    both.agree("openssl has its certificate back", "openssl", &ALL, true).await;
    // Frozen, the kernel still takes its connections.
    nginx.freeze();
    both.agree("nginx hangs", "nginx", &TLS, false).await;
    nginx.thaw();
    both.agree("nginx goes on", "nginx", &TLS, true).await;
    nginx.restart_with(&bad);
    both.agree("nginx has another's certificate", "nginx", &["verified"], false).await;
    nginx.restart_with(&good);
    both.agree("nginx has its certificate back", "nginx", &["verified"], true).await;
    assert!(both.transitions >= 20, "only {} verdicts changed", both.transitions);
}
