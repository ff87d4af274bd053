//! The owner of a simulated member: the same driver, without a thread. Whoever simulates says when it runs, and is its kernel.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use trestle_consensus::{Consensus, VoteGuard};
use trestle_engine::ownership::{LeaseTiming, OwnershipEvent};
use trestle_model::{MemberId, MemberName};

use super::command::VipCommand;
use super::driver::{Driver, Identity};
use super::fit::OwnAddresses;
use super::raft_events;
use super::shared::{Shared, SystemClock, VipVoteGuard};
use crate::events::Journal;

pub use super::kernel::{Host, Kernel};

/// Longest time between two looks at what nothing reports, as of the thread.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What owns the virtual IPs of a simulated member.
pub struct SimulatedOwner {
    shared: Arc<Shared>,
    commands: Sender<VipCommand>,
    queue: Receiver<VipCommand>,
    driver: Option<(Driver, Consensus)>,
    look: Instant,
}

impl SimulatedOwner {
    /// An owner of a process that has just started.
    pub fn new(lease: LeaseTiming) -> Self {
        let (commands, queue) = channel();
        let shared = Arc::new(Shared::new(lease, Box::new(SystemClock)));
        Self { shared, commands, queue, driver: None, look: Instant::now() }
    }

    /// The guard that Raft asks before each vote.
    pub fn vote_guard(&self) -> Arc<dyn VoteGuard> {
        Arc::new(VipVoteGuard(self.shared.clone()))
    }

    /// Begins, before Raft starts; on the runtime of the member.
    pub fn begin(&mut self, name: MemberName, consensus: &Consensus, host: Box<dyn Host>) {
        match consensus.identity() {
            Some(_) if consensus.was_removed() => self.tell(VipCommand::Withdraw),
            Some(identity) => self.tell(VipCommand::Begin(identity.member_id)),
            None => {}
        }
        self.tell(VipCommand::State(consensus.view().borrow().state.clone()));
        raft_events::follow_simulated(consensus, &self.shared, &self.commands);
        let identity = Identity { name: name.clone(), own: OwnAddresses::none() };
        let (ledger, journal) = (Box::new(consensus.clone()), Journal::new(name, 1, false));
        let driver = Driver::new(self.shared.clone(), identity, host, ledger, journal);
        self.driver = Some((driver, consensus.clone()));
        self.run();
    }

    fn tell(&self, command: VipCommand) {
        // Both ends are here.
        let _ = self.commands.send(command);
    }

    /// An operator wants the virtual IPs, and leadership, elsewhere.
    pub fn move_to(&self, to: Option<MemberId>) {
        self.tell_targets();
        self.tell(VipCommand::Event(OwnershipEvent::Move { to }));
    }

    fn tell_targets(&self) {
        if let Some((_, consensus)) = &self.driver {
            self.tell(VipCommand::Event(OwnershipEvent::Targets(consensus.targets())));
        }
    }

    /// Does what the thread would do at this moment; on the runtime of the member.
    pub fn run(&mut self) {
        let now = Instant::now();
        let polls = now >= self.look;
        if polls {
            self.look = now + POLL_INTERVAL;
            self.tell_targets();
        }
        let Some((driver, _)) = &mut self.driver else { return };
        self.shared.beat();
        while let Ok(command) = self.queue.try_recv() {
            driver.handle(command);
        }
        if driver.wake().is_some_and(|wake| wake <= now) {
            driver.tick();
        }
        if polls {
            driver.poll();
        }
    }
}
