//! This member's part in holding the virtual IPs, as the rest of the member sees it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use trestle_consensus::VoteGuard;
use trestle_engine::ownership::{Fault, LeaseTiming, OwnershipState};

use super::command::VipCommand;
use super::shared::{Shared, SystemClock, VipVoteGuard, locked};
use crate::config::{Config, Profile};

fn lease(profile: Profile) -> LeaseTiming {
    match profile {
        Profile::Default => LeaseTiming::default(),
        Profile::Fast => LeaseTiming::fast(),
        Profile::Wide => LeaseTiming::wide(),
    }
}

/// This member's part in holding the virtual IPs.
pub(crate) struct Vips {
    pub(super) shared: Arc<Shared>,
    commands: Sender<VipCommand>,
    /// The queue, until the owner takes it.
    queue: Mutex<Option<Receiver<VipCommand>>>,
    owner: Mutex<Option<JoinHandle<()>>>,
    /// Hand-overs that were asked for and are under way.
    pub(super) moves: AtomicUsize,
}

/// A requested hand-over is under way while this exists.
pub(super) struct Moving<'a>(&'a AtomicUsize);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Vips {
    pub(crate) fn new(config: &Config) -> Self {
        let shared = Shared::new(lease(config.profile), Box::new(SystemClock));
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

    /// Notes that an operator has asked for a hand-over. An operator's choice goes before the back-off.
    pub(super) fn moving(&self) -> Moving<'_> {
        self.moves.fetch_add(1, Ordering::Relaxed);
        Moving(&self.moves)
    }

    /// The guard that Raft asks before each vote.
    pub(crate) fn vote_guard(&self) -> Arc<dyn VoteGuard> {
        Arc::new(VipVoteGuard(self.shared.clone()))
    }

    /// Both ends of the owner's queue (the receiving end only once), and what is shared with the owner.
    pub(super) fn ends(&self) -> (Sender<VipCommand>, Option<Receiver<VipCommand>>, Arc<Shared>) {
        (self.commands.clone(), locked(&self.queue).take(), self.shared.clone())
    }

    /// Takes the owner's thread, which [`Vips::end`] waits for.
    pub(super) fn runs_in(&self, thread: JoinHandle<()>) {
        *locked(&self.owner) = Some(thread);
    }

    pub(super) fn tell(&self, command: VipCommand) {
        // An owner that has ended holds nothing any more.
        let _ = self.commands.send(command);
    }

    /// Whether this member's kernel has any virtual IP, or may still serve one.
    pub(super) fn holds_any(&self) -> bool {
        self.shared.machine().as_ref().is_some_and(|machine| machine.facts().next().is_some())
    }

    /// Whether this member leads and is handing over.
    pub(super) fn is_leaving(&self) -> bool {
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
        // An owner that has panicked has left its handle on the kernel here. Dropping the last handle releases everything.
        drop(self.shared.status().kernel.take());
    }

    /// The threads of the kernel's part that have ended or give no sign of life, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let Some(kernel) = self.shared.status().kernel.clone() else { return Vec::new() };
        let ended = kernel.ended_thread().map(|name| format!("thread {name} has ended"));
        let silent = kernel.silent_threads().into_iter().map(|(name, silent)| {
            format!("thread {name} has given no sign of life for {} s", silent.as_secs())
        });
        ended.into_iter().chain(silent).collect()
    }

    /// Whether all threads are alive. The thread that keeps the leases calls this, so it must never wait.
    pub(crate) fn is_whole(&self) -> bool {
        if self.shared.log_is_lost() {
            return false;
        }
        // The thread that holds the lock is alive.
        let Some(status) = self.shared.try_status() else { return true };
        status
            .kernel
            .as_ref()
            .is_none_or(|kernel| kernel.ended_thread().is_none() && kernel.silent_threads().is_empty())
    }

    /// Says that the thread which writes the log hangs, if it does.
    pub(crate) fn log_silence(&self) -> Option<String> {
        let silence = self.shared.log_silence()?;
        Some(format!("trestle-log has given no sign of life for {} s", silence.as_secs()))
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

    /// Why another member should hold the virtual IPs instead, in words. Whether this one is drained is known at once, and its
    /// faults are looked at now and then.
    pub(crate) fn unfit(&self, is_draining: bool) -> Vec<String> {
        let recovering = self.shared.recovering();
        let status = self.shared.status();
        let gone = |fault: Fault| !status.faults.keys().any(|key| key.fault == fault);
        let recovering = recovering.iter().filter(|(fault, _)| gone(*fault)).map(|(_, words)| words);
        let present = status.faults.iter().filter(|(key, _)| is_draining || key.fault != Fault::Draining);
        let words: BTreeSet<&String> = present.map(|(_, words)| words).chain(recovering).collect();
        words.into_iter().cloned().collect()
    }
}
