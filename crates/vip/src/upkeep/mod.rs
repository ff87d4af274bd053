//! The thread that keeps addresses in place and announced, and that hears of what others do to them. It may wait for the
//! kernel's routing lock; the lease thread, which may not, closes the fence in the meantime.

mod announcing;
mod kept;
mod notes;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trestle_engine::SIGN_INTERVAL;

use crate::alive::Alive;
use crate::event::Event;
use crate::facts::Tampering;
use crate::frames::Heard;
use crate::lease_thread;
use crate::route::{Change, Changes, Interface, Route, whole};
use crate::wire::{ArpWire, Discovery};

pub(crate) use kept::{Keeping, SharedFacts};
pub(crate) use notes::{Note, Notes, notes};

use kept::Kept;
use notes::Waker;

/// Time between two attempts to put an address back, so that two programs that fight over it do not do so at full speed.
const RETRY: Duration = Duration::from_millis(200);

/// What the thread shows of what others did to the fence.
pub(crate) type SharedTampering = Arc<Mutex<Tampering>>;

/// What the thread works with.
pub(crate) struct Upkeep {
    pub(crate) route: Route,
    pub(crate) changes: Changes,
    /// `None` where the kernel has no IPv6.
    pub(crate) discovery: Option<Discovery>,
    /// Without nftables the lifetimes of addresses are the fence.
    pub(crate) degraded: bool,
    pub(crate) lease_thread: Sender<lease_thread::Order>,
    pub(crate) on_event: Box<dyn FnMut(Event) + Send>,
    tampering: SharedTampering,
    alive: Alive,
    kept: Vec<Kept>,
    wires: Vec<ArpWire>,
}

impl Upkeep {
    pub(crate) fn new(
        route: Route,
        changes: Changes,
        degraded: bool,
        lease_thread: Sender<lease_thread::Order>,
        on_event: Box<dyn FnMut(Event) + Send>,
        tampering: SharedTampering,
        alive: Alive,
    ) -> Self {
        let discovery = Discovery::open().ok();
        Self {
            route,
            changes,
            discovery,
            degraded,
            lease_thread,
            on_event,
            tampering,
            alive,
            kept: Vec::new(),
            wires: Vec::new(),
        }
    }

