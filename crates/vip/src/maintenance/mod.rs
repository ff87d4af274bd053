//! The thread that works with addresses: it adds, renews, announces and removes them as it is told, and hears of what others do
//! to them. It may wait for the kernel's routing lock; the lease thread, which may not, closes the fence in the meantime.

mod announcements;
mod command_queue;
mod held_address;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trestle_engine::SIGN_INTERVAL;

use crate::event::KernelEvent;
use crate::facts::Tampering;
use crate::frames::Heard;
use crate::lease_thread::LeaseCommand;
use crate::liveness::ThreadLiveness;
use crate::route::{Interface, RouteChange, RouteMonitor, RouteSocket, whole};
use crate::sockets::{ArpSocket, NeighborSocket};

pub(crate) use command_queue::{CommandQueue, MaintenanceCommand, command_queue};
pub(crate) use held_address::{AddressRequest, SharedFacts};

use command_queue::Waker;
use held_address::HeldAddress;

/// What the thread shows of what others did to the fence.
pub(crate) type SharedTampering = Arc<Mutex<Tampering>>;

/// What the thread works with.
pub(crate) struct Maintenance {
    pub(crate) route: RouteSocket,
    pub(crate) changes: RouteMonitor,
    /// `None` where the kernel has no IPv6.
    pub(crate) neighbors: Option<NeighborSocket>,
    /// Without nftables the lifetimes of addresses are the fence.
    pub(crate) degraded: bool,
    pub(crate) lease_thread: Sender<LeaseCommand>,
    pub(crate) on_event: Box<dyn FnMut(KernelEvent) + Send>,
    tampering: SharedTampering,
    liveness: ThreadLiveness,
    held: Vec<HeldAddress>,
    arp_sockets: Vec<ArpSocket>,
}

impl Maintenance {
    pub(crate) fn new(
        route: RouteSocket,
        changes: RouteMonitor,
        degraded: bool,
        lease_thread: Sender<LeaseCommand>,
        on_event: Box<dyn FnMut(KernelEvent) + Send>,
        tampering: SharedTampering,
        liveness: ThreadLiveness,
    ) -> Self {
        let neighbors = NeighborSocket::open().ok();
        Self {
            route,
            changes,
            neighbors,
            degraded,
            lease_thread,
            on_event,
            tampering,
            liveness,
            held: Vec::new(),
            arp_sockets: Vec::new(),
        }
    }

