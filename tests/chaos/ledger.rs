//! A client that makes pools, one after the other, and remembers which of them were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use trestle_api::v1::{Consistency, CreatePoolRequest, ListPoolsRequest, Pool};
use trestle_testkit::Api;
use trestle_testkit::lab::{Lab, Trestle};

use crate::findings::{Findings, Invariant};
use crate::registers::{Entrances, block_on};

/// Time between two of them.
const PACE: Duration = Duration::from_millis(50);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(2);
/// How long a member has to say what it has.
const LIMIT: Duration = Duration::from_secs(30);

/// What was acknowledged, and what cannot be, in words.
#[derive(Debug, Default)]
struct Entries {
    acknowledged: Vec<String>,
    asked: usize,
    twice: Vec<String>,
}

/// A client at work.
#[derive(Debug)]
pub(crate) struct Ledger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Entries>,
}

impl Ledger {
    pub(crate) fn start(lab: &Lab, product: &Trestle, seed: u64) -> Self {
        let (stop, entrances) = (Arc::new(AtomicBool::new(false)), Entrances::of(product));
        let stopped = stop.clone();
        let thread =
            lab.client.thread(move || block_on(async { create(&entrances(), seed, &stopped).await }));
        Self { stop, thread }
    }

    /// Ends it, and compares with what each member has; answers how many pools were acknowledged.
    pub(crate) fn finish(self, lab: &Lab, product: &Trestle, findings: &mut Findings) -> usize {
        self.stop.store(true, Ordering::Release);
        let entries = self.thread.join().unwrap();
        entries.twice.iter().for_each(|what| findings.add(Invariant::AppliedOnce, what));
        let entrances = Entrances::of(product);
        let listed = lab.client.thread(move || block_on(async { local_pools(&entrances()).await }));
        for (number, pools) in listed.join().unwrap().into_iter().enumerate() {
            let pools = match pools {
                Ok(pools) => pools,
                Err(why) => {
                    findings.add(Invariant::NothingLost, format!("m{} does not say: {why}", number + 1));
                    continue;
                }
            };
            let lost: Vec<_> = entries
                .acknowledged
                .iter()
                .filter(|name| !pools.contains(&format!("pools/{name}")))
                .collect();
            if !lost.is_empty() {
                findings.add(Invariant::NothingLost, format!("m{} has not {lost:?}", number + 1));
            }
            let made = pools.iter().filter(|name| name.starts_with("pools/made-")).count();
            if made > entries.asked {
                let what = format!("m{} has {made} of {} pools", number + 1, entries.asked);
                findings.add(Invariant::AppliedOnce, what);
            }
        }
        entries.acknowledged.len()
    }
}

async fn create(entrances: &Entrances, seed: u64, stop: &AtomicBool) -> Entries {
    let (mut entries, mut random) = (Entries::default(), fastrand::Rng::with_seed(seed));
    while !stop.load(Ordering::Acquire) {
        let name = format!("made-{:06}", entries.asked);
        entries.asked += 1;
        let request = CreatePoolRequest {
            pool_id: name.clone(),
            pool: Some(Pool::default()),
            request_id: format!("ledger-{seed}-{name}"),
            ..CreatePoolRequest::default()
        };
        while !stop.load(Ordering::Acquire) {
            let mut pools = entrances.any(&mut random).pools();
            match timeout(TRY, pools.create_pool(request.clone())).await {
                Ok(Ok(_)) => {
                    entries.acknowledged.push(name);
                    break;
                }
                Ok(Err(status)) if status.code() == Code::AlreadyExists => {
                    entries.twice.push(format!("{name}: {status}"));
                    break;
                }
                _ => sleep(PACE).await,
            }
        }
        sleep(PACE).await;
    }
    entries
}

/// The names of all pools, as each member has them.
async fn local_pools(entrances: &Entrances) -> Vec<Result<Vec<String>, String>> {
    let mut found = Vec::new();
    for api in entrances.all() {
        let start = Instant::now();
        found.push(loop {
            match names(api).await {
                Err(_) if start.elapsed() < LIMIT => sleep(PACE).await,
                other => break other.map_err(|status| status.to_string()),
            }
        });
    }
    found
}

async fn names(api: &Api) -> Result<Vec<String>, tonic::Status> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListPoolsRequest { page_size: 1000, page_token, consistency: Consistency::Local.into() };
        let page = api.pools().list_pools(request).await?.into_inner();
        names.extend(page.pools.into_iter().map(|pool| pool.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(names);
        }
    }
}
