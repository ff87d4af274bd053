//! Telling the network where an address is, and hearing that somebody else says so.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use trestle_engine::ownership::announcement;

use super::Upkeep;
use crate::event::{Event, Mac};
use crate::frames;
use crate::wire::Discovery;

/// A contested address is defended at most this often (RFC 5227 §2.4, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Claims of the same machine that follow one another within this time are one event.
const SAID_AGAIN: Duration = Duration::from_secs(1);

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

impl Upkeep {
    /// Says that the address is here. What cannot be sent is sent the next time.
    pub(super) fn announce(&mut self, at: usize, now: Instant) {
        let kept = &mut self.kept[at];
        kept.schedule.announced(now);
        let (address, index, mac) = (kept.vip.address, kept.interface.index, kept.interface.mac);
        let may = kept.interface.index != 0 && kept.lease.running(Instant::now()).is_some();
        let Some(mac) = mac.filter(|_| may) else { return };
        let sent = match address {
            IpAddr::V4(ip) => self.wire(index).and_then(|wire| {
                frames::announcements(mac, ip).iter().try_for_each(|frame| wire.send(frame))
            }),
            IpAddr::V6(ip) => Discovery::send_from(ip, &frames::advertisement(mac, ip), ALL_NODES, index),
        };
        if sent.is_ok() {
            self.kept[at].show(|facts| {
                facts.last_announcement = Some(now);
                facts.announcements += 1;
            });
        }
    }

    /// Asks whether anybody else has the address; the answer counts as a conflict when it comes.
    pub(super) fn probe(&mut self, at: usize) {
        let kept = &self.kept[at];
        let (address, index) = (kept.vip.address, kept.interface.index);
        let Some(mac) = kept.interface.mac else { return };
        // Detection goes on without the question.
        let _ = match address {
            IpAddr::V4(ip) => self.wire(index).and_then(|wire| wire.send(&frames::probe(mac, ip))),
            IpAddr::V6(ip) => self.tell(&frames::solicitation(mac, ip), frames::solicited_node(ip), index),
        };
    }

    fn tell(&self, message: &[u8], to: Ipv6Addr, index: u32) -> std::io::Result<()> {
        self.discovery.as_ref().map_or(Ok(()), |discovery| discovery.send(message, to, index))
    }

    /// Somebody claims an address of ours, heard on the interface `index` where that is known.
    pub(super) fn contested(&mut self, at: usize, index: Option<u32>, mac: Mac) {
        let now = Instant::now();
        let kept = &mut self.kept[at];
        let elsewhere = index.is_some_and(|index| index != kept.interface.index);
        if elsewhere || kept.interface.mac == Some(mac) || kept.lease.running(now).is_none() {
            return;
        }
        let mut before = None;
        kept.show(|facts| {
            facts.conflicts += 1;
            before = facts.last_conflict.replace((mac, now));
        });
        let defend = kept.defended.is_none_or(|last| now.saturating_duration_since(last) >= DEFEND_INTERVAL);
        if defend {
            kept.defended = Some(now);
        }
        let address = kept.vip.address;
        if defend {
            self.announce(at, now);
        }
        if before.is_none_or(|(who, when)| who != mac || now.saturating_duration_since(when) >= SAID_AGAIN) {
            self.say(Event::Conflict { address, mac });
        }
    }
}
