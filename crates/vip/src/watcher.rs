//! The thread that hears of what others do to fences. It tells the lease thread to look after its own, and removes by itself
//! what members that are gone left, also when somebody brings it back, as with an older copy of the ruleset.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, write};
use trestle_engine::SIGN_INTERVAL;

use crate::cleanup;
use crate::lease_thread::LeaseCommand;
use crate::liveness::ThreadLiveness;
use crate::maintenance::{CommandQueue, MaintenanceCommand};
use crate::nft::{Nft, RulesetChanges, RulesetMonitor};
use crate::route::RouteSocket;

/// Time between two full looks at what nobody has reported.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest time between two looks at the tables of other members, some of which may be at work.
const OTHERS_INTERVAL: Duration = Duration::from_millis(500);

/// By address, why its packets are dropped although its own fence is open.
pub(crate) type BlockedAddresses = Arc<Mutex<BTreeMap<IpAddr, String>>>;

/// The state of the thread.
pub(crate) struct Watcher {
    pub(crate) watch: RulesetMonitor,
    /// Reads the tables of others, and removes them.
    pub(crate) nft: Nft,
    pub(crate) route: RouteSocket,
    /// The name of this member's tables.
    pub(crate) table: String,
    pub(crate) lease_thread: Sender<LeaseCommand>,
    pub(crate) commands: CommandQueue,
    pub(crate) shut: BlockedAddresses,
    pub(crate) asked: Receiver<WatcherCommand>,
    pub(crate) liveness: ThreadLiveness,
    /// Readable when something is asked.
    pub(crate) wake: Arc<OwnedFd>,
}

/// What the thread is asked for.
pub(crate) enum WatcherCommand {
    /// To look at the tables of other members now, and to say when that is done.
    Look(SyncSender<()>),
    End,
}

/// Asks the thread, which alone is surely in the network namespace that locks are taken in.
#[derive(Debug)]
pub(crate) struct WatcherHandle {
    pub(crate) queue: Sender<WatcherCommand>,
    pub(crate) wake: Arc<OwnedFd>,
}

impl WatcherHandle {
    /// Without a thread to hear it nothing happens.
    pub(crate) fn send(&self, ask: WatcherCommand) {
        let _ = self.queue.send(ask);
        // Refused only when it is awake already.
        let _ = write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Watcher {
    /// Runs until it is told to end, or nobody is left to tell it.
    pub(crate) fn run(mut self) {
        // Something may have been changed before anybody listened.
        let (mut look, mut others_due) = (Instant::now(), None);
        let mut others_done: Option<Instant> = None;
        loop {
            self.liveness.beat();
            let now = Instant::now();
            let _ = read(&self.wake, &mut [0; 8]);
            loop {
                match self.asked.try_recv() {
                    Ok(WatcherCommand::Look(done)) => {
                        self.clean_up_others();
                        let _ = done.send(());
                    }
                    Err(TryRecvError::Empty) => break,
                    Ok(WatcherCommand::End) | Err(TryRecvError::Disconnected) => return,
                }
            }
            // What cannot be heard is looked for.
            let mut noticed = self.watch.noticed().unwrap_or(RulesetChanges { own: true, others: true });
            if now >= look {
                noticed = RulesetChanges { own: true, others: true };
                look = now + SCAN_INTERVAL;
            }
            if noticed.own && self.lease_thread.send(LeaseCommand::Check).is_err() {
                return;
            }
            if noticed.others {
                let due = others_done.map_or(now, |done| now.max(done + OTHERS_INTERVAL));
                others_due = others_due.or(Some(due));
            }
            if others_due.is_some_and(|due| due <= now) {
                (others_due, others_done) = (None, Some(now));
                self.clean_up_others();
            }
            self.wait(others_due.map_or(look, |due| look.min(due)));
        }
    }

    /// Waits until something was changed, asked or is due.
    fn wait(&self, due: Instant) {
        let left =
            due.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), SIGN_INTERVAL);
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut polled = [
            PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN),
        ];
        // Interrupted or not: whatever there is to do is looked for anyway.
        let _ = poll(&mut polled, Some(&timeout));
    }

    fn clean_up_others(&mut self) {
        // What fails here is tried again at the next look.
        let Ok(found) = cleanup::others(&mut self.nft, &mut self.route, Some(&self.table)) else { return };
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = found.shut();
        for what in found.removed {
            self.commands.send(MaintenanceCommand::LeftoverRemoved(what));
        }
    }
}
