//! Figures, printed and not judged: `cargo test --release -p trestle-consensus -- --ignored --nocapture speed`.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, create_pool, proposal};
use crate::{DEFAULT_WAIT, Timing};

async fn write(cluster: &Cluster, at: usize, writers: usize, time: Duration) {
    let end = Instant::now() + time;
    let writing = (0..writers).map(|writer| {
        let member = cluster.at(at).clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            let name = format!("w{writer}");
            while Instant::now() < end {
                for command in [create_pool(&name), super::cluster::delete_pool(&name)] {
                    let start = Instant::now();
                    member.propose(proposal(command), DEFAULT_WAIT).await.unwrap();
                    taken.push(start.elapsed());
                }
            }
            taken
        })
    });
    let started = Instant::now();
    let mut taken = Vec::new();
    for writer in writing.collect::<Vec<_>>() {
        taken.extend(writer.await.unwrap());
    }
    taken.sort();
    let at = |part: f64| taken[((taken.len() - 1) as f64 * part) as usize];
    println!(
        "{writers:>3} writers: {:>6.0}/s  p50 {:?}  p99 {:?}  max {:?}",
        taken.len() as f64 / started.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run it alone in a release build"]
async fn speed() {
    let cluster = Cluster::direct(3, Timing::default()).await;
    let leader = cluster.leader().await;
    for (what, at) in [("on the leader", leader), ("through a follower", (leader + 1) % 3)] {
        println!("{what}");
        write(&cluster, at, 1, Duration::from_secs(1)).await;
        for writers in [1, 16, 64, 256] {
            write(&cluster, at, writers, Duration::from_secs(3)).await;
        }
        let start = Instant::now();
        for _ in 0..1000 {
            cluster.at(at).read(DEFAULT_WAIT).await.unwrap();
        }
        println!("reads one after the other: {:?} each", start.elapsed() / 1000);
    }
}

/// Time on a processor that this process has had so far, in user space and in the kernel; see proc(5).
fn processor_time() -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = |field: usize| after_name.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run it alone in a release build"]
async fn idle() {
    const TIME: Duration = Duration::from_secs(20);
    let _cluster = Cluster::direct(3, Timing::default()).await;
    let before = processor_time();
    tokio::time::sleep(TIME).await;
    let used = processor_time() - before;
    println!("three idle members: {:.2} % of a core", 100.0 * used.as_secs_f64() / TIME.as_secs_f64());
}
