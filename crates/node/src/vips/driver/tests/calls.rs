//! What the driver asks of the kernel and of Raft, and what it tells the machine of that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::ownership::{Elected, LeaseTiming, OwnershipEvent, OwnershipState};
use trestle_model::{Command, MemberId, Tenure};
use trestle_vip::KernelEvent;

use super::super::Driver;
use super::fakes::{Asked, FakeClock, FakeLedger, FakeMachine, configured, driver, vip};
use crate::vips::command::VipCommand;
use crate::vips::shared::Shared;

const ME: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Bench {
    now: Duration,
    clock: FakeClock,
    machine: FakeMachine,
    ledger: FakeLedger,
    shared: Arc<Shared>,
    driver: Driver,
}

impl Bench {
    /// A member that knows who it is and which virtual IP there is.
    fn new() -> Self {
        let clock = FakeClock::new(Instant::now());
        let machine = FakeMachine::new(clock.clone());
        let ledger = FakeLedger::default();
        let shared = Arc::new(Shared::new(LeaseTiming::default(), Box::new(clock.clone())));
        let driver = driver(&shared, &machine, &ledger);
        let mut bench = Self { now: ms(0), clock, machine, ledger, shared, driver };
        bench.driver.handle(VipCommand::Begin(ME));
        bench.driver.handle(VipCommand::State(configured()));
        bench
    }

    fn tell(&mut self, event: OwnershipEvent) {
        self.driver.handle(VipCommand::Event(event));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock.set(self.now);
        self.machine.lease_tick();
        self.driver.tick();
    }

    fn ack(&mut self, term: u64) {
        self.tell(OwnershipEvent::QuorumAcked { term, sent: self.now });
    }

    /// Leads in term 1, with a tenure that is agreed.
    fn serving() -> Self {
        let mut bench = Self::new();
        bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
        bench.tell(OwnershipEvent::Applied { term: 1, tenure: None });
        assert_eq!(bench.proposed().len(), 1);
        bench.agree(false);
        bench.ack(1);
        assert!(bench.machine.is_open(vip()));
        bench
    }

    fn agree(&mut self, released: bool) {
        let tenure = Tenure { member: ME, term: 1, reach: LeaseTiming::default().reach(), released };
        self.tell(OwnershipEvent::Applied { term: 1, tenure: Some(tenure) });
    }

    fn proposed(&self) -> Vec<Command> {
        let asked = self.ledger.take().into_iter();
        asked
            .filter_map(|asked| match asked {
                Asked::Propose { command, term: 1, .. } => Some(*command),
                _ => None,
            })
            .collect()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.machine.tables().calls)
    }
}

#[test]
fn what_an_earlier_run_left_is_removed_before_anything_is_claimed() {
    let bench = Bench::serving();
    assert_eq!(bench.calls(), ["open", "claim 10.0.3.100/24 on eth0"]);
}

#[test]
fn a_release_that_fails_is_not_told_as_done_and_is_tried_again() {
    let mut bench = Bench::serving();
    bench.machine.tables().fails.release = true;
    bench.calls();
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    bench.tell(OwnershipEvent::Move { to: Some(OTHER) });
    bench.pass(ms(100));
    assert_eq!(bench.calls(), ["quiesce", "release 10.0.3.100"]);
    assert!(bench.machine.is_open(vip()) && bench.proposed().is_empty(), "it may still be served here");
    bench.pass(ms(100));
    assert_eq!(bench.calls(), ["release 10.0.3.100"]);
    bench.machine.tables().fails.release = false;
    bench.pass(ms(50));
    bench.pass(ms(50));
    assert!(!bench.machine.is_open(vip()));
    assert!(matches!(bench.proposed()[..], [Command::ReleaseVips { member: ME, term: 1, .. }]));
}

#[test]
fn a_release_that_goes_on_failing_waits_for_the_fence() {
    let mut bench = Bench::serving();
    bench.machine.tables().fails.release = true;
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    bench.tell(OwnershipEvent::Move { to: Some(OTHER) });
    bench.pass(ms(291));
    assert!(bench.proposed().is_empty());
    bench.pass(ms(1));
    assert!(matches!(bench.proposed()[..], [Command::ReleaseVips { .. }]));
}

#[test]
fn leadership_goes_only_once_the_release_is_on_record() {
    let mut bench = Bench::serving();
    bench.tell(OwnershipEvent::Targets(vec![OTHER]));
    bench.tell(OwnershipEvent::Move { to: Some(OTHER) });
    bench.pass(ms(100));
    assert!(matches!(bench.ledger.take()[..], [Asked::Propose { .. }]));
    bench.agree(true);
    assert!(matches!(bench.ledger.take()[..], [Asked::Transfer(OTHER)]));
}

