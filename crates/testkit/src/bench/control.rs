//! The control plane's figures.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prost_types::FieldMask;
use tonic::{Code, Status};
use trestle_api::v1::wait_for_revision_response::Result as WaitResult;
use trestle_api::v1::{Backend, CreatePoolRequest, UpdateBackendRequest, WaitForRevisionRequest};
use trestle_testkit::{Api, Cluster};

use crate::etcd::Etcd;
use crate::figures::{Samples, at_most, line, ms, note};
use crate::writes::{Work, Writer, measure};

/// Connections that many writers share, to either product.
pub(crate) const CONNECTIONS: usize = 4;

const KILLS: usize = 30;
const CHANGES: usize = 300;
pub(crate) const MANY: usize = 64;
const ROUNDS: usize = 3;
pub(crate) const ROUND: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);

/// Measures everything and prints it, each figure beside its target.
pub(crate) async fn run(trestled: &Path) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{:<58} {:>14}   target", format!("three members on {cores} cores, loopback"), "measured");
    let mut cluster = Cluster::start(trestled, 3).await;
    idle(&mut cluster).await;
    writes(&mut cluster).await;
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    api.create_pool("changes", None).await.unwrap();
    api.create_backend("changes", "b", "127.0.0.1:9").await.unwrap();
    let samples = changes(&api, "pools/changes/backends/b").await;
    note("API ack -> in force on three data planes, p50", &ms(samples.quantile(0.5)));
    at_most(
        "API ack -> in force on three data planes, p99",
        samples.quantile(0.99),
        Duration::from_millis(20),
    );
    failover(&mut cluster).await;
    drop(cluster);
    ten_thousand(trestled).await;
}

/// What members cost that have nothing to do.
async fn idle(cluster: &mut Cluster) {
    let before: Vec<_> = cluster.members.iter_mut().map(|member| member.usage()).collect();
    let start = Instant::now();
    tokio::time::sleep(IDLE).await;
    let time = start.elapsed();
    let (mut share, mut resident) = (0.0_f64, 0);
    for (member, before) in cluster.members.iter_mut().zip(before) {
        let after = member.usage();
        share = share.max((after.cpu - before.cpu).as_secs_f64() / time.as_secs_f64() * 100.0);
        resident = resident.max(after.resident);
    }
    let megabytes = resident as f64 / 1e6;
    line("idle member, CPU (the busiest of three)", &format!("{share:.2} %"), "<= 1 %", share <= 1.0);
    line(
        "idle member, resident memory (the largest)",
        &format!("{megabytes:.1} MB"),
        "<= 40 MB",
        megabytes <= 40.0,
    );
}

/// Changes the weight of one backend again and again.
pub(crate) struct TrestleWriter {
    api: Api,
    name: String,
}

async fn set_weight(api: &Api, name: &str, weight: u32) -> Result<u64, Status> {
    let backend = Backend { name: name.to_owned(), weight: Some(weight), ..Backend::default() };
    let update_mask = Some(FieldMask { paths: vec!["weight".to_owned()] });
    let request =
        UpdateBackendRequest { backend: Some(backend), update_mask, ..UpdateBackendRequest::default() };
    Ok(api.pools().update_backend(request).await?.into_inner().revision)
}

impl Writer for TrestleWriter {
    async fn write(&mut self, number: u64) -> Result<(), Status> {
        // Never the weight that it has, so that every write is a change.
        set_weight(&self.api, &self.name, 2 + (number % 200) as u32).await.map(drop)
    }
}

pub(crate) fn writers(cluster: &Cluster, leader: usize, count: usize) -> Vec<TrestleWriter> {
    let apis: Vec<Api> = (0..count.min(CONNECTIONS)).map(|_| cluster.api(leader)).collect();
    let writer = |number: usize| TrestleWriter {
        api: apis[number % apis.len()].clone(),
        name: format!("pools/writes/backends/b{number}"),
    };
    (0..count).map(writer).collect()
}

/// Makes what [`writers`] change.
pub(crate) async fn what_is_written(api: &Api) {
    api.create_pool("writes", None).await.unwrap();
    join_all((0..MANY).map(|number| {
        let api = api.clone();
        async move { api.create_backend("writes", &format!("b{number}"), "127.0.0.1:9").await.unwrap() }
    }))
    .await;
}

/// Committed writes to the leader, alternating with etcd's.
async fn writes(cluster: &mut Cluster) {
    let leader = cluster.leader().await;
    what_is_written(&cluster.api(leader)).await;
    let etcd = Etcd::start().await;
    for count in [1, MANY] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // One round to warm up, then the products in turn, so that a busy moment of the machine hits both.
        measure(writers(cluster, leader, count), ROUND / 5).await;
        for _ in 0..ROUNDS {
            ours.push(measure(writers(cluster, leader, count), ROUND).await);
            if let Some(etcd) = &etcd {
                theirs.push(measure(etcd.writers(count), ROUND).await);
            }
        }
        compare(count, &together(ours), etcd.is_some().then(|| together(theirs)).as_ref());
    }
    if etcd.is_none() {
        note("etcd is not installed", "-");
    }
}

