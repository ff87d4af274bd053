//! Telling the network where an address is, and hearing that somebody else says so.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use trestle_engine::ownership::announcement;

use super::Maintenance;
use crate::event::{KernelEvent, Mac};
use crate::frames;
use crate::sockets::NeighborSocket;

/// A contested address is defended at most this often (RFC 5227 §2.4, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Claims of the same machine that follow one another within this time are one event.
const CONFLICT_REPEAT: Duration = Duration::from_secs(1);

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// When an address is to be announced next. Announcements that were missed are not made up for.
#[derive(Debug)]
pub(super) struct Schedule {
    due: Instant,
    done: u32,
}

impl Schedule {
    /// Begins at `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self { due: start + announcement(0), done: 0 }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    fn announced(&mut self, now: Instant) {
        let next = self.done.saturating_add(1);
        self.due = now + announcement(next).saturating_sub(announcement(self.done));
        self.done = next;
    }
}

impl Maintenance {
    /// Says that the address is here. What cannot be sent is sent the next time.
    pub(super) fn announce(&mut self, at: usize, now: Instant) {
        let held = &mut self.held[at];
        held.schedule.announced(now);
        let (address, index, mac) = (held.vip.address, held.interface.index, held.interface.mac);
        let may = held.interface.index != 0 && held.lease.running(Instant::now()).is_some();
        let Some(mac) = mac.filter(|_| may) else { return };
        let sent = match address {
            IpAddr::V4(ip) => self
                .arp(index)
                .and_then(|arp| frames::announcements(mac, ip).iter().try_for_each(|frame| arp.send(frame))),
            IpAddr::V6(ip) => {
                NeighborSocket::send_from(ip, &frames::advertisement(mac, ip), ALL_NODES, index)
            }
        };
        if sent.is_ok() {
            self.held[at].show(|facts| {
                facts.last_announcement = Some(now);
                facts.announcements += 1;
            });
        }
    }

    /// Asks whether anybody else has the address; the answer counts as a conflict when it comes.
    pub(super) fn probe(&mut self, at: usize) {
        let held = &self.held[at];
        let (address, index) = (held.vip.address, held.interface.index);
        let Some(mac) = held.interface.mac else { return };
        // Detection goes on without the question.
        let _ = match address {
            IpAddr::V4(ip) => self.arp(index).and_then(|arp| arp.send(&frames::probe(mac, ip))),
            IpAddr::V6(ip) => self.tell(&frames::solicitation(mac, ip), frames::solicited_node(ip), index),
        };
    }

    fn tell(&self, message: &[u8], to: Ipv6Addr, index: u32) -> std::io::Result<()> {
        self.neighbors.as_ref().map_or(Ok(()), |neighbors| neighbors.send(message, to, index))
    }

    /// Somebody claims an address of ours, heard on the interface `index` where that is known.
    pub(super) fn on_claim(&mut self, at: usize, index: Option<u32>, mac: Mac) {
        let now = Instant::now();
        let held = &mut self.held[at];
        let elsewhere = index.is_some_and(|index| index != held.interface.index);
        if elsewhere || held.interface.mac == Some(mac) || held.lease.running(now).is_none() {
            return;
        }
        let mut before = None;
        held.show(|facts| {
            facts.conflicts += 1;
            before = facts.last_conflict.replace((mac, now));
        });
        let defend = held.defended.is_none_or(|last| now.saturating_duration_since(last) >= DEFEND_INTERVAL);
        if defend {
            held.defended = Some(now);
        }
        let address = held.vip.address;
        if defend {
            self.announce(at, now);
        }
        if before
            .is_none_or(|(who, when)| who != mac || now.saturating_duration_since(when) >= CONFLICT_REPEAT)
        {
            self.emit(KernelEvent::Conflict { address, mac });
        }
    }
}
