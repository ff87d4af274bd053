//! Virtual IPs on this member: the machine that decides who serves them, the kernel that enforces it, and what both are
//! told. The decisions are [`trestle_engine::ownership`]'s; here they are carried out.
//!
//! One thread, the owner, is told everything and does what the machine wants ([`owner`]). It waits for nothing but its
//! queue: records and transfers are tasks on Raft's runtime. Other tasks bring the news: Raft's ([`news`]) and those of this
//! member's fitness ([`fitness`]). Votes ask the machine directly ([`VipVoteGuard`]).

mod check;
mod check_exec;
mod faults;
mod fit;
mod fitness;
mod log_watch;
mod obstacles;
mod owner;
mod raft_events;
mod silence;
mod status;
mod transfer;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use raft_events::{elected, why_it_leads};
pub(crate) use watchdog::{Systemd, Whole};

use trestle_consensus::VoteGuard;
use trestle_engine::ownership::{
    BackOff, Cause, Fault, LeaseTiming, Ownership, OwnershipEvent, OwnershipState,
};
use trestle_model::{ClusterState, MemberId, Revision};
use trestle_vip::LinuxKernel;

pub use check_exec::CheckExec;

use crate::config::{Config, Profile};
use crate::member::Member;
use faults::Faults;
use owner::{Owner, PlacementProblem};

/// What the owner is told.
pub(crate) enum VipCommand {
    /// For the machine.
    Event(OwnershipEvent),
    /// This member has an identity now, or another one than before.
    Begin(MemberId),
    /// This member was removed: release everything and leave nothing in the kernel.
    Withdraw,
    /// The configuration.
    State(Arc<ClusterState>),
    /// Something happened in the kernel.
    Kernel(trestle_vip::KernelEvent),
    /// Release everything and end.
    End,
}

/// What the owner shows of itself.
#[derive(Default)]
struct VipStatus {
    kernel: Option<Arc<LinuxKernel>>,
    /// Why the kernel cannot be used at all.
    unable: Option<String>,
    /// Where each virtual IP is, or would be, served here.
    interfaces: BTreeMap<IpAddr, String>,
    /// Those for which there is no place here.
    misplaced: BTreeMap<IpAddr, PlacementProblem>,
    /// Those that are addresses of this member or of its host, with what they are.
    own: BTreeMap<IpAddr, &'static str>,
    /// The configuration that both were found with.
    placed: Revision,
    /// Those that the machine wants to serve and the kernel would not take, with the reason.
    refused: BTreeMap<IpAddr, String>,
    /// Why another member had better hold them, with the words for it.
    faults: Faults,
    /// For which faults this member gave them up not long ago.
    back_off: BackOff,
    /// Why the operator's own checks fail, by their names; those that do.
    checks: BTreeMap<String, String>,
    /// Those whose last run failed, although they do not count as failing yet.
    doubted_checks: BTreeSet<String>,
}

/// What the owner, the votes and the status share.
pub(crate) struct Shared {
    /// Moments of the machine count from here.
    base: Instant,
    lease: LeaseTiming,
    machine: Mutex<Option<Ownership>>,
    status: Mutex<VipStatus>,
    /// What is seen of the owner.
    silence: silence::Silence,
    /// What is seen of the thread that writes the log.
    stall: log_watch::Stall,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn now(&self) -> Duration {
        self.base.elapsed()
    }

    /// A moment of the machine's clock in this process; one that is too far away for it is as good as a year from now.
    fn instant(&self, at: Duration) -> Instant {
        let far = || Instant::now() + Duration::from_secs(365 * 24 * 3600);
        self.base.checked_add(at).unwrap_or_else(far)
    }

    /// Notes that the owner runs.
    fn beat(&self) {
        self.silence.end(self.now());
    }

    /// A moment of this process on the machine's clock.
    fn moment(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.base)
    }

    fn status(&self) -> MutexGuard<'_, VipStatus> {
        locked(&self.status)
    }

    fn machine(&self) -> MutexGuard<'_, Option<Ownership>> {
        locked(&self.machine)
    }

    /// Faults for which this member still counts as unfit, there or not, with the words for it.
    fn recovering(&self) -> Vec<(Fault, String)> {
        let (now, status) = (self.now(), self.status());
        let recovering = status.back_off.recovering(now);
        let words = |(fault, rest): (Fault, Duration)| {
            let why = Cause::Unfit(fault);
            (
                fault,
                format!(
                    "it gave virtual IPs up ({why}), and counts as fit again in {} s",
                    rest.as_secs() + 1
                ),
            )
        };
        recovering.map(words).collect()
    }
}

/// Answers Raft's question whether this member may vote.
struct VipVoteGuard(Arc<Shared>);

impl VoteGuard for VipVoteGuard {
    fn may_vote(&self, term: u64) -> bool {
        let mut machine = self.0.machine();
        // A member without an identity has never held anything.
        machine.as_mut().is_none_or(|machine| machine.may_vote(term, self.0.now()))
    }

    fn voted(&self, term: u64, granted: bool) {
        if let Some(machine) = self.0.machine().as_mut() {
            machine.voted(term, granted);
        }
    }
}

fn lease(profile: Profile) -> LeaseTiming {
    match profile {
        Profile::Default => LeaseTiming::default(),
        Profile::Fast => LeaseTiming::fast(),
        Profile::Wide => LeaseTiming::wide(),
    }
}

