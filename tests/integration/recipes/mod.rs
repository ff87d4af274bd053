//! The recipes of `deploy/recipes/README.md`, run as they are written there, with the real servers.

mod agent;
mod brokers;
mod galera;
mod patroni;
mod rabbitmq;
mod remote;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::{Cluster, Process, Section, shell, wait_for};

use crate::{finish, trestle, trestled};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/recipes/README.md");
/// Where the page's servers are; the last byte is a server's number.
const THERE: &str = "10.0.1.";

const LIMIT: Duration = Duration::from_secs(60);

/// Those that a test here runs with a server.
const RUN: [&str; 8] =
    ["PostgreSQL with Patroni", "MariaDB and MySQL", "Galera", "Redis", "MQTT", "RabbitMQ", "SMTP", "SSH"];

/// A member, and room for servers.
struct Kitchen {
    cluster: Cluster,
    dir: TempDir,
}

impl Kitchen {
    async fn new() -> Self {
        Self {
            cluster: Cluster::start(trestled(), 1).await,
            dir: TempDir::with_prefix("trestle-recipe-").unwrap(),
        }
    }

    /// The address of a server, by its number on the page.
    fn server(&self, number: u8) -> Ipv4Addr {
        self.cluster.subnet.ip(10 + number)
    }

    /// Runs the commands of a recipe, with `replaced` besides the servers' addresses, and has its pools checked often.
    fn follow(&self, heading: &str, replaced: &[(&str, &str)]) -> Section {
        let servers = self.server(0).to_string();
        // 10.0.1.1 is the first, and 127.x.y.11 here.
        let servers = servers.strip_suffix('0').unwrap();
        let section = Section::read(Path::new(PAGE), heading).with(&[(THERE, servers)]).with(replaced);
        let commands = section.code("sh");
        let program = Path::new(env!("CARGO_BIN_EXE_trestle"));
        finish(&mut shell(program, &self.cluster.endpoints(), &commands)).expect_success();
        let created = commands.lines().filter_map(|line| line.strip_prefix("trestle pool create "));
        for pool in created.filter_map(|rest| rest.split_whitespace().next()) {
            let often = ["--health-interval", "200ms", "--health-fast-interval", "100ms"];
            self.trestle(&[&["pool", "update", pool], &often[..]].concat());
        }
        section
    }

    fn trestle(&self, arguments: &[&str]) -> String {
        trestle(&self.cluster.endpoints(), arguments).expect_success()
    }

    /// Waits until so many backends of a pool are healthy, and no more.
    fn healthy(&self, pool: &str, wanted: usize) {
        wait_for(&format!("{wanted} healthy in {pool}"), LIMIT, || {
            let seen = self.trestle(&["backend", "list", pool]);
            if seen.matches("healthy on 1/1").count() == wanted { Ok(()) } else { Err(seen) }
        });
    }

    /// Where a listener on a wildcard is here.
    fn front(&self, port: u16) -> SocketAddr {
        (self.cluster.members[0].ip, port).into()
    }

    /// Starts a server; returns once something listens at each address.
    fn start(&self, what: &str, command: &mut Command, listening: &[SocketAddr]) -> Process {
        let mut process = Process::spawn(what, command, &self.dir.path().join(format!("{what}.log")));
        for address in listening {
            wait_for(&format!("{what} at {address}"), LIMIT, || {
                assert_eq!(process.status(), None, "{}", process.output());
                std::net::TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop)
            });
        }
        process
    }

    /// Starts a client whose connection stays open.
    fn session(&self, what: &str, command: &mut Command) -> Process {
        Process::spawn(what, command, &self.dir.path().join(format!("{what}.log")))
    }

    /// Checks so many times more that this backend is healthy.
    fn checks(&self, backend: &str, more: u64) {
        let (pool, name) = backend.split_once('/').unwrap();
        let line =
            format!("trestle_backend_checks_total{{pool=\"{pool}\",backend=\"{name}\",result=\"success\"}} ");
        let count = || {
            let metrics = trestle_testkit::get(self.cluster.members[0].http(), "/metrics")?.body;
            let found = metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok());
            found.ok_or_else(|| format!("no {line}"))
        };
        let before = wait_for("a count of checks", LIMIT, count);
        wait_for("checks", LIMIT, || match count()? {
            now if now >= before + more => Ok(()),
            now => Err(format!("{} checks", now - before)),
        });
    }
}

/// Waits until a client, which may meet a server that is going, says `wanted`.
fn says(wanted: &str, mut client: impl FnMut() -> Command) {
    wait_for(&format!("the answer {wanted:?}"), LIMIT, || {
        let answer = finish(&mut client());
        if answer.code == Some(0) && answer.stdout.trim() == wanted {
            Ok(())
        } else {
            Err(format!("{:?} {} {}", answer.code, answer.stdout, answer.stderr))
        }
    });
}

#[test]
fn every_recipe_is_run() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut there: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut known = RUN;
    there.sort_unstable();
    known.sort_unstable();
    assert_eq!(there, known);
}
