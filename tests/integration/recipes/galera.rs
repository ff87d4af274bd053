//! MariaDB, and Galera's one writer with a stand-in for clustercheck.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use trestle_testkit::{Process, has_tools, is_root, skip};

use super::agent::Agent;
use super::{Kitchen, LIMIT, says};
use crate::finish;

const PORT: u16 = 3306;
const FRONT: u16 = 3307;
const CLUSTERCHECK: u16 = 9200;
/// Each server has a log of 96 MiB otherwise.
const SMALL: &str = "--innodb-log-file-size=4M";

/// Makes the files of a server, which a user `app` may use from everywhere.
fn data(kitchen: &Kitchen) -> PathBuf {
    let data = kitchen.dir.path().join("mariadb");
    let mut install = Command::new("mariadb-install-db");
    install.args([
        "--no-defaults",
        "--user=root",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]);
    install.arg(SMALL);
    finish(install.arg(format!("--datadir={}", data.display()))).expect_success();
    let first = "CREATE USER app@'%';\nGRANT ALL ON *.* TO app@'%';\n";
    std::fs::write(kitchen.dir.path().join("first.sql"), first).unwrap();
    data
}

fn start(kitchen: &Kitchen, data: &PathBuf, number: u8) -> Process {
    let own = kitchen.dir.path().join(format!("mariadb-{number}"));
    finish(Command::new("cp").arg("-a").arg(data).arg(&own)).expect_success();
    let address = SocketAddr::from((kitchen.server(number), PORT));
    let mut server = Command::new("mariadbd");
    server.args([
        "--no-defaults",
        "--user=root",
        "--skip-name-resolve",
        SMALL,
        "--innodb-buffer-pool-size=8M",
    ]);
    server.arg(format!("--datadir={}", own.display())).arg(format!("--socket={}/socket", own.display()));
    server.arg(format!("--init-file={}", kitchen.dir.path().join("first.sql").display()));
    server.arg(format!("--bind-address={}", address.ip())).arg(format!("--server-id={number}"));
    kitchen.start(&format!("mariadbd-{number}"), &mut server, &[address])
}

fn sql(to: SocketAddr, query: &str) -> Command {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--protocol=tcp", "-u", "app", "-NBe", query]);
    client.args(["-h", &to.ip().to_string(), "-P", &to.port().to_string()]);
    client
}

const WHO: &str = "select @@server_id";
const LONG: &str = "select sleep(600)";
const ERRORS: &str =
    "select variable_value from information_schema.global_status where variable_name = 'ABORTED_CONNECTS'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_checked_in_silence_and_galera_has_one_writer() {
    if !has_tools(&["mariadb", "mariadbd", "mariadb-install-db"]) {
        return;
    }
    if !is_root() {
        skip("mariadbd runs as root here");
        return;
    }
    let kitchen = Kitchen::new().await;
    let data = data(&kitchen);
    let mut servers = [1, 2].map(|number| start(&kitchen, &data, number));
    let first = SocketAddr::from((kitchen.server(1), PORT));
    says("1", || sql(first, WHO));
    let before = finish(&mut sql(first, ERRORS)).expect_success();

    kitchen.follow("MariaDB and MySQL", &[]);
    kitchen.healthy("mariadb", 2);
    says("1", || sql(kitchen.front(PORT), WHO));
    kitchen.checks("mariadb/node1", 10);
    assert_eq!(finish(&mut sql(first, ERRORS)).expect_success(), before);

    let agents = [1, 2, 3].map(|number| Agent::clustercheck((kitchen.server(number), CLUSTERCHECK), "yes"));
    kitchen.follow("Galera", &[]);
    // The third is synced, says its agent, and nobody is led there.
    kitchen.healthy("galera", 3);
    let front = kitchen.front(FRONT);
    says("1", || sql(front, WHO));
    let runs = |at: u8| {
        let asked = format!("select count(*) from information_schema.processlist where info = '{LONG}'");
        says("1", || sql((kitchen.server(at), PORT).into(), &asked));
    };
    let mut writer = kitchen.session("first", &mut sql(front, LONG));
    runs(1);
    agents[0].set("");
    assert!(!writer.exited(LIMIT).success());
    says("2", || sql(front, WHO));

    // It is back: there are never two that are written to.
    let mut writer = kitchen.session("second", &mut sql(front, LONG));
    runs(2);
    agents[0].set("yes");
    assert!(!writer.exited(LIMIT).success());
    says("1", || sql(front, WHO));

    // The answers that come before the request count.
    kitchen.checks("galera/node2", 10);
    servers[0].kill();
    agents[0].set("");
    says("2", || sql(front, WHO));
}