/// This member's part in holding the virtual IPs.
pub(crate) struct Vips {
    shared: Arc<Shared>,
    commands: Sender<VipCommand>,
    /// Until the owner starts.
    queue: Mutex<Option<Receiver<VipCommand>>>,
    owner: Mutex<Option<JoinHandle<()>>>,
    /// Hand-overs that were asked for and are under way.
    moves: AtomicUsize,
}

/// A hand-over that was asked for is under way as long as this is there.
struct Moving<'a>(&'a AtomicUsize);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Vips {
    pub(crate) fn new(config: &Config) -> Self {
        let shared = Shared {
            base: Instant::now(),
            lease: lease(config.profile),
            machine: Mutex::default(),
            status: Mutex::default(),
            silence: silence::Silence::default(),
            stall: log_watch::Stall::default(),
        };
        let (commands, queue) = channel();
        let queue = Mutex::new(Some(queue));
        Self {
            shared: Arc::new(shared),
            commands,
            queue,
            owner: Mutex::default(),
            moves: AtomicUsize::new(0),
        }
    }

    /// Notes that somebody has asked for a hand-over, who knows better than the back-off to whom.
    fn moving(&self) -> Moving<'_> {
        self.moves.fetch_add(1, Ordering::Relaxed);
        Moving(&self.moves)
    }

    /// What is asked before each vote.
    pub(crate) fn vote_guard(&self) -> Arc<dyn VoteGuard> {
        Arc::new(VipVoteGuard(self.shared.clone()))
    }

    /// Starts the owner's thread and the tasks that bring it news. To be called before Raft starts.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(crate) fn start(&self, member: &Arc<Member>) -> std::io::Result<()> {
        let Some(queue) = locked(&self.queue).take() else { return Ok(()) };
        match member.id() {
            Some(_) if member.consensus.was_removed() => self.tell(VipCommand::Withdraw),
            Some(me) => self.tell(VipCommand::Begin(me)),
            None => {}
        }
        self.tell(VipCommand::State(member.consensus.view().borrow().state.clone()));
        let mut owner = Owner::new(self.shared.clone(), self.commands.clone(), member);
        // A member that restarts must not vote before its machine is there.
        let (ready, begun) = std::sync::mpsc::sync_channel(1);
        let thread = member.supervisor.thread("vip owner", move |pulse| {
            owner.begin(&queue);
            let _ = ready.send(());
            owner.run(&queue, pulse);
        })?;
        let _ = begun.recv();
        *locked(&self.owner) = Some(thread);
        raft_events::follow(member, &self.commands);
        fitness::follow(member, &self.commands);
        silence::follow(member);
        log_watch::follow(member);
        Ok(())
    }

    fn tell(&self, command: VipCommand) {
        // An owner that has ended holds nothing any more.
        let _ = self.commands.send(command);
    }

    /// Whether this member's kernel has any virtual IP, or may still serve one.
    pub(crate) fn holds_any(&self) -> bool {
        self.shared.machine().as_ref().is_some_and(|machine| machine.facts().next().is_some())
    }

    /// Whether this member leads and is handing over.
    fn is_leaving(&self) -> bool {
        let machine = self.shared.machine();
        let standing = machine.as_ref().map(|machine| machine.state(self.shared.now()));
        matches!(standing, Some(OwnershipState::Leaving { .. }))
    }

    /// Lets go of everything and ends the thread.
    pub(crate) fn end(&self) {
        self.tell(VipCommand::End);
        if let Some(thread) = locked(&self.owner).take() {
            let _ = thread.join();
        }
        // One that has panicked has left its handle on the kernel here. With the last one everything that is held goes.
        drop(self.shared.status().kernel.take());
    }

    /// The threads of the kernel's part that have ended or give no sign of life, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let Some(kernel) = self.shared.status().kernel.clone() else { return Vec::new() };
        let ended = kernel.ended_thread().map(|name| format!("thread {name} has ended"));
        let silent = kernel.silent_threads().map(|(name, silent)| {
            format!("thread {name} has given no sign of life for {} s", silent.as_secs())
        });
        ended.into_iter().chain(silent).collect()
    }

    /// Whether they all are there and alive. For one of them, the thread that keeps the leases: it waits for nobody.
    pub(crate) fn is_whole(&self) -> bool {
        if self.log_is_lost() {
            return false;
        }
        // Whoever has it now is alive.
        let Ok(status) = self.shared.status.try_lock() else { return true };
        status
            .kernel
            .as_ref()
            .is_none_or(|kernel| kernel.ended_thread().is_none() && kernel.silent_threads().next().is_none())
    }

    /// The virtual IPs that are addresses of this member itself, in words.
    pub(crate) fn own_addresses(&self) -> Vec<String> {
        let status = self.shared.status();
        let words = |(address, what): (&IpAddr, &&str)| {
            format!(
                "virtual IP {address} is {what}, so it is not served here and two hosts may answer for it: delete the virtual IP, \
                 or give this member or its host another address"
            )
        };
        status.own.iter().map(words).collect()
    }

    /// Why another member had better hold the virtual IPs, in words.
    pub(crate) fn unfit(&self) -> Vec<String> {
        let recovering = self.shared.recovering();
        let status = self.shared.status();
        let gone = |fault: Fault| !status.faults.keys().any(|key| key.fault == fault);
        let recovering = recovering.iter().filter(|(fault, _)| gone(*fault)).map(|(_, words)| words);
        let words: BTreeSet<&String> = status.faults.values().chain(recovering).collect();
        words.into_iter().cloned().collect()
    }
}
