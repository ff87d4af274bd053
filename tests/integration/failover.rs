//! Members are killed while a client writes: nothing that was acknowledged is lost, and all members agree.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use trestle_api::v1::{Consistency, CreatePoolRequest, ListPoolsRequest, Pool};
use trestle_testkit::{Api, Cluster, wait_until};

use crate::trestled;

/// A client that creates pools, one after the other, and goes to another member when one does not answer. Every name is
/// sent with one request id until it is acknowledged.
struct Writer {
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(cluster: &Cluster) -> Self {
        let apis: Vec<Api> = (0..cluster.members.len()).map(|number| cluster.api(number)).collect();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (names, stopped) = (acknowledged.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut calls = 0;
            for number in 0.. {
                let name = format!("pool-{number:06}");
                while !stopped.load(Ordering::Acquire) {
                    let api = &apis[calls % apis.len()];
                    calls += 1;
                    let (pool_id, request_id) = (name.clone(), format!("writer-{number}"));
                    let pool = Some(Pool::default());
                    let request = CreatePoolRequest { pool_id, pool, request_id, ..Default::default() };
                    let mut pools = api.pools();
                    let call = pools.create_pool(request);
                    match tokio::time::timeout(Duration::from_secs(2), call).await {
                        Ok(Ok(_)) => break,
                        Ok(Err(status)) if status.code() == tonic::Code::AlreadyExists => {
                            panic!("{name} was applied twice: {status}")
                        }
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                names.lock().unwrap().push(name);
            }
        });
        Self { acknowledged, stop, task }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until `more` writes were acknowledged from now on; answers how long the first took.
    async fn progress(&self, more: usize) -> Duration {
        let (start, before) = (Instant::now(), self.count());
        let mut first = None;
        wait_until("acknowledged writes", Duration::from_secs(60), async || {
            let new = self.count() - before;
            if new > 0 {
                first.get_or_insert(start.elapsed());
            }
            if new >= more { Ok(()) } else { Err(format!("{new} of {more}")) }
        })
        .await;
        first.unwrap_or_default()
    }

    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap();
        let names = self.acknowledged.lock().unwrap();
        names.clone()
    }
}

/// Names of all pools, as the member itself has them.
async fn local_pools(api: &Api) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListPoolsRequest { page_size: 1000, page_token, consistency: Consistency::Local.into() };
        let page = api.pools().list_pools(request).await.unwrap().into_inner();
        names.extend(page.pools.into_iter().map(|pool| pool.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

/// Every acknowledged pool is on every member, and they all agree.
async fn nothing_is_lost(cluster: &mut Cluster, acknowledged: &[String]) {
    let status = cluster.agreed().await;
    assert_eq!(status.members.len(), cluster.members.len());
    for number in 0..cluster.members.len() {
        let pools = local_pools(&cluster.api(number)).await;
        let lost: Vec<_> =
            acknowledged.iter().filter(|name| !pools.contains(&format!("pools/{name}"))).collect();
        assert!(lost.is_empty(), "acknowledged, but not on m{}: {lost:?}", number + 1);
        // The write that was under way when the writer stopped may be there or not.
        assert!(
            pools.len() <= acknowledged.len() + 1,
            "{} pools, {} asked for",
            pools.len(),
            acknowledged.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_takes_no_acknowledged_write_along() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let writer = Writer::start(&cluster);
    for round in 0..3 {
        writer.progress(20).await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        let pause = writer.progress(20).await;
        let next = cluster.leader().await;
        eprintln!("round {round}: m{} killed, m{} leads, first write after {pause:?}", leader + 1, next + 1);
        assert_ne!(next, leader);
        cluster.members[leader].start();
        cluster.agreed_under_load().await;
    }
    let acknowledged = writer.stop().await;
    nothing_is_lost(&mut cluster, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_killed_at_once_come_back_with_everything() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let writer = Writer::start(&cluster);
    for _ in 0..3 {
        writer.progress(30).await;
        cluster.members.iter_mut().for_each(|member| member.kill());
        cluster.members.iter_mut().for_each(|member| member.start());
        writer.progress(10).await;
    }
    let acknowledged = writer.stop().await;
    nothing_is_lost(&mut cluster, &acknowledged).await;
}
