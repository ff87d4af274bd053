//! What identities cost: a cluster whose members and callers prove who they are, beside one of the same program without TLS, in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use trestle_api::v1::{Consistency, GetPoolRequest};
use trestle_testkit::Cluster;

use crate::control::{MANY, ROUND, leader_killed, together, what_is_written, writers};
use crate::figures::{Samples, line, ms, note};
use crate::writes::measure;

/// Rounds of each measurement, with each cluster in turn.
const ROUNDS: usize = 4;
const KILLS: usize = 15;
const READS: usize = 1000;
const IDLE: Duration = Duration::from_secs(20);

/// The same of both clusters.
#[derive(Default)]
struct Pair<T> {
    plain: T,
    secure: T,
}

impl<T> Pair<T> {
    /// In another order each second time, so that a busy moment of the machine hits both.
    fn in_turn(&mut self, round: usize) -> [&mut T; 2] {
        if round.is_multiple_of(2) {
            [&mut self.plain, &mut self.secure]
        } else {
            [&mut self.secure, &mut self.plain]
        }
    }
}

/// Measures everything and prints it, each figure beside its target.
pub(crate) async fn run(trestled: &Path) {
    println!("{:<58} {:>14}   target", "with identities, and without", "measured");
    let mut clusters =
        Pair { plain: Cluster::start(trestled, 3).await, secure: Cluster::start_secure(trestled, 3).await };
    idle(&mut clusters).await;
    for cluster in clusters.in_turn(0) {
        let leader = cluster.leader().await;
        what_is_written(&cluster.api(leader)).await;
    }
    reads(&mut clusters).await;
    for count in [1, MANY] {
        writes(&mut clusters, count).await;
    }
    failover(&mut clusters).await;
}

fn cpu(cluster: &mut Cluster) -> Duration {
    cluster.members.iter_mut().map(|member| member.usage().cpu).sum()
}

/// What the three members of each use that have nothing to do, at the same time.
async fn idle(clusters: &mut Pair<Cluster>) {
    // What founding and TLS for the first time took is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = [cpu(&mut clusters.plain), cpu(&mut clusters.secure)];
    let start = Instant::now();
    tokio::time::sleep(IDLE).await;
    let time = start.elapsed().as_secs_f64();
    let after = [cpu(&mut clusters.plain), cpu(&mut clusters.secure)];
    let [plain, secure] = [0, 1].map(|at| (after[at] - before[at]).as_secs_f64() / time * 100.0);
    note("three idle members, CPU without identities", &format!("{plain:.2} %"));
    note("three idle members, CPU with", &format!("{secure:.2} %"));
    let more = secure - plain;
    line("  more with identities", &format!("{more:.2} %"), "<= 0.2 %", more <= 0.2);
}

/// A linearizable read at a follower: one call to the leader, which has heard from a quorum or asks for it.
async fn reads(clusters: &mut Pair<Cluster>) {
    let mut found = Pair::<Samples>::default();
    for round in 0..ROUNDS {
        for (cluster, samples) in clusters.in_turn(round).into_iter().zip(found.in_turn(round)) {
            let follower = (cluster.leader().await + 1) % 3;
            let api = cluster.api(follower);
            for _ in 0..READS {
                let name = "pools/writes".to_owned();
                let request = GetPoolRequest { name, consistency: Consistency::Linearizable.into() };
                let start = Instant::now();
                api.pools().get_pool(request).await.unwrap();
                samples.add(start.elapsed());
            }
        }
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let [plain, secure] = [&found.plain, &found.secure].map(|samples| samples.quantile(part));
        note(&format!("a follower asks the leader, {name} without"), &ms(plain));
        note(&format!("a follower asks the leader, {name} with"), &ms(secure));
        note("  with, times without", &format!("{:.2}", secure.as_secs_f64() / plain.as_secs_f64()));
    }
}

async fn writes(clusters: &mut Pair<Cluster>, count: usize) {
    let mut found = Pair::<Vec<_>>::default();
    for cluster in clusters.in_turn(0) {
        let leader = cluster.leader().await;
        measure(writers(cluster, leader, count), ROUND / 5).await;
    }
    for round in 0..ROUNDS {
        for (cluster, work) in clusters.in_turn(round).into_iter().zip(found.in_turn(round)) {
            let leader = cluster.leader().await;
            work.push(measure(writers(cluster, leader, count), ROUND).await);
        }
    }
    let (plain, secure) = (together(found.plain), together(found.secure));
    for (name, work) in [("without", &plain), ("with", &secure)] {
        let (rate, p99) = (format!("{:.0} /s", work.rate), ms(work.samples.quantile(0.99)));
        note(&format!("committed writes, {count} at a time, {name}"), &rate);
        note(&format!("committed write, {count} at a time, {name}, p99"), &p99);
    }
    let ratio = secure.rate / plain.rate;
    line("  with, times without", &format!("{ratio:.2}"), ">= 0.95", ratio >= 0.95);
}

async fn failover(clusters: &mut Pair<Cluster>) {
    let mut found = Pair::<Samples>::default();
    for round in 0..KILLS {
        for (cluster, samples) in clusters.in_turn(round).into_iter().zip(found.in_turn(round)) {
            samples.add(leader_killed(cluster, round).await);
        }
    }
    for (name, part) in [("median", 0.5), ("maximum", 1.0)] {
        let [plain, secure] = [&found.plain, &found.secure].map(|samples| samples.quantile(part));
        note(&format!("leader killed -> next write, {name} of {KILLS}, without"), &ms(plain));
        note(&format!("leader killed -> next write, {name} of {KILLS}, with"), &ms(secure));
        let ratio = plain.as_secs_f64() / secure.as_secs_f64();
        line("  without, times with", &format!("{ratio:.2}"), ">= 0.95", ratio >= 0.95);
    }
}
