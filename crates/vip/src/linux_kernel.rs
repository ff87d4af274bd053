//! The handle: claim, renew through the lease, release, and what is true.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::atomic_instant::AtomicInstant;
use crate::capability::require_capabilities;
use crate::cleanup;
use crate::error::VipError;
use crate::event::KernelEvent;
use crate::facts::{Fence, KernelFacts, VipFacts};
use crate::lease::Lease;
use crate::lease_thread::{FenceRequest, LeaseCommand, LeaseThread, LeaseThreadStats, Watchdog};
use crate::liveness::ThreadLiveness;
use crate::lock::TableLock;
use crate::maintenance::{
    AddressRequest, CommandQueue, Maintenance, MaintenanceCommand, SharedFacts, SharedTampering,
    command_queue,
};
use crate::nft::{Nft, RulesetMonitor};
use crate::route::{Interface, RouteMonitor, RouteSocket};
use crate::vip::InterfaceVip;
use crate::watcher::{BlockedAddresses, Watcher, WatcherCommand, WatcherHandle};

/// Longest time without new connections.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// How a member works with its kernel.
pub struct KernelSettings {
    /// Name of the member. The nftables tables are called `trestle_` and this, with `_` for what such names may not contain;
    /// two members in one network namespace need names that differ so, and the second of one name is refused.
    pub name: String,
    /// Run the lease thread with real-time priority (SCHED_FIFO 1). It takes the right to: `LimitRTPRIO=1` for the service.
    /// Where that is missing it runs without, and the facts say so.
    pub real_time: bool,
    /// Told for as long as the lease thread is on time.
    pub watchdog: Option<Watchdog>,
    /// Told of every event, on a thread of this crate, so it must not block: sending to a queue is fine.
    pub on_event: Box<dyn FnMut(KernelEvent) + Send>,
}

impl fmt::Debug for KernelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSettings").field("name", &self.name).finish_non_exhaustive()
    }
}

struct ClaimedVip {
    vip: InterfaceVip,
    facts: SharedFacts,
    shown: Arc<AtomicInstant>,
}

/// The virtual IPs of this machine. Calls block for some netlink round trips, well under a millisecond on an idle machine;
/// none of them waits for the network. Dropping it releases everything.
pub struct LinuxKernel {
    fence: Fence,
    stats: Arc<LeaseThreadStats>,
    lease_commands: Sender<LeaseCommand>,
    commands: CommandQueue,
    /// Held over claims and releases, so that they come one after another.
    route: Mutex<RouteSocket>,
    held: Mutex<BTreeMap<IpAddr, ClaimedVip>>,
    tampering: SharedTampering,
    shut: BlockedAddresses,
    maintenance: Option<JoinHandle<()>>,
    leasing: Option<JoinHandle<()>>,
    /// `None` without nftables.
    watching: Option<(JoinHandle<()>, WatcherHandle)>,
    liveness: [ThreadLiveness; 3],
    /// Goes last: whoever has it may remove what is there.
    lock: Option<TableLock>,
}

