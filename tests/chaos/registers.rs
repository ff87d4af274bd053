//! Clients that read and write registers through the API of any member, and record what they asked and were told.
//!
//! A register is an annotation of a pool. A write that depends on what is there names the pool's etag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use trestle_api::v1::{CreatePoolRequest, GetPoolRequest, Pool, UpdatePoolRequest};
use trestle_testkit::Api;
use trestle_testkit::history::{RecordedCall, Recorder, RegisterCall};
use trestle_testkit::lab::{Lab, Trestle};

/// Registers. Few, so that clients meet at them.
pub(crate) const REGISTERS: usize = 3;
/// Clients.
const CLIENTS: usize = 4;
/// Time between two calls of one client: what a small machine has to spare.
const PACE: Duration = Duration::from_millis(25);
/// How long one try of a call may take.
const TRY: Duration = Duration::from_secs(2);
/// How long a write is repeated before it counts as never answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// The annotation.
const KEY: &str = "value";

/// What the clients share.
#[derive(Debug)]
struct Shared {
    recorder: Recorder,
    stop: AtomicBool,
    /// The last value that was written; each is written once.
    last: AtomicU64,
    /// Sets the request ids of one run apart.
    seed: u64,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Registers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

/// What came of a write.
enum Outcome {
    Applied,
    /// The etag was not the current one.
    Refused,
    /// It may have been applied.
    Unknown,
    /// It cannot have been answered so, in words.
    Wrong(String),
}

/// Clients of all members, in the runtime of the thread that calls.
pub(crate) struct Entrances(Vec<Api>);

impl Entrances {
    /// How a thread on another machine gets them.
    pub(crate) fn of(product: &Trestle) -> impl FnOnce() -> Self + Send + 'static {
        let addresses: Vec<_> = product.members.iter().map(|member| member.admin()).collect();
        let user = product.user().cloned();
        move || Self(addresses.into_iter().map(|admin| Api::of(admin, user.as_ref())).collect())
    }

    pub(crate) fn any(&self, random: &mut fastrand::Rng) -> &Api {
        &self.0[random.usize(..self.0.len())]
    }

    pub(crate) fn all(&self) -> &[Api] {
        &self.0
    }
}

/// Runs a future of a thread on another machine.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn pool(register: usize) -> String {
    format!("register-{register}")
}

fn annotated(register: usize, value: u64, etag: &str) -> Pool {
    let annotations = [(KEY.to_owned(), value.to_string())].into();
    Pool { name: format!("pools/{}", pool(register)), etag: etag.to_owned(), annotations, ..Pool::default() }
}

impl Registers {
    /// Makes registers that have 0, and clients of them.
    pub(crate) fn start(lab: &Lab, product: &Trestle, seed: u64) -> Self {
        let entrances = Entrances::of(product);
        lab.client.thread(move || block_on(async { create(&entrances()).await })).join().unwrap();
        let recorder = Recorder::new(REGISTERS);
        let shared =
            Arc::new(Shared { recorder, stop: AtomicBool::new(false), last: AtomicU64::new(0), seed });
        let client = |number| {
            let (entrances, shared) = (Entrances::of(product), shared.clone());
            lab.client.thread(move || block_on(async { client(&entrances(), &shared, number).await }))
        };
        Self { threads: (0..CLIENTS).map(client).collect(), shared }
    }

    /// Ends the clients, reads every register once more, and gives the histories; with answers that cannot be, in words.
    pub(crate) fn finish(self, lab: &Lab, product: &Trestle) -> (Vec<Vec<RecordedCall>>, Vec<String>) {
        self.shared.stop.store(true, Ordering::Release);
        let mut wrong: Vec<String> =
            self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let (entrances, shared) = (Entrances::of(product), self.shared.clone());
        let last = move || block_on(async { read_all(&entrances(), &shared).await });
        wrong.extend(lab.client.thread(last).join().unwrap());
        (self.shared.recorder.histories(), wrong)
    }
}

async fn create(entrances: &Entrances) {
    let mut random = fastrand::Rng::new();
    for register in 0..REGISTERS {
        let request = CreatePoolRequest {
            pool_id: pool(register),
            pool: Some(annotated(register, 0, "")),
            request_id: format!("create-{register}"),
            ..CreatePoolRequest::default()
        };
        let start = Instant::now();
        while let Err(status) = entrances.any(&mut random).pools().create_pool(request.clone()).await {
            assert!(start.elapsed() < PATIENCE, "no register can be made: {status}");
            sleep(PACE).await;
        }
    }
}