fn compare(count: usize, ours: &Work, theirs: Option<&Work>) {
    let name = if count == 1 { "one client".to_owned() } else { format!("{count} writers") };
    let rate = format!("{:.0} /s", ours.rate);
    if count == 1 {
        let bound = Duration::from_millis(1);
        at_most(&format!("committed write, {name}, p50"), ours.samples.quantile(0.5), bound);
        note(&format!("committed writes, {name}"), &rate);
    } else {
        line(&format!("committed writes, {name}"), &rate, ">= 3000 /s", ours.rate >= 3000.0);
        note(&format!("committed write, {name}, p50"), &ms(ours.samples.quantile(0.5)));
    }
    note(&format!("committed write, {name}, p99"), &ms(ours.samples.quantile(0.99)));
    if let Some(theirs) = theirs {
        note(&format!("  etcd, {name}, p50"), &ms(theirs.samples.quantile(0.5)));
        note(&format!("  etcd, {name}, p99"), &ms(theirs.samples.quantile(0.99)));
        note(&format!("  etcd, {name}"), &format!("{:.0} /s", theirs.rate));
        note(
            &format!("  writes each second, times etcd's, {name}"),
            &format!("{:.2}", ours.rate / theirs.rate),
        );
    }
}

/// All rounds' samples, and the median rate.
pub(crate) fn together(rounds: Vec<Work>) -> Work {
    let mut rates: Vec<f64> = rounds.iter().map(|round| round.rate).collect();
    rates.sort_by(f64::total_cmp);
    let mut all = Work { rate: rates.get(rates.len() / 2).copied().unwrap_or_default(), ..Work::default() };
    rounds.into_iter().for_each(|round| all.samples.join(round.samples));
    all
}

/// From the acknowledgement of a change until every member has it in force. The call that waits for that is part of it,
/// so the figure is an upper bound.
async fn changes(api: &Api, backend: &str) -> Samples {
    let mut samples = Samples::default();
    for number in 0..CHANGES {
        let revision = set_weight(api, backend, 2 + (number % 200) as u32).await.unwrap();
        let acknowledged = Instant::now();
        let request = WaitForRevisionRequest { revision, timeout: None };
        let mut progress = api.cluster().wait_for_revision(request).await.unwrap().into_inner();
        while let Some(message) = progress.message().await.unwrap() {
            assert_eq!(message.result(), WaitResult::InForce, "{message:?}");
        }
        samples.add(acknowledged.elapsed());
    }
    samples
}

/// From SIGKILL to the leader until a survivor has taken a write.
pub(crate) async fn leader_killed(cluster: &mut Cluster, round: usize) -> Duration {
    cluster.agreed().await;
    let leader = cluster.leader().await;
    let survivors: Vec<Api> =
        (0..3).filter(|number| *number != leader).map(|number| cluster.api(number)).collect();
    for api in &survivors {
        api.status().await.unwrap();
    }
    let start = Instant::now();
    cluster.members[leader].kill();
    let taken = 'accepted: loop {
        for api in &survivors {
            let pool_id = format!("kill-{round}");
            let request =
                CreatePoolRequest { pool_id, request_id: format!("kill-{round}"), ..Default::default() };
            match tokio::time::timeout(Duration::from_millis(100), api.pools().create_pool(request)).await {
                Ok(Ok(_)) => break 'accepted start.elapsed(),
                Ok(Err(status))
                    if status.code() != Code::Unavailable && status.code() != Code::DeadlineExceeded =>
                {
                    panic!("{status}")
                }
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    cluster.members[leader].start();
    taken
}

async fn failover(cluster: &mut Cluster) {
    let mut samples = Samples::default();
    for round in 0..KILLS {
        samples.add(leader_killed(cluster, round).await);
    }
    let name = |what: &str| format!("leader killed -> next write accepted, {what} of {KILLS}");
    at_most(&name("median"), samples.quantile(0.5), Duration::from_millis(700));
    at_most(&name("maximum"), samples.quantile(1.0), Duration::from_millis(1200));
}

/// Ten thousand backends in a hundred pools.
async fn ten_thousand(trestled: &Path) {
    let mut cluster = Cluster::start(trestled, 3).await;
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    let start = Instant::now();
    join_all((0..100).map(|pool| {
        let api = api.clone();
        async move {
            let name = format!("pool-{pool}");
            api.create_pool(&name, None).await.unwrap();
            for backend in 0..100 {
                let address = format!("127.200.{pool}.{}:9", backend + 1);
                api.create_backend(&name, &format!("b{backend}"), address).await.unwrap();
            }
        }
    }))
    .await;
    note(
        "10 000 backends, written one by one by 100 writers",
        &format!("{:.1} s", start.elapsed().as_secs_f64()),
    );
    cluster.agreed().await;
    let samples = changes(&api, "pools/pool-50/backends/b50").await;
    let bound = Duration::from_millis(20);
    note("10 000 backends: change in force on three, p50", &ms(samples.quantile(0.5)));
    at_most("10 000 backends: change in force on three, p99", samples.quantile(0.99), bound);
    let resident = cluster.members.iter_mut().map(|member| member.usage().resident).max().unwrap_or_default();
    note("10 000 backends: resident memory (the largest)", &format!("{:.1} MB", resident as f64 / 1e6));
}
