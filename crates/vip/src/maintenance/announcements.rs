//! Telling the network where an address is, and hearing that somebody else says so.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::Maintenance;
use crate::event::{KernelEvent, Mac};
use crate::frames;
use crate::sockets::NeighborSocket;

/// Claims of the same machine that come within this time after one was told of are only counted.
const CONFLICT_REPEAT: Duration = Duration::from_secs(5);

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

impl Maintenance {
    /// Sends one announcement of an address that is here. One that cannot be sent is not made up for.
    pub(super) fn announce(&mut self, at: usize, now: Instant) {
        let held = &self.held[at];
        let (address, index, mac) = (held.vip.address, held.interface.index, held.interface.mac);
        let may = held.present && held.interface.index != 0 && held.lease.running(Instant::now()).is_some();
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
        held.show(|facts| {
            facts.conflicts += 1;
            facts.last_conflict = Some((mac, now));
        });
        let told = held
            .conflict_told
            .filter(|(who, when)| *who == mac && now.saturating_duration_since(*when) < CONFLICT_REPEAT);
        if told.is_none() {
            held.conflict_told = Some((mac, now));
            let address = held.vip.address;
            self.emit(KernelEvent::Conflict { address, mac });
        }
    }
}