impl fmt::Debug for LinuxKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxKernel").field("fence", &self.fence).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LinuxKernel {
    /// Removes what earlier runs of this member and of others left (see [`crate`]), sets the fence up, and starts the threads,
    /// in the network namespace of the caller.
    ///
    /// # Errors
    /// When a capability is missing, another process has fences under the same name here, leftovers cannot be removed, or
    /// sockets and threads cannot be had. A kernel without nftables is no error: [`KernelFacts::fence`] says so.
    pub fn open(settings: KernelSettings) -> Result<Self, VipError> {
        require_capabilities()?;
        let mut route = RouteSocket::open().map_err(VipError::system("open a routing socket"))?;
        let table = cleanup::table(&settings.name);
        let lock = TableLock::take(&table).map_err(VipError::system("take the lock of the fence"))?;
        let lock =
            lock.map_err(|owner| VipError::Taken { table: table.clone(), owner: owner.to_string() })?;
        let nft = cleanup::fence(&table, &mut route)?;
        let mut kernel = Self::start(settings, route, nft)?;
        kernel.lock = Some(lock);
        kernel.wait_for_cleanup(kernel.clean_up_others());
        Ok(kernel)
    }

    /// Starts the threads, with nftables or with the reason why not.
    pub(crate) fn start(
        settings: KernelSettings,
        route: RouteSocket,
        nft: Result<Nft, String>,
    ) -> Result<Self, VipError> {
        let (nft, fence) = match nft {
            Ok(nft) => {
                let announcements = nft.fences_announcements();
                (Some(nft), Fence::Full { announcements })
            }
            Err(why) => (None, Fence::Degraded { why }),
        };
        let stats = Arc::new(LeaseThreadStats::default());
        stats.announcements_fenced(nft.as_ref().is_some_and(Nft::fences_announcements));
        let (commands, received, waker) =
            command_queue().map_err(VipError::system("open an event descriptor"))?;
        let (lease_commands, orders) = channel();
        let tampering = SharedTampering::default();
        let liveness = ["vip lease", "vip maintenance", "vip watch"].map(ThreadLiveness::new);
        let [leasing_alive, keeping_alive, watching_alive] = liveness.clone();

        let maintenance = Maintenance::new(
            RouteSocket::open().map_err(VipError::system("open a routing socket"))?,
            RouteMonitor::open().map_err(VipError::system("open a socket for changes of addresses"))?,
            nft.is_none(),
            lease_commands.clone(),
            settings.on_event,
            Arc::clone(&tampering),
            keeping_alive,
        );
        let (table, shut) = (cleanup::table(&settings.name), BlockedAddresses::default());
        let watcher = nft
            .as_ref()
            .map(|fence| watcher(fence, &table, &lease_commands, &commands, &shut, &watching_alive));
        let watcher = watcher.transpose().map_err(VipError::system("listen to nftables"))?;
        let lease_thread =
            LeaseThread::new(nft, commands.clone(), Arc::clone(&stats), settings.watchdog, leasing_alive);
        let (own_stats, real_time) = (Arc::clone(&stats), settings.real_time);
        let keeping = spawn("vip maintenance", Box::new(move || maintenance.run(&received, &waker)))?;
        let leasing = spawn(
            "vip lease",
            Box::new(move || {
                if real_time {
                    own_stats.take_real_time();
                }
                lease_thread.run(&orders);
            }),
        )?;
        let watching = match watcher {
            Some((watcher, watcher_handle)) => {
                Some((spawn("vip watch", Box::new(move || watcher.run()))?, watcher_handle))
            }
            None => None,
        };
        Ok(Self {
            fence,
            stats,
            lease_commands,
            commands,
            route: Mutex::new(route),
            held: Mutex::default(),
            tampering,
            shut,
            maintenance: Some(keeping),
            leasing: Some(leasing),
            watching,
            liveness,
            lock: None,
        })
    }

    /// Serves `vip` for as long as `lease` runs: opens the fence until its deadline, and adds the address. From then on both are
    /// renewed as the lease is extended. What announces it and puts it back when somebody removes it is the caller, by
    /// [`Self::announce`] and [`Self::restore`].
    ///
    /// # Errors
    /// When the lease is over, the interface will not do, the address is here already, or the kernel refuses. Nothing is
    /// left behind then.
    pub fn claim(&self, vip: &InterfaceVip, lease: &Lease) -> Result<(), VipError> {
        if !vip.prefix_fits() {
            return Err(VipError::Prefix(vip.clone()));
        }
        let mut route = locked(&self.route);
        if locked(&self.held).contains_key(&vip.address) {
            return Err(VipError::Held(vip.clone()));
        }
        let interface = suitable(&mut route, vip)?;
        if lease.running(Instant::now()).is_none() {
            return Err(VipError::Over(vip.clone()));
        }
        let looked = self.clean_up_others();
        let shown = Arc::new(AtomicInstant::default());
        let facts: SharedFacts = Arc::new(Mutex::new(VipFacts::new(vip.clone())));
        let request = FenceRequest {
            address: vip.address,
            index: interface.index,
            interface: interface.name.clone(),
            lease: lease.clone(),
            shown: Arc::clone(&shown),
        };
        self.lease_command(|reply| LeaseCommand::Open(request, reply))
            .or_else(|error| self.undo(vip.address, error))?;
        let keeping = AddressRequest {
            vip: vip.clone(),
            interface,
            lease: lease.clone(),
            facts: Arc::clone(&facts),
            shown: Arc::clone(&shown),
        };
        self.maintain(|reply| MaintenanceCommand::Keep(keeping, reply))
            .or_else(|error| self.undo(vip.address, error))?;
        self.wait_for_cleanup(looked);
        locked(&self.held).insert(vip.address, ClaimedVip { vip: vip.clone(), facts, shown });
        Ok(())
    }

    /// Puts the address of a virtual IP back that somebody has removed, or that went with its interface, for as long as its lease
    /// runs. Returns at once: [`KernelEvent::AddressRestored`] or [`KernelEvent::NotRestored`] tells what came of it.
    ///
    /// # Errors
    /// [`VipError::NotHeld`], or the thread for it has ended.
    pub fn restore(&self, address: IpAddr) -> Result<(), VipError> {
        self.send_about(address, MaintenanceCommand::Restore(address))
    }

    /// Sends one announcement of a virtual IP: gratuitous ARP as request and as reply, or an unsolicited neighbour
    /// advertisement. Returns at once, and sends nothing while the address is missing or its lease is over.
    ///
    /// # Errors
    /// [`VipError::NotHeld`], or the thread for it has ended.
    pub fn announce(&self, address: IpAddr) -> Result<(), VipError> {
        self.send_about(address, MaintenanceCommand::Announce(address))
    }

    fn send_about(&self, address: IpAddr, command: MaintenanceCommand) -> Result<(), VipError> {
        if !locked(&self.held).contains_key(&address) {
            return Err(VipError::NotHeld(address));
        }
        if self.commands.send(command) { Ok(()) } else { Err(VipError::Ended("maintenance")) }
    }

    /// Keeps new connections out of every virtual IP that is held now, for `time`, while those that are there go on: to be
    /// called before a planned [`Self::release`]. Otherwise a connection that was opened just before it would be answered
    /// through a fence that has closed, and its client would wait in vain; like this the client asks again after a second,
    /// and finds the next holder.
    ///
    /// It is nftables that drops what opens a connection (TCP with SYN and without ACK), without an answer. The kernel ends
    /// that by itself after `time`, whatever happens to this process; so does the next claim of the address. A second call
    /// prolongs, never shortens. Times above a minute count as one; those below 10 ms, a tick of the kernel's clock, are
    /// none. Without nftables this does nothing.
    ///
    /// # Errors
    /// When the kernel refuses; new connections are taken as before then.
    pub fn quiesce(&self, time: Duration) -> Result<(), VipError> {
        let until = Instant::now() + time.min(QUIET_MAX);
        self.lease_command(|reply| LeaseCommand::Quiesce(until, reply))
    }

    /// Stops serving an address: closes the fence, which silences it at once. The address itself is removed right after this
    /// returns, because that takes the kernel some 10 ms for IPv4, during which the next holder may serve already. Without
    /// nftables, this returns when it has been removed.
    ///
    /// # Errors
    /// [`VipError::NotHeld`]; anything else means that the kernel refused, that the address falls silent at its lease's
    /// deadline at the latest, and that releasing it can be tried again until then.
    pub fn release(&self, address: IpAddr) -> Result<(), VipError> {
        self.release_address(address, matches!(self.fence, Fence::Degraded { .. }))
    }

    /// Releases an address and, with `wait`, waits until it is removed.
    fn release_address(&self, address: IpAddr, wait: bool) -> Result<(), VipError> {
        let mut route = locked(&self.route);
        if !locked(&self.held).contains_key(&address) {
            return Err(VipError::NotHeld(address));
        }
        let shut = self.lease_command(|reply| LeaseCommand::Shut(address, reply));
        // Where the fence does not shut, the address must go.
        let dropped = match wait || shut.is_err() {
            true => self.maintain(|reply| MaintenanceCommand::Drop(address, Some(reply))),
            false if self.commands.send(MaintenanceCommand::Drop(address, None)) => Ok(()),
            false => Err(VipError::Ended("maintenance")),
        };
        let dropped = match dropped {
            // Its thread has panicked. Without it the address would stay until its lifetime ends.
            Err(VipError::Ended(_)) => remove_all(&mut route, address),
            other => other,
        };
        shut.and(dropped)?;
        locked(&self.held).remove(&address);
        Ok(())
    }

    /// The interface whose network `address` is in, for virtual IPs that name none: the one with the longest prefix; `None`
    /// when there is none.
    ///
    /// # Errors
    /// When the kernel does not list its addresses.
    pub fn interface_for(&self, address: IpAddr) -> Result<Option<String>, VipError> {
        locked(&self.route).interface_in(address).map_err(VipError::system("list addresses"))
    }

    /// Whether an interface, by its name or one of its alternative names, is up and has a carrier; `None` when there is
    /// none of that name.
    ///
    /// # Errors
    /// When the kernel does not list its interfaces.
    pub fn link_up(&self, interface: &str) -> Result<Option<bool>, VipError> {
        let found = locked(&self.route).interface(interface).map_err(VipError::system("list interfaces"))?;
        Ok(found.map(|interface| interface.up))
    }

    /// A thread of this kernel that has ended, which it does only by a fault while the kernel is there: what it kept is kept
    /// no more.
    pub fn ended_thread(&self) -> Option<&'static str> {
        let ended = |thread: &Option<JoinHandle<()>>| thread.as_ref().is_none_or(JoinHandle::is_finished);
        let watching = self.watching.as_ref().filter(|(thread, _)| thread.is_finished());
        [(&self.leasing, "vip lease"), (&self.maintenance, "vip maintenance")]
            .into_iter()
            .find_map(|(thread, name)| ended(thread).then_some(name))
            .or(watching.map(|_| "vip watch"))
    }

    /// The threads of this kernel that give no sign of life, each with the time since its last one. Takes no lock.
    pub fn silent_threads(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        let now = Instant::now();
        // Without nftables there is nothing to watch.
        let running = if self.watching.is_some() { 3 } else { 2 };
        self.liveness.iter().take(running).filter_map(move |liveness| liveness.silent(now))
    }

    /// What is true now. Reads what the threads last heard from the kernel; asks nobody.
    pub fn facts(&self) -> KernelFacts {
        let vips = locked(&self.held);
        let vips = vips.values().map(|held| {
            let facts = locked(&held.facts).clone();
            let shut_by = locked(&self.shut).get(&held.vip.address).cloned();
            VipFacts { vip: held.vip.clone(), fence_until: held.shown.get(), shut_by, ..facts }
        });
        let fence = match &self.fence {
            Fence::Full { .. } => Fence::Full { announcements: self.stats.are_announcements_fenced() },
            degraded @ Fence::Degraded { .. } => degraded.clone(),
        };
        let tampering = locked(&self.tampering).clone();
        KernelFacts { fence, punctuality: self.stats.facts(), tampering, vips: vips.collect() }
    }

    /// Has what members that are gone left removed, and what those that live stand against noted.
    fn clean_up_others(&self) -> Option<Receiver<()>> {
        let (done, looked) = sync_channel(1);
        let (_, watcher_handle) = self.watching.as_ref()?;
        watcher_handle.send(WatcherCommand::Look(done));
        Some(looked)
    }

    /// Waits until that is done. A thread that has ended has done what it could.
    fn wait_for_cleanup(&self, looked: Option<Receiver<()>>) {
        let _ = looked.map(|looked| looked.recv());
    }

    /// Takes back the half of a claim that was done.
    fn undo(&self, address: IpAddr, error: VipError) -> Result<(), VipError> {
        // What fails here expires; the first error is the one to tell.
        let _ = self.lease_command(|reply| LeaseCommand::Shut(address, reply));
        let _ = self.lease_commands.send(LeaseCommand::Forget(address));
        Err(error)
    }

    fn lease_command(
        &self,
        order: impl FnOnce(SyncSender<Result<(), VipError>>) -> LeaseCommand,
    ) -> Result<(), VipError> {
        let (reply, answer) = sync_channel(1);
        let sent = self.lease_commands.send(order(reply)).is_ok();
        let answer = sent.then(|| answer.recv().ok()).flatten();
        answer.unwrap_or(Err(VipError::Ended("lease")))
    }

    fn maintain(
        &self,
        note: impl FnOnce(SyncSender<Result<(), VipError>>) -> MaintenanceCommand,
    ) -> Result<(), VipError> {
        let (reply, answer) = sync_channel(1);
        let sent = self.commands.send(note(reply));
        let answer = sent.then(|| answer.recv().ok()).flatten();
        answer.unwrap_or(Err(VipError::Ended("maintenance")))
    }
}