    /// Runs until it is told to stop or nobody is left to tell it.
    pub(crate) fn run(mut self, notes: &Receiver<Note>, waker: &Waker) {
        loop {
            self.alive.beat();
            waker.rest();
            loop {
                match notes.try_recv() {
                    Ok(Note::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(note) => self.take(note),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.follow_changes();
            self.listen();
            let now = Instant::now();
            for at in 0..self.kept.len() {
                self.keep_up(at, now);
            }
            self.wait(waker);
        }
    }

    /// Waits until something is due or has happened.
    fn wait(&self, waker: &Waker) {
        let now = Instant::now();
        let due = self.kept.iter().filter_map(|kept| kept.due(now)).min();
        let left = due.map_or(SIGN_INTERVAL, |due| due.saturating_duration_since(now));
        // At least a millisecond, so that rounding never makes this spin, and not so long that it looks dead.
        let left = left.clamp(Duration::from_millis(1), SIGN_INTERVAL);
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut sources = vec![waker.as_fd(), self.changes.as_fd()];
        sources.extend(self.wires.iter().map(AsFd::as_fd));
        sources.extend(self.discovery.iter().map(AsFd::as_fd));
        let mut polled: Vec<PollFd<'_>> =
            sources.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Interrupted or not: whatever there is to do is looked for anyway.
        let _ = poll(&mut polled, Some(&timeout));
    }

    fn tampered(&self, change: impl FnOnce(&mut Tampering)) {
        change(&mut self.tampering.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn say(&mut self, event: Event) {
        (self.on_event)(event);
    }

    fn take(&mut self, note: Note) {
        let now = Instant::now();
        match note {
            Note::Keep(keeping, reply) => {
                let _ = reply.send(self.keep(keeping, now));
            }
            Note::Drop(address, reply) => self.dismiss(address, reply),
            Note::Lapsed(address) => {
                if let Some(at) = self.position(address) {
                    self.withdraw(at);
                    self.say(Event::Lapsed(address));
                }
            }
            Note::Resumed(address) => {
                if let Some(at) = self.position(address) {
                    self.kept[at].resume(now);
                    self.keep_up(at, now);
                    self.say(Event::Resumed(address));
                }
            }
            Note::FenceRebuilt(what) => {
                self.tampered(|seen| {
                    seen.repairs += 1;
                    seen.last_repair = Some((now, what.clone()));
                });
                self.say(Event::FenceRebuilt(what));
            }
            Note::FenceFailed(why) => {
                self.tampered(|seen| seen.failing = Some(why.clone()));
                self.say(Event::FenceFailed(why));
            }
            Note::FenceHolds => self.tampered(|seen| seen.failing = None),
            Note::Scrubbed(what) => self.say(Event::Scrubbed(what)),
            Note::Slept => self.say(Event::Slept),
            // Handled by the loop.
            Note::Stop => (),
        }
    }

    fn position(&self, address: IpAddr) -> Option<usize> {
        self.kept.iter().position(|kept| kept.vip.address == address)
    }

    fn wire(&mut self, index: u32) -> std::io::Result<&ArpWire> {
        let at = match self.wires.iter().position(|wire| wire.index == index) {
            Some(at) => at,
            None => {
                self.wires.push(ArpWire::open(index)?);
                self.wires.len() - 1
            }
        };
        Ok(&self.wires[at])
    }

    /// Closes sockets on interfaces that carry nothing any more.
    fn close_wires(&mut self) {
        let kept = &self.kept;
        self.wires.retain(|wire| kept.iter().any(|kept| kept.interface.index == wire.index));
    }

    fn follow_changes(&mut self) {
        let Ok(changes) = self.changes.waiting() else { return };
        for change in changes {
            match change {
                Change::Link(interface) => self.link_changed(&interface),
                Change::LinkGone(index) => self.link_gone(index),
                Change::AddressGone { index, address } => {
                    let concerned = self.position(address);
                    if let Some(at) = concerned.filter(|at| self.kept[*at].interface.index == index) {
                        self.verify(at);
                    }
                }
                Change::OwnAddress { index } => self.put_in_place(index),
                Change::Missed => self.verify_all(),
            }
        }
    }

    fn verify_all(&mut self) {
        let interfaces = self.route.interfaces().unwrap_or_default();
        for interface in &interfaces {
            self.link_changed(interface);
        }
        let known = |index| interfaces.iter().any(|interface| interface.index == index);
        let gone = self.kept.iter().map(|kept| kept.interface.index).find(|index| !known(*index));
        if let Some(index) = gone.filter(|_| !interfaces.is_empty()) {
            self.link_gone(index);
        }
        for at in 0..self.kept.len() {
            self.verify(at);
            self.kept[at].hasten(Instant::now());
        }
    }

    /// Sees to it, at the next round, that the virtual IPs of an interface stand behind the host's own addresses.
    fn put_in_place(&mut self, index: u32) {
        let now = Instant::now();
        let concerned = self.kept.iter_mut().filter(|kept| kept.interface.index == index);
        concerned.for_each(|kept| kept.hasten(now));
    }

    /// Looks whether an address that should be there is.
    fn verify(&mut self, at: usize) {
        let Ok(addresses) = self.route.addresses() else { return };
        let kept = &mut self.kept[at];
        let there = |kept: &Kept| {
            addresses.iter().any(|a| {
                a.address == kept.vip.address
                    && a.index == kept.interface.index
                    && a.prefix == whole(a.address)
            })
        };
        if kept.present && !there(kept) {
            let address = kept.vip.address;
            kept.lost(Instant::now());
            self.say(Event::AddressLost(address));
        }
    }

    fn link_changed(&mut self, interface: &Interface) {
        let now = Instant::now();
        let mut events = Vec::new();
        for kept in self.kept.iter_mut().filter(|kept| kept.interface.index == interface.index) {
            let before = std::mem::replace(&mut kept.interface, interface.clone());
            kept.show(|facts| facts.link_up = interface.up);
            if before.name != interface.name {
                // Nobody to tell is nobody who fences.
                let _ = self.lease_thread.send(lease_thread::Order::Moved(
                    kept.vip.address,
                    interface.index,
                    interface.name.clone(),
                ));
                events.push(Event::Renamed { from: before.name, to: interface.name.clone() });
            }
            match (before.up, interface.up) {
                (true, false) => events.push(Event::LinkDown(interface.name.clone())),
                (false, true) => {
                    events.push(Event::LinkUp(interface.name.clone()));
                    kept.resume(now);
                }
                // Bonds and bridges change their address with their ports.
                _ if before.mac != interface.mac => kept.resume(now),
                _ => (),
            }
        }
        // One event for an interface, however many virtual IPs it carries.
        events.dedup();
        events.into_iter().for_each(|event| self.say(event));
    }

    fn link_gone(&mut self, index: u32) {
        let now = Instant::now();
        let mut name = None;
        for kept in self.kept.iter_mut().filter(|kept| kept.interface.index == index) {
            name = Some(kept.interface.name.clone());
            kept.interface.index = 0;
            kept.interface.up = false;
            kept.show(|facts| facts.link_up = false);
            kept.lost(now);
            let nowhere = lease_thread::Order::Moved(kept.vip.address, 0, String::new());
            let _ = self.lease_thread.send(nowhere);
        }
        let _ = self.lease_thread.send(lease_thread::Order::Gone(index));
        self.close_wires();
        name.into_iter().for_each(|name| self.say(Event::InterfaceGone(name)));
    }

    /// Hears claims of other machines.
    fn listen(&mut self) {
        let mut claims: Vec<(Option<u32>, Heard)> = Vec::new();
        for wire in &self.wires {
            claims
                .extend(std::iter::from_fn(|| wire.heard()).map(|heard| (Some(wire.index), heard)).take(64));
        }
        if let Some(discovery) = &self.discovery {
            claims.extend(std::iter::from_fn(|| discovery.heard()).map(|heard| (None, heard)).take(64));
        }
        for (index, heard) in claims {
            if let Some(at) = self.position(heard.address) {
                self.contested(at, index, heard.mac);
            }
        }
    }
}
