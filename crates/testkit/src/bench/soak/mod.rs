//! `cargo xtask bench soak`: one member at its limit of open files for a long time, with backends that misbehave in every
//! way that is known. At the end it must have as many descriptors, pipes and as much memory as at the beginning, and every
//! stream must have been passed on byte for byte.

mod backends;
mod clients;
mod streams;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trestle_api::v1::{HealthCheck, NoCheck, Pool, health_check};
use trestle_testkit::{Cluster, Member};

use crate::figures::line;
use crate::limited;
use clients::Clients;

/// Open files of the member: each connection takes two, so that the limit is reached with clients of one process.
const LIMIT: usize = 4096;
/// Load that comes before what counts as the beginning: pools, the allocator and the kernel's tables have filled then.
const WARM_UP: Duration = Duration::from_secs(90);
/// How long the member may take to let go of everything once the clients are gone. A client that has gone looks like one
/// that has only finished sending, until the kernel has asked it (keepalive, 60 s) or the backend ends.
const SETTLE: Duration = Duration::from_secs(240);
/// Difference of memory that passes, in percent.
const ALLOWED: f64 = 1.0;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    pipes: usize,
    resident: u64,
}

fn held(member: &mut Member) -> Held {
    let id = member.process().id();
    let links = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap();
    let targets: Vec<PathBuf> =
        links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
    let pipes = targets.iter().filter(|target| target.to_string_lossy().starts_with("pipe:")).count();
    Held { descriptors: targets.len(), pipes, resident: member.usage().resident }
}

/// Runs load for `minutes` and prints what was held before and after.
pub(crate) async fn run(trestled: &Path, minutes: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(limited(trestled, LIMIT, dir.path()), 1).await;
    let faults = backends::Faults::default();
    let targets = configure(&cluster, &faults).await;
    let member = &mut cluster.members[0];
    println!("one member with {LIMIT} open files, {minutes} minutes of load");
    let fresh = held(member);
    let mut warm = Clients::start(&targets);
    watch(member, &warm, WARM_UP).await;
    warm.stop().await;
    let warmed = settled(member, fresh).await;
    let before = Held { resident: warmed.resident, ..fresh };
    println!("fresh: {fresh:?}; after some load: {warmed:?}");
    let mut clients = Clients::start(&targets);
    let highest = watch(member, &clients, Duration::from_secs(60 * minutes)).await;
    clients.stop().await;
    let after = settled(member, before).await;
    println!("end: {after:?}");
    judge(before, highest, after, &clients, &faults)
}

fn judge(before: Held, highest: usize, after: Held, clients: &Clients, faults: &backends::Faults) -> bool {
    let (streams, wrong) = clients.verified();
    let wrong = wrong + faults.count();
    let percent = (after.resident as f64 / before.resident as f64 - 1.0) * 100.0;
    let results = [
        (
            "descriptors at the height of it",
            format!("{highest} of {LIMIT}"),
            "> 90 %",
            highest * 10 > LIMIT * 9,
        ),
        (
            "descriptors, end against beginning",
            format!("{} / {}", after.descriptors, before.descriptors),
            "equal",
            after.descriptors <= before.descriptors,
        ),
        (
            "pipes, end against beginning",
            format!("{} / {}", after.pipes, before.pipes),
            "equal",
            after.pipes <= before.pipes,
        ),
        ("resident memory, end against beginning", format!("{percent:+.2} %"), "<= 1 %", percent <= ALLOWED),
        ("streams compared byte for byte", streams.to_string(), "> 0", streams > 0),
        ("streams that were wrong", wrong.to_string(), "0", wrong == 0),
    ];
    for (what, value, target, good) in &results {
        line(what, value, target, *good);
    }
    results.iter().all(|(_, _, _, good)| *good)
}

/// One pool and one listener for each kind of backend.
async fn configure(cluster: &Cluster, faults: &backends::Faults) -> clients::Targets {
    let api = cluster.api(0);
    let ip = cluster.subnet.ip(100);
    let unchecked = || Pool {
        health_check: Some(HealthCheck {
            kind: Some(health_check::Kind::None(NoCheck {})),
            ..HealthCheck::default()
        }),
        ..Pool::default()
    };
    let mut targets = Vec::new();
    for (number, (name, backend)) in backends::start(ip, faults).await.into_iter().enumerate() {
        api.create_pool_with(name, unchecked()).await.unwrap();
        api.create_backend(name, "b", backend).await.unwrap();
        let port = 7500 + u16::try_from(number).unwrap();
        let bind = std::net::SocketAddr::from((cluster.members[0].ip, port));
        api.create_listener(name, bind, name).await.unwrap();
        targets.push((name, bind));
    }
    clients::Targets::new(targets)
}

/// Prints what the member holds, once a minute; answers the most descriptors that were seen.
async fn watch(member: &mut Member, clients: &Clients, time: Duration) -> usize {
    let start = Instant::now();
    let mut highest = 0;
    let mut printed = None;
    while start.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let held = held(member);
        highest = highest.max(held.descriptors);
        let minute = start.elapsed().as_secs() / 60;
        if printed != Some(minute) {
            printed = Some(minute);
            println!("{minute:>3} min: {held:?}; {}", clients.summary());
        }
    }
    highest
}

/// Waits until the member holds no more than at the beginning, and lets go of no more memory.
async fn settled(member: &mut Member, before: Held) -> Held {
    let start = Instant::now();
    let mut last = held(member);
    let mut still = 0;
    while start.elapsed() < SETTLE && still < 10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = held(member);
        let same = now.descriptors == last.descriptors && now.resident.abs_diff(last.resident) < 64 * 1024;
        let enough = now.descriptors <= before.descriptors && now.pipes <= before.pipes;
        still = if same && enough { still + 1 } else { 0 };
        last = now;
    }
    last
}