    /// Runs until it is told to stop or nobody is left to tell it.
    pub(crate) fn run(mut self, commands: &Receiver<MaintenanceCommand>, waker: &Waker) {
        loop {
            self.liveness.beat();
            waker.rest();
            loop {
                match commands.try_recv() {
                    Ok(MaintenanceCommand::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(note) => self.take(note),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.follow_changes();
            self.listen();
            let now = Instant::now();
            for at in 0..self.held.len() {
                self.renew_due(at, now);
            }
            self.wait(waker);
        }
    }

    /// Waits until something is due or has happened.
    fn wait(&self, waker: &Waker) {
        let now = Instant::now();
        let due = self.held.iter().filter_map(|held| held.due(now)).min();
        let left = due.map_or(SIGN_INTERVAL, |due| due.saturating_duration_since(now));
        // At least a millisecond, so that rounding never makes this spin, and not so long that it looks dead.
        let left = left.clamp(Duration::from_millis(1), SIGN_INTERVAL);
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut sources = vec![waker.as_fd(), self.changes.as_fd()];
        sources.extend(self.arp_sockets.iter().map(AsFd::as_fd));
        sources.extend(self.neighbors.iter().map(AsFd::as_fd));
        let mut polled: Vec<PollFd<'_>> =
            sources.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Interrupted or not: whatever there is to do is looked for anyway.
        let _ = poll(&mut polled, Some(&timeout));
    }

    fn update_tampering(&self, change: impl FnOnce(&mut Tampering)) {
        change(&mut self.tampering.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn emit(&mut self, event: KernelEvent) {
        (self.on_event)(event);
    }

    fn take(&mut self, note: MaintenanceCommand) {
        let now = Instant::now();
        match note {
            MaintenanceCommand::Keep(keeping, reply) => {
                let _ = reply.send(self.keep(keeping, now));
            }
            MaintenanceCommand::Drop(address, reply) => self.drop_address(address, reply),
            MaintenanceCommand::Lapsed(address) => {
                if let Some(at) = self.position(address) {
                    self.withdraw(at);
                    self.emit(KernelEvent::Lapsed(address));
                }
            }
            MaintenanceCommand::Resumed(address) => {
                if self.position(address).is_some() {
                    self.emit(KernelEvent::Resumed(address));
                }
            }
            MaintenanceCommand::Restore(address) => {
                if let Some(at) = self.position(address) {
                    self.restore(at, now);
                }
            }
            MaintenanceCommand::Announce(address) => {
                if let Some(at) = self.position(address) {
                    self.announce(at, now);
                }
            }
            MaintenanceCommand::FenceRebuilt(what) => {
                self.update_tampering(|seen| {
                    seen.repairs += 1;
                    seen.last_repair = Some((now, what.clone()));
                });
                self.emit(KernelEvent::FenceRebuilt(what));
            }
            MaintenanceCommand::FenceFailed(why) => {
                self.update_tampering(|seen| seen.failing = Some(why.clone()));
                self.emit(KernelEvent::FenceFailed(why));
            }
            MaintenanceCommand::FenceHolds => self.update_tampering(|seen| seen.failing = None),
            MaintenanceCommand::LeftoverRemoved(what) => self.emit(KernelEvent::LeftoverRemoved(what)),
            MaintenanceCommand::Slept => self.emit(KernelEvent::Slept),
            // Handled by the loop.
            MaintenanceCommand::Stop => (),
        }
    }

    fn position(&self, address: IpAddr) -> Option<usize> {
        self.held.iter().position(|held| held.vip.address == address)
    }

    fn arp(&mut self, index: u32) -> std::io::Result<&ArpSocket> {
        let at = match self.arp_sockets.iter().position(|arp| arp.index == index) {
            Some(at) => at,
            None => {
                self.arp_sockets.push(ArpSocket::open(index)?);
                self.arp_sockets.len() - 1
            }
        };
        Ok(&self.arp_sockets[at])
    }

    /// Closes sockets on interfaces that carry nothing any more.
    fn close_sockets(&mut self) {
        let held = &self.held;
        self.arp_sockets.retain(|arp| held.iter().any(|held| held.interface.index == arp.index));
    }

    fn follow_changes(&mut self) {
        let Ok(changes) = self.changes.waiting() else { return };
        for change in changes {
            match change {
                RouteChange::Link(interface) => self.link_changed(&interface),
                RouteChange::LinkGone(index) => self.link_gone(index),
                RouteChange::AddressGone { index, address } => {
                    let concerned = self.position(address);
                    if let Some(at) = concerned.filter(|at| self.held[*at].interface.index == index) {
                        self.verify(at);
                    }
                }
                RouteChange::OwnAddress { index } => self.put_in_place(index),
                RouteChange::Missed => self.verify_all(),
            }
        }
    }

    fn verify_all(&mut self) {
        let interfaces = self.route.interfaces().unwrap_or_default();
        for interface in &interfaces {
            self.link_changed(interface);
        }
        let known = |index| interfaces.iter().any(|interface| interface.index == index);
        let gone = self.held.iter().map(|held| held.interface.index).find(|index| !known(*index));
        if let Some(index) = gone.filter(|_| !interfaces.is_empty()) {
            self.link_gone(index);
        }
        for at in 0..self.held.len() {
            self.verify(at);
            self.held[at].hasten(Instant::now());
        }
    }

    /// Sees to it, at the next round, that the virtual IPs of an interface stand behind the host's own addresses.
    fn put_in_place(&mut self, index: u32) {
        let now = Instant::now();
        let concerned = self.held.iter_mut().filter(|held| held.interface.index == index);
        concerned.for_each(|held| held.hasten(now));
    }

    /// Looks whether an address that should be there is.
    fn verify(&mut self, at: usize) {
        let Ok(addresses) = self.route.addresses() else { return };
        let held = &mut self.held[at];
        let there = |held: &HeldAddress| {
            addresses.iter().any(|a| {
                a.address == held.vip.address
                    && a.index == held.interface.index
                    && a.prefix == whole(a.address)
            })
        };
        if held.present && !there(held) {
            let address = held.vip.address;
            held.lost();
            self.emit(KernelEvent::AddressLost(address));
        }
    }

    fn link_changed(&mut self, interface: &Interface) {
        let now = Instant::now();
        let mut events = Vec::new();
        for held in self.held.iter_mut().filter(|held| held.interface.index == interface.index) {
            let before = std::mem::replace(&mut held.interface, interface.clone());
            held.show(|facts| facts.link_up = interface.up);
            if before.name != interface.name {
                // Nobody to tell is nobody who fences.
                let _ = self.lease_thread.send(LeaseCommand::Moved(
                    held.vip.address,
                    interface.index,
                    interface.name.clone(),
                ));
                events.push(KernelEvent::Renamed { from: before.name, to: interface.name.clone() });
            }
            match (before.up, interface.up) {
                (true, false) => events.push(KernelEvent::LinkDown(interface.name.clone())),
                (false, true) => {
                    events.push(KernelEvent::LinkUp(interface.name.clone()));
                    held.hasten(now);
                }
                // Bonds and bridges change their address with their ports.
                _ if before.mac != interface.mac => {
                    events.push(KernelEvent::MacChanged(interface.name.clone()));
                }
                _ => (),
            }
        }
        // One event for an interface, however many virtual IPs it carries.
        events.dedup();
        events.into_iter().for_each(|event| self.emit(event));
    }

    fn link_gone(&mut self, index: u32) {
        let mut name = None;
        for held in self.held.iter_mut().filter(|held| held.interface.index == index) {
            name = Some(held.interface.name.clone());
            held.interface.index = 0;
            held.interface.up = false;
            held.show(|facts| facts.link_up = false);
            held.lost();
            let nowhere = LeaseCommand::Moved(held.vip.address, 0, String::new());
            let _ = self.lease_thread.send(nowhere);
        }
        let _ = self.lease_thread.send(LeaseCommand::Gone(index));
        self.close_sockets();
        name.into_iter().for_each(|name| self.emit(KernelEvent::InterfaceGone(name)));
    }

    /// Hears claims of other machines.
    fn listen(&mut self) {
        let mut claims: Vec<(Option<u32>, Heard)> = Vec::new();
        for arp in &self.arp_sockets {
            claims.extend(std::iter::from_fn(|| arp.heard()).map(|heard| (Some(arp.index), heard)).take(64));
        }
        if let Some(neighbors) = &self.neighbors {
            claims.extend(std::iter::from_fn(|| neighbors.heard()).map(|heard| (None, heard)).take(64));
        }
        for (index, heard) in claims {
            if let Some(at) = self.position(heard.address) {
                self.on_claim(at, index, heard.mac);
            }
        }
    }
}