#[test]
fn one_record_waits_for_its_answer_at_a_time() {
    let mut bench = Bench::new();
    bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
    bench.tell(OwnershipEvent::Applied { term: 1, tenure: None });
    let first = bench.ledger.take();
    assert_eq!(first.len(), 1);
    bench.pass(ms(100));
    assert!(bench.ledger.take().is_empty(), "the first one is under way");
    drop(first);
    bench.pass(ms(100));
    assert_eq!(bench.ledger.take().len(), 1);
}

#[test]
fn a_claim_that_fails_is_told_with_its_reason_until_it_works() {
    let mut bench = Bench::new();
    bench.machine.tables().fails.claim = true;
    bench.tell(OwnershipEvent::Leading { term: 1, elected: Elected::ByTimeout });
    bench.agree(false);
    bench.ack(1);
    assert!(bench.shared.status().refused[&vip()].contains("switched off"));
    bench.machine.tables().fails.claim = false;
    bench.pass(ms(100));
    assert!(bench.shared.status().refused.is_empty() && bench.machine.is_open(vip()));
}

#[test]
fn a_kernel_that_cannot_be_opened_is_told_and_tried_again() {
    let mut bench = Bench::new();
    let shared = bench.shared.clone();
    bench.driver = driver(&shared, &bench.machine, &bench.ledger);
    bench.machine.tables().fails.open = true;
    bench.driver.handle(VipCommand::Begin(ME));
    bench.driver.handle(VipCommand::State(configured()));
    assert!(shared.status().unable.is_some() && !bench.driver.has_kernel());
    bench.machine.tables().fails.open = false;
    bench.pass(ms(4_999));
    bench.driver.poll();
    assert!(shared.status().unable.is_some());
    bench.pass(ms(1));
    bench.driver.poll();
    assert!(shared.status().unable.is_none() && bench.driver.has_kernel());
}

#[test]
fn an_address_that_is_lost_is_put_back() {
    let mut bench = Bench::serving();
    bench.pass(ms(200));
    bench.ack(1);
    bench.machine.lose_address(vip());
    bench.calls();
    bench.driver.handle(VipCommand::Kernel(KernelEvent::AddressLost(vip())));
    assert_eq!(bench.calls(), ["claim 10.0.3.100/24 on eth0", "restore 10.0.3.100"]);
}

#[test]
fn announcements_keep_the_promised_times() {
    let mut bench = Bench::serving();
    let base = bench.shared.instant(ms(0));
    while bench.now < ms(16_000) {
        bench.pass(ms(10));
        bench.ack(1);
    }
    let sent = |bench: &Bench| -> Vec<u128> {
        let sent = std::mem::take(&mut bench.machine.tables().announced);
        sent.into_iter().map(|at| at.duration_since(base).as_millis()).collect()
    };
    assert_eq!(sent(&bench), [0, 50, 150, 400, 1000, 2000, 5000, 15_000]);
    bench.driver.handle(VipCommand::Kernel(KernelEvent::LinkUp("eth0".to_owned())));
    bench.pass(ms(50));
    assert_eq!(sent(&bench), [16_000, 16_050]);
    let mac = trestle_vip::Mac([2; 6]);
    for _ in 0..3 {
        bench.driver.handle(VipCommand::Kernel(KernelEvent::Conflict { address: vip(), mac }));
    }
    assert_eq!(sent(&bench), [16_050], "one answer in ten seconds");
}

#[test]
fn answers_from_before_the_machine_slept_prove_nothing() {
    let mut bench = Bench::serving();
    bench.pass(ms(100));
    bench.driver.handle(VipCommand::Kernel(KernelEvent::Slept));
    bench.tell(OwnershipEvent::QuorumAcked { term: 1, sent: ms(99) });
    bench.pass(ms(180));
    assert_eq!(bench.shared.machine().as_ref().unwrap().state(bench.now), OwnershipState::WithoutQuorum);
    bench.ack(1);
    let state = bench.shared.machine().as_ref().unwrap().state(bench.now);
    assert!(matches!(state, OwnershipState::Serving { .. }), "{state:?}");
}

#[test]
fn a_removed_member_holds_nothing_and_forgets_who_it_was() {
    let mut bench = Bench::serving();
    bench.driver.handle(VipCommand::Withdraw);
    assert!(!bench.machine.is_open(vip()) && !bench.driver.has_kernel());
    assert!(bench.shared.machine().is_none());
    bench.calls();
    bench.driver.handle(VipCommand::State(configured()));
    assert!(bench.calls().is_empty(), "what a removed member hears is nobody's configuration");
}

#[test]
fn it_asks_to_be_woken_before_the_lease_ends() {
    let bench = Bench::serving();
    let wake = bench.driver.wake().unwrap();
    assert!(wake <= bench.shared.instant(ms(280)));
}

#[test]
fn a_deadline_of_before_is_not_waited_for_again() {
    let mut bench = Bench::serving();
    assert!(bench.driver.wake().is_some(), "it announces");
    bench.tell(OwnershipEvent::Following);
    bench.pass(ms(60_000));
    assert_eq!(bench.driver.wake(), None, "it holds nothing, and nothing is due");
}