impl Drop for LinuxKernel {
    fn drop(&mut self) {
        let addresses: Vec<IpAddr> = locked(&self.held).keys().copied().collect();
        let released = addresses.into_iter().map(|address| self.release_address(address, true));
        // Where something remains, its fence does too; the next start cleans up both.
        let clean = released.filter(Result::is_err).count() == 0;
        // What was released before is removed by then as well, so that nothing is ever without its fence.
        self.commands.send(MaintenanceCommand::Stop);
        self.maintenance.take().map(JoinHandle::join);
        if let Some((watching, watcher_handle)) = self.watching.take() {
            watcher_handle.send(WatcherCommand::End);
            let _ = watching.join();
        }
        if clean {
            let _ = self.lease_commands.send(LeaseCommand::Stop);
        }
        let (nobody, _) = channel();
        self.lease_commands = nobody;
        self.leasing.take().map(JoinHandle::join);
    }
}

/// Removes a virtual IP from every interface.
fn remove_all(route: &mut RouteSocket, address: IpAddr) -> Result<(), VipError> {
    let assigned = route.addresses().map_err(VipError::system("list addresses"))?;
    let mut found = assigned.iter().filter(|found| found.address == address && found.is_virtual());
    found.try_for_each(|found| route.remove_found(found).map_err(VipError::system("remove an address")))
}

fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, VipError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(VipError::system("start a thread"))
}

/// The thread that listens to nftables, before it starts, and how it is asked.
fn watcher(
    fence: &Nft,
    table: &str,
    lease_thread: &Sender<LeaseCommand>,
    commands: &CommandQueue,
    shut: &BlockedAddresses,
    liveness: &ThreadLiveness,
) -> std::io::Result<(Watcher, WatcherHandle)> {
    let (queue, asked) = channel();
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let watcher = Watcher {
        watch: RulesetMonitor::open(fence, cleanup::PREFIX)?,
        nft: Nft::open(table)?,
        route: RouteSocket::open()?,
        table: table.to_owned(),
        lease_thread: lease_thread.clone(),
        commands: commands.clone(),
        shut: Arc::clone(shut),
        liveness: liveness.clone(),
        asked,
        wake: Arc::clone(&wake),
    };
    Ok((watcher, WatcherHandle { queue, wake }))
}

/// The interface for `vip`, if it and the address will do.
fn suitable(route: &mut RouteSocket, vip: &InterfaceVip) -> Result<Interface, VipError> {
    let interface = route.interface(&vip.interface).map_err(VipError::system("list interfaces"))?;
    let interface = interface.ok_or_else(|| VipError::NoInterface(vip.clone()))?;
    if interface.mac.is_none() {
        return Err(VipError::NotEthernet(vip.clone()));
    }
    let addresses = route.addresses().map_err(VipError::system("list addresses"))?;
    if addresses.iter().any(|found| found.address == vip.address && found.lasting) {
        return Err(VipError::Configured(vip.clone()));
    }
    Ok(interface)
}