/// Asks and records until it is told to stop; answers what cannot be, in words.
async fn client(entrances: &Entrances, shared: &Shared, number: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(shared.seed ^ number as u64);
    let mut seen: BTreeMap<usize, (u64, String)> = BTreeMap::new();
    let mut wrong = Vec::new();
    while !shared.stop.load(Ordering::Acquire) {
        let register = random.usize(..REGISTERS);
        let done = match (random.u8(..10), seen.get(&register)) {
            (0..5, _) => read(entrances, shared, &mut random, (register, number)).await.map(|found| {
                seen.extend(found.map(|found| (register, found)));
            }),
            (8.., Some((value, etag))) => {
                let expected = Some((*value, etag.clone()));
                write(entrances, shared, &mut random, (register, number), expected).await
            }
            _ => write(entrances, shared, &mut random, (register, number), None).await,
        };
        wrong.extend(done.err());
        sleep(PACE).await;
    }
    wrong
}

/// Reads once, of any member; an answer that does not come is no answer.
async fn read(
    entrances: &Entrances,
    shared: &Shared,
    random: &mut fastrand::Rng,
    (register, number): (usize, usize),
) -> Result<Option<(u64, String)>, String> {
    let start = shared.recorder.now();
    let request = GetPoolRequest { name: format!("pools/{}", pool(register)), ..GetPoolRequest::default() };
    let mut pools = entrances.any(random).pools();
    match timeout(TRY, pools.get_pool(request)).await {
        Ok(Ok(answer)) => {
            let pool = answer.into_inner();
            let value = pool.annotations.get(KEY).and_then(|value| value.parse().ok());
            let value = value.ok_or_else(|| format!("register {register} has no value: {pool:?}"))?;
            shared.recorder.answered(register, number, start, RegisterCall::Read(value));
            Ok(Some((value, pool.etag)))
        }
        Ok(Err(status)) if is_impossible(&status) => Err(format!("read of register {register}: {status}")),
        _ => Ok(None),
    }
}

/// Writes a new value, where the register still has what is expected.
async fn write(
    entrances: &Entrances,
    shared: &Shared,
    random: &mut fastrand::Rng,
    (register, number): (usize, usize),
    expected: Option<(u64, String)>,
) -> Result<(), String> {
    let value = shared.last.fetch_add(1, Ordering::Relaxed) + 1;
    let etag = expected.as_ref().map(|(_, etag)| etag.as_str()).unwrap_or_default();
    let request = UpdatePoolRequest {
        pool: Some(annotated(register, value, etag)),
        update_mask: Some(prost_types::FieldMask { paths: vec!["annotations".to_owned()] }),
        request_id: format!("chaos-{}-{value}", shared.seed),
        validate_only: false,
    };
    let call = match &expected {
        Some((from, _)) => RegisterCall::Swap(*from, value),
        None => RegisterCall::Write(value),
    };
    let start = shared.recorder.now();
    // One in six is tried once: whoever does not repeat does not know.
    let patience = if random.u8(..6) == 0 { Duration::ZERO } else { PATIENCE };
    match persist(entrances, shared, random, &request, patience).await {
        Outcome::Applied => shared.recorder.answered(register, number, start, call),
        Outcome::Refused => {
            let (from, _) = expected.ok_or_else(|| format!("{call:?} without an etag is refused for it"))?;
            shared.recorder.answered(register, number, start, RegisterCall::Refused(from));
        }
        Outcome::Unknown => shared.recorder.unknown(register, number, start, call),
        Outcome::Wrong(why) => return Err(format!("{call:?} of register {register}: {why}")),
    }
    Ok(())
}

/// Repeats a write under its id, at any members, until it is answered.
async fn persist(
    entrances: &Entrances,
    shared: &Shared,
    random: &mut fastrand::Rng,
    request: &UpdatePoolRequest,
    patience: Duration,
) -> Outcome {
    let start = Instant::now();
    loop {
        let mut pools = entrances.any(random).pools();
        match timeout(TRY, pools.update_pool(request.clone())).await {
            Ok(Ok(_)) => return Outcome::Applied,
            Ok(Err(status)) if status.code() == Code::Aborted => return Outcome::Refused,
            Ok(Err(status)) if is_impossible(&status) => return Outcome::Wrong(status.to_string()),
            _ if start.elapsed() >= patience || shared.stop.load(Ordering::Acquire) => {
                return Outcome::Unknown;
            }
            _ => sleep(PACE).await,
        }
    }
}

/// Answers that no member may give about a register, which is there all the time.
fn is_impossible(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::AlreadyExists | Code::InvalidArgument | Code::DataLoss)
}

async fn read_all(entrances: &Entrances, shared: &Shared) -> Vec<String> {
    let mut random = fastrand::Rng::new();
    let mut wrong = Vec::new();
    for register in 0..REGISTERS {
        let start = Instant::now();
        loop {
            match read(entrances, shared, &mut random, (register, CLIENTS)).await {
                Ok(Some(_)) => break,
                Ok(None) if start.elapsed() < PATIENCE => sleep(PACE).await,
                Ok(None) => {
                    wrong.push(format!("register {register} cannot be read in the end"));
                    break;
                }
                Err(why) => {
                    wrong.push(why);
                    break;
                }
            }
        }
    }
    wrong
}
