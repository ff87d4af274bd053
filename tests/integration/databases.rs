//! Databases behind checks of their own protocols, with the real servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::{Cluster, Process, get, has_tools, is_root, skip, wait_for};

use crate::{trestle, trestled};

/// A PostgreSQL with a fresh database, run by the user that Debian's package makes.
pub(crate) struct Postgres {
    process: Process,
    _dir: TempDir,
}

impl Postgres {
    /// Where Debian puts the server's programs, of whichever version there is.
    pub(crate) fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        versions.flatten().map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists())
    }

    fn command(program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    }

    pub(crate) fn start(programs: &Path, address: SocketAddr) -> Self {
        let dir = TempDir::with_prefix("trestle-postgres-").unwrap();
        let data = dir.path().join("data");
        let owned = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
        assert!(owned.success());
        let made = Self::command(&programs.join("initdb"))
            .args(["--auth=trust", "--no-sync", "--username=app", "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self::command(&programs.join("postgres"));
        server.arg("-D").arg(&data).args(["-p", &address.port().to_string(), "-k", ""]);
        server.args([
            "-c",
            &format!("listen_addresses={}", address.ip()),
            "-c",
            "lc_messages=C",
            "-c",
            "fsync=off",
        ]);
        let log = dir.path().join("log");
        let server = Self { process: Process::spawn("postgres", &mut server, &log), _dir: dir };
        wait_for("PostgreSQL", Duration::from_secs(60), || {
            let output = server.process.output();
            if output.contains("ready to accept connections") { Ok(()) } else { Err(output) }
        });
        server
    }
}

/// A check that asks for TLS (PostgreSQL's SSLRequest), as HAProxy's users write it, and one by TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_leave_nothing_in_the_log_of_postgresql() {
    if !has_tools(&["psql", "setpriv"]) {
        return;
    }
    let (Some(programs), true) = (Postgres::programs(), is_root()) else {
        skip("PostgreSQL's server and root are needed");
        return;
    };
    let cluster = Cluster::start(trestled(), 1).await;
    let backend = SocketAddr::from((cluster.subnet.ip(20), 5432));
    let server = Postgres::start(&programs, backend);
    let endpoints = cluster.endpoints();
    let run = |arguments: &[&str]| trestle(&endpoints, arguments).expect_success();
    run(&["pool", "create", "pg", "--health", "tcp", "--health-interval", "100ms"]);
    run(&["backend", "add", "pg/a", &backend.to_string()]);
    run(&["listener", "create", "pg", "--bind", "0.0.0.0:5433", "--pool", "pg", "--wait"]);
    let http = cluster.members[0].http();
    let checks = |result: &str, at_least: u64| {
        let line = format!("trestle_backend_checks_total{{pool=\"pg\",backend=\"a\",result=\"{result}\"}} ");
        wait_for("checks", Duration::from_secs(60), || {
            let metrics = get(http, "/metrics")?.body;
            let count = metrics
                .lines()
                .find_map(|found| found.strip_prefix(&line))
                .and_then(|n| n.parse::<u64>().ok());
            match count.unwrap_or(0) {
                count if count >= at_least => Ok(count),
                count => Err(format!("{count} checks")),
            }
        })
    };
    let before = checks("success", 10);
    let ask = [r"\x00\x00\x00\x08\x04\xd2\x16\x2f", "N"];
    run(&[
        "pool",
        "update",
        "pg",
        "--health",
        "exchange",
        "--health-send",
        ask[0],
        "--health-expect",
        ask[1],
    ]);
    checks("success", before + 20);
    let ip = cluster.members[0].ip.to_string();
    let answer = Command::new("psql")
        .args(["-h", &ip, "-p", "5433", "-U", "app", "-d", "postgres", "-Atc", "select 42"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "42", "{answer:?}");
    let log = server.process.output();
    let complaints: Vec<_> =
        log.lines().filter(|line| line.contains("reset by peer") || line.contains("incomplete")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
