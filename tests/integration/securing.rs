//! A cluster that serves gets identities, under writers and clients of a service, none of whom notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::Status;
use trestle_api::v1::{
    CreatePoolRequest, EnrollMemberRequest, SecureClusterRequest, TransportSecurity, UserRole,
};
use trestle_testkit::{Api, Cluster, Origin, Traffic, fetch_http, wait_until};

use crate::guests::LIMIT;
use crate::trestled;

/// One client of the admin API that makes one pool after the other, and never repeats a call.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: JoinHandle<Vec<Status>>,
}

impl Writer {
    fn start(api: Api, name: String) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), written.clone());
        let task = tokio::spawn(async move {
            let mut failed = Vec::new();
            while !stopped.load(Relaxed) {
                let number = counted.fetch_add(1, Relaxed);
                let pool_id = format!("{name}-{number}");
                let request = CreatePoolRequest { pool_id, ..CreatePoolRequest::default() };
                failed.extend(api.pools().create_pool(request).await.err());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            failed
        });
        Self { stop, written, task }
    }

    /// Waits until so many more writes are done.
    async fn goes_on(&self, count: u64) {
        let goal = self.written.load(Relaxed) + count;
        wait_until("writes", LIMIT, async || match self.written.load(Relaxed) {
            now if now >= goal => Ok(()),
            now => Err(format!("{now} of {goal}")),
        })
        .await;
    }

    /// Ends it, which no call may have failed for.
    async fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        let failed = self.task.await.unwrap();
        assert!(failed.is_empty(), "{} calls failed, as: {:?}", failed.len(), failed.first());
        self.written.load(Relaxed)
    }
}

fn writers(cluster: &Cluster, kind: &str, of: impl Fn(usize) -> Api) -> Vec<Writer> {
    let one = |number: usize| Writer::start(of(number), format!("{kind}-{number}"));
    (0..cluster.members.len()).map(one).collect()
}

async fn all_go_on(writers: &[Writer]) {
    for writer in writers {
        writer.goes_on(20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_writers_nor_clients_notice_that_members_begin_to_prove_who_they_are() {
    // Elections are none of this, and a busy machine has some.
    let mut cluster = Cluster::start_with(trestled(), 3, "profile = \"wide\"\n").await;
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();
    let before = cluster.agreed().await;
    let fronts: Vec<_> = cluster.members.iter().map(|member| (member.ip, 8080).into()).collect();
    let traffic = Traffic::start(&fronts, fetch_http);
    traffic.next(50);
    let plain = writers(&cluster, "plain", |number| cluster.members[number].api());
    all_go_on(&plain).await;

    let root = cluster.members[0].local_api();
    let accept = |transport: TransportSecurity| SecureClusterRequest {
        transport: transport.into(),
        refuse_plain_clients: true,
        ..SecureClusterRequest::default()
    };
    root.cluster().secure_cluster(accept(TransportSecurity::Accept)).await.unwrap();
    for member in &cluster.members {
        member.local_api().members().enroll_member(EnrollMemberRequest::default()).await.unwrap();
        all_go_on(&plain).await;
    }
    // Clients change one after the other, while plain calls are still taken.
    let ann = root.new_user("ann", UserRole::Admin).await.unwrap();
    // Each member knows of a new user once the entry has come to it.
    for member in &cluster.members {
        let api = Api::of(member.admin(), Some(&ann));
        let let_in = async || api.status().await.map_err(|status| status.to_string());
        wait_until("a new user at every member", LIMIT, let_in).await;
    }
    let known = writers(&cluster, "known", |number| Api::of(cluster.members[number].admin(), Some(&ann)));
    all_go_on(&known).await;
    let mut written = 0;
    for writer in plain {
        written += writer.end().await;
    }
    wait_until("plain connections to be refused", LIMIT, async || {
        let done = root.cluster().secure_cluster(accept(TransportSecurity::Require)).await;
        done.map(drop).map_err(|status| status.to_string())
    })
    .await;
    all_go_on(&known).await;
    // The way back, by root alone, and forth again: still nobody notices.
    root.cluster().secure_cluster(accept(TransportSecurity::Accept)).await.unwrap();
    all_go_on(&known).await;
    root.cluster().secure_cluster(accept(TransportSecurity::Require)).await.unwrap();
    all_go_on(&known).await;
    for writer in known {
        written += writer.end().await;
    }
    traffic.next(50);
    traffic.stop().assert_no_failure();
    let after = Api::of(cluster.members[0].admin(), Some(&ann)).status().await.unwrap();
    assert_eq!(after.term, before.term, "there was an election");
    assert!(written >= 400, "{written}");
}
