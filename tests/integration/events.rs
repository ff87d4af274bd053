//! What happens on members is told, in their logs.

use std::time::Duration;

use trestle_api::v1::Verdict;
use trestle_testkit::{Cluster, Member, Origin, wait_for};

use crate::trestled;

/// Long enough for what members find out within seconds, on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a line of this level with these words in a member's log, `times` times in all, and never one of another level.
fn logged(member: &Member, level: &str, words: &str, times: usize) {
    wait_for(&format!("{level} {words:?} in the log of {}", member.name), LIMIT, || {
        let output = member.output();
        let lines: Vec<_> = output.lines().filter(|line| line.contains(words)).collect();
        let wrong = lines.iter().find(|line| !line.contains(&format!(" {level} ")));
        assert!(wrong.is_none(), "not of level {level}: {wrong:?}");
        if lines.len() == times { Ok(()) } else { Err(output.clone()) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_has_its_level_in_the_log_once_and_so_has_its_end() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    api.create_pool("web", Some(Duration::from_millis(100))).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.verdict("web", |_| true, Verdict::Healthy).await;

    origin.stop();
    for member in &cluster.members {
        logged(member, "WARN", "backend web/a is unhealthy: connection refused", 1);
        logged(member, "ERROR", "pool web has no usable backend: all 1 in use are unhealthy", 1);
    }
    let _again = Origin::start(origin.address(), "origin");
    for member in &cluster.members {
        logged(member, "INFO", "backend web/a is healthy: connected", 1);
        logged(member, "INFO", "pool web has a usable backend again", 1);
    }

    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let (one, gone) = (others[0], format!("member {} ", cluster.members[others[0]].name));
    cluster.members[one].kill();
    logged(&cluster.members[leader], "WARN", &format!("{gone}has not answered for "), 1);
    cluster.members[one].start();
    logged(&cluster.members[leader], "WARN", &format!("{gone}answers again after "), 1);

    for number in &others {
        cluster.members[*number].kill();
    }
    logged(&cluster.members[leader], "ERROR", "no quorum for ", 1);
    for number in &others {
        cluster.members[*number].start();
    }
    logged(&cluster.members[leader], "INFO", "there is a quorum again after ", 1);
}
