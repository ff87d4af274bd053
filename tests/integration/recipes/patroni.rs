//! PostgreSQL, with a stand-in for Patroni.

use std::process::Command;

use trestle_testkit::{has_tools, is_root, skip, wait_for};

use super::agent::Agent;
use super::{Kitchen, LIMIT, says};
use crate::databases::Postgres;
use crate::finish;

const REST: u16 = 8008;
const PORT: u16 = 5432;
const READ: u16 = 5433;

fn psql(to: std::net::SocketAddr, query: &str) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "-U", "app", "-d", "postgres"]);
    psql.args(["-Atc", query]);
    psql
}

/// Which server it is.
const WHO: &str = "select host(inet_server_addr())";

/// A query that runs until somebody ends it; each has a number, because a server goes on with one whose client has gone.
fn long(number: usize) -> String {
    format!("select pg_sleep({})", 600 + number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_follows_its_primary_and_takes_cancel_requests() {
    if !has_tools(&["psql", "setpriv"]) {
        return;
    }
    let (Some(programs), true) = (Postgres::programs(), is_root()) else {
        skip("PostgreSQL's server and root are needed");
        return;
    };
    let kitchen = Kitchen::new().await;
    let nodes = [kitchen.server(1), kitchen.server(2)];
    let _servers = nodes.map(|ip| Postgres::start(&programs, (ip, PORT).into()));
    let agents = [(nodes[0], "/primary"), (nodes[1], "/replica")];
    let agents = agents.map(|(ip, role)| Agent::patroni((ip, REST), role));
    kitchen.follow("PostgreSQL with Patroni", &[]);

    let (front, read) = (kitchen.front(PORT), kitchen.front(READ));
    kitchen.healthy("pg", 1);
    kitchen.healthy("pg-read", 1);
    says(&nodes[0].to_string(), || psql(front, WHO));
    says(&nodes[1].to_string(), || psql(read, WHO));
    let wait_until_runs = |query: &str| {
        let asked =
            format!("select count(*) from pg_stat_activity where query = '{query}' and state = 'active'");
        wait_for("a query that runs", LIMIT, || {
            let found = nodes.map(|ip| finish(&mut psql((ip, PORT).into(), &asked)).stdout);
            if found.iter().any(|count| count.trim() == "1") { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };

    // A switchover: who wrote to the former primary is told.
    let mut writer = kitchen.session("writer", &mut psql(front, &long(0)));
    wait_until_runs(&long(0));
    agents[0].set("/replica");
    agents[1].set("/primary");
    assert!(!writer.exited(LIMIT).success());
    assert!(writer.output().contains("connection"), "{}", writer.output());
    says(&nodes[1].to_string(), || psql(front, WHO));
    says(&nodes[0].to_string(), || psql(read, WHO));

    // Both take reads; what cancels a query reaches the server that runs it, however often.
    agents[1].set("/replica");
    kitchen.healthy("pg-read", 2);
    for number in 1..=3 {
        let mut reader = kitchen.session(&format!("reader-{number}"), &mut psql(read, &long(number)));
        wait_until_runs(&long(number));
        reader.interrupt();
        assert!(!reader.exited(LIMIT).success());
        let said = reader.output();
        assert!(said.contains("canceling statement due to user request"), "{said}");
    }
}
