//! The proxies that are compared: one worker each, all in front of the same backend.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::{Cluster, Process, Subnet, tool, wait_for};

use super::pinning;

/// The kernel's USER_HZ, which is 100 on every architecture that matters here.
const TICK: f64 = 0.01;

/// A running proxy.
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) front: SocketAddr,
    running: Running,
}

/// What ends with the proxy.
enum Running {
    Process(Process, #[expect(dead_code, reason = "held until the process has ended")] TempDir),
    Cluster(Box<Cluster>),
}

/// HAProxy in TCP mode; `more` are lines for its `defaults` section. Keepalive is left off, which is what costs it least.
pub(super) fn haproxy(
    name: &'static str,
    subnet: &Subnet,
    host: u8,
    back: SocketAddr,
    global: &str,
    more: &str,
) -> Product {
    let (dir, front) = (TempDir::with_prefix("haproxy-").unwrap(), SocketAddr::from((subnet.ip(host), 9000)));
    let file = dir.path().join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 9500\n{global}defaults\n  mode tcp\n  maxconn 9500\n  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1h\n{more}listen l\n  bind {front} backlog 4096\n  server s {back}\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    start(name, front, command, dir)
}

/// Where Debian's package libnginx-mod-stream puts its module.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// nginx's stream module in one process; `None` where it is not installed.
pub(super) fn nginx(subnet: &Subnet, host: u8, back: SocketAddr) -> Option<Product> {
    if tool("nginx").is_none() || !Path::new(STREAM).is_file() {
        return None;
    }
    let (dir, front) = (TempDir::with_prefix("nginx-").unwrap(), SocketAddr::from((subnet.ip(host), 9000)));
    let text = format!(
        "load_module {STREAM};\ndaemon off;\nmaster_process off;\npid nginx.pid;\n\
         error_log error.log;\nevents {{ worker_connections 19500; }}\nstream {{ server {{ \
         listen {front} backlog=4096; proxy_pass {back}; proxy_timeout 1h; }} }}\n"
    );
    std::fs::write(dir.path().join("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    Some(start("nginx", front, command, dir))
}

fn start(name: &'static str, front: SocketAddr, mut command: Command, dir: TempDir) -> Product {
    let process = Process::spawn(name, &mut command, &dir.path().join("output.log"));
    pinning::pin(process.id(), pinning::SERVERS);
    let running = Running::Process(process, dir);
    listening(front);
    Product { name, front, running }
}

fn listening(address: SocketAddr) {
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop);
    wait_for(&format!("{address} accepts"), Duration::from_secs(10), connect);
}

/// The real daemon, alone in its cluster, with one worker; checks are off, as they are with the others.
pub(super) async fn trestle(trestled: &Path, back: SocketAddr) -> Product {
    let mut cluster = Cluster::start(trestled, 1).await;
    pinning::pin(cluster.members[0].process().id(), pinning::SERVERS);
    let front = SocketAddr::from((cluster.members[0].ip, 9000));
    let api = cluster.api(0);
    api.create_pool("p", None).await.unwrap();
    api.create_backend("p", "b", back).await.unwrap();
    api.create_listener("l", front, "p").await.unwrap();
    listening(front);
    Product { name: "trestle", front, running: Running::Cluster(Box::new(cluster)) }
}

impl Product {
    pub(super) fn id(&mut self) -> u32 {
        match &mut self.running {
            Running::Process(process, _) => process.id(),
            Running::Cluster(cluster) => cluster.members[0].process().id(),
        }
    }

    fn proc(&mut self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).unwrap()
    }

    /// Processor time of the whole process so far, in seconds.
    pub(super) fn cpu(&mut self) -> f64 {
        // proc(5): the fields after the name in parentheses begin with the third; utime and stime are 14 and 15.
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * TICK
    }

    /// Memory of its own, in bytes.
    pub(super) fn memory(&mut self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }
}
