//! The fence itself: who may be reached, until when.
//!
//! `nft` is not called. netlink-packet-netfilter 0.4 can build the ruleset, with the same bytes in each message and no fewer lines
//! (it has no `fib` expression, and drops by a bare number); three crates more for that are not worth it, and renewals must not
//! allocate, which its messages do. So [`batch`] writes all of them.

mod batch;
mod difference;
#[cfg(test)]
pub(crate) mod fuzz;
mod monitor;
mod numbers;
mod reading;
mod restoring;
mod ruleset;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::NLM_F_CREATE;
use rustix::net::netlink;
use trestle_engine::ownership::FENCE_ERROR;

use crate::netlink::{NLMSG_ERROR, Socket, messages};
use batch::Batch;
use numbers::{
    DATA_VALUE, DEL_ELEMENT, ELEMENT_KEY, ELEMENT_TIMEOUT, ELEMENTS_LIST, ELEMENTS_SET, ELEMENTS_TABLE,
    FAMILY_ARP, FAMILY_INET, FAMILY_NETDEV, LIST_ELEMENT, NEW_ELEMENT,
};
use ruleset::{GUARD, GUARD_KEY, LEASE4, LEASE6, QUIET4, QUIET6, VIPS4, VIPS6};

pub(crate) use monitor::{RulesetChanges, RulesetMonitor};
pub(crate) use reading::TableNames;

/// Longest time between reading the clock and arming the fence, and so the most by which the fence shuts late: the README of
/// `trestle_engine::ownership` has the argument. The kernel counts in ticks of 1, 4 or 10 ms; it must be at least one of them.
pub(crate) const GUARD_TIME: Duration = FENCE_ERROR;

/// Attempts at a transaction that another one, a slow thread or a tick of the kernel's clock came in between.
const ATTEMPTS: u32 = 5;

/// Sequence numbers set aside for one transaction.
const TRANSACTION_MAX: u32 = 4096;

/// Shortest timeout worth arming: below a tick the kernel takes it for "no timeout".
const SHORTEST: Duration = Duration::from_millis(10);

/// A timeout to arm: of which address, until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FenceTimeout {
    pub(crate) address: IpAddr,
    pub(crate) until: Instant,
}

/// The tables of one member in this network namespace.
#[derive(Debug)]
pub(crate) struct Nft {
    socket: Socket,
    batch: Batch,
    table: String,
    /// Whether this kernel has the netdev family.
    netdev: bool,
    /// Whether it can fence what leaves through packet sockets (Linux 5.16, `NETFILTER_EGRESS`).
    egress: bool,
    /// Interfaces on which what packet sockets send is fenced, by number, with their names.
    guarded: BTreeMap<u32, String>,
}

/// What the kernel is to have of a member's addresses.
#[derive(Debug, Default)]
pub(crate) struct DesiredFence {
    /// Fenced, open or not.
    pub(crate) fenced: Vec<IpAddr>,
    /// Open until then.
    pub(crate) leases: Vec<FenceTimeout>,
    /// Without new connections until then.
    pub(crate) quiet: Vec<FenceTimeout>,
}

fn octets(address: IpAddr, into: &mut [u8; 16]) -> &[u8] {
    match address {
        IpAddr::V4(ip) => {
            into[..4].copy_from_slice(&ip.octets());
            &into[..4]
        }
        IpAddr::V6(ip) => {
            *into = ip.octets();
            into
        }
    }
}

/// The sets of leases, or with `leases` false those of fenced addresses, that an address of this family is in.
fn sets(ipv4: bool, leases: bool) -> &'static [(u8, &'static str)] {
    match (ipv4, leases) {
        (true, true) => &[(FAMILY_INET, LEASE4), (FAMILY_ARP, LEASE4), (FAMILY_NETDEV, LEASE4)],
        (true, false) => &[(FAMILY_INET, VIPS4), (FAMILY_ARP, VIPS4), (FAMILY_NETDEV, VIPS4)],
        (false, true) => &[(FAMILY_INET, LEASE6)],
        (false, false) => &[(FAMILY_INET, VIPS6)],
    }
}

impl Nft {
    /// For tables of this name; nothing is changed yet.
    pub(crate) fn open(table: &str) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(Some(netlink::NETFILTER), 0)?,
            batch: Batch::default(),
            table: table.to_owned(),
            netdev: true,
            egress: true,
            guarded: BTreeMap::new(),
        })
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Whether announcements are fenced as well.
    pub(crate) fn fences_announcements(&self) -> bool {
        self.egress
    }

    fn begin(&mut self) {
        let first = self.socket.number(TRANSACTION_MAX);
        self.batch.begin(first);
    }

    /// Sends the transaction and hears whether it took effect.
    fn commit(&mut self) -> io::Result<()> {
        let (first, last) = self.batch.end();
        self.socket.send(self.batch.bytes())?;
        let mut failed = None;
        while let Some(bytes) = self.socket.receive_waiting()? {
            for answer in messages(bytes).filter(|answer| answer.kind == NLMSG_ERROR) {
                let place = answer.sequence.wrapping_sub(first);
                if place > last.wrapping_sub(first) {
                    // An answer to an earlier transaction that was not waited for.
                    continue;
                }
                failed = failed.or(answer.error());
                // What concerns the transaction as a whole, such as a missing right, is told of its beginning.
                if place == 0 || answer.sequence == last {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer")))
    }

    /// Adds or removes elements of one set, with their timeouts in milliseconds.
    fn elements(
        &mut self,
        kind: u16,
        family: u8,
        set: &str,
        of: impl Iterator<Item = (IpAddr, Option<u64>)>,
    ) {
        let flags = if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 };
        self.batch.message(kind, family, flags);
        self.batch.put_text(ELEMENTS_TABLE, &self.table);
        self.batch.put_text(ELEMENTS_SET, set);
        let list = self.batch.open(ELEMENTS_LIST);
        for (address, milliseconds) in of {
            let mut buffer = [0; 16];
            element(&mut self.batch, octets(address, &mut buffer), milliseconds);
        }
        self.batch.close(list);
    }

    /// Adds elements with timeouts, or gives those that are there new ones, which by itself only Linux 6.12 and later do.
    fn timed_elements(
        &mut self,
        family: u8,
        set: &str,
        timed: impl Iterator<Item = (IpAddr, Option<u64>)> + Clone,
    ) {
        let untimed = || timed.clone().map(|(ip, _)| (ip, None));
        self.elements(NEW_ELEMENT, family, set, untimed());
        self.elements(DEL_ELEMENT, family, set, untimed());
        self.elements(NEW_ELEMENT, family, set, timed);
    }

    /// Removes an element, there or not. When it expires meanwhile the transaction is to be tried again.
    fn no_element(&mut self, family: u8, set: &str, address: IpAddr) {
        // Adding first lets the removal succeed when it was not there, or has just expired.
        self.elements(NEW_ELEMENT, family, set, std::iter::once((address, None)));
        self.elements(DEL_ELEMENT, family, set, std::iter::once((address, None)));
    }

    fn guard(&mut self, kind: u16, milliseconds: Option<u64>) {
        let flags = if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 };
        self.batch.message(kind, FAMILY_INET, flags);
        self.batch.put_text(ELEMENTS_TABLE, &self.table);
        self.batch.put_text(ELEMENTS_SET, GUARD);
        let list = self.batch.open(ELEMENTS_LIST);
        element(&mut self.batch, &GUARD_KEY, milliseconds);
        self.batch.close(list);
    }

    fn set_guard(&mut self) {
        self.guard(NEW_ELEMENT, Some(u64::try_from(GUARD_TIME.as_millis()).unwrap_or(1)));
    }

    fn sets(&self, ipv4: bool, leases: bool) -> impl Iterator<Item = (u8, &'static str)> + use<> {
        let netdev = self.netdev;
        sets(ipv4, leases).iter().copied().filter(move |(family, _)| netdev || *family != FAMILY_NETDEV)
    }

    /// Replaces whatever tables of this name there are by new ones in which `fenced` are fenced and nothing is open.
    pub(crate) fn install(&mut self, fenced: &[IpAddr]) -> io::Result<()> {
        self.guarded.clear();
        self.netdev = true;
        self.egress = true;
        self.try_install(fenced).or_else(|_| {
            // A kernel without the netdev family can still fence everything but announcements.
            self.netdev = false;
            self.egress = false;
            self.try_install(fenced)
        })
    }

    fn try_install(&mut self, fenced: &[IpAddr]) -> io::Result<()> {
        self.begin();
        self.tables_and_fenced(fenced);
        self.commit()
    }

    /// New tables, with all that they fence, as part of a transaction.
    fn tables_and_fenced(&mut self, fenced: &[IpAddr]) {
        ruleset::replace_tables(&mut self.batch, &self.table, self.netdev);
        for ipv4 in [true, false] {
            let addresses = || fenced.iter().filter(move |ip| ip.is_ipv4() == ipv4).map(|ip| (*ip, None));
            if addresses().next().is_some() {
                for (family, set) in self.sets(ipv4, false) {
                    self.elements(NEW_ELEMENT, family, set, addresses());
                }
            }
        }
    }

    /// Removes the tables.
    pub(crate) fn uninstall(&mut self) -> io::Result<()> {
        self.begin();
        for family in [FAMILY_INET, FAMILY_ARP, FAMILY_NETDEV] {
            if self.netdev || family != FAMILY_NETDEV {
                ruleset::drop_table(&mut self.batch, family, &self.table);
            }
        }
        self.commit()
    }

    /// Fences what packet sockets send on an interface, if the kernel can.
    pub(crate) fn guard_egress(&mut self, index: u32, device: &str) {
        if !self.egress || self.guarded.get(&index).is_some_and(|name| name == device) {
            return;
        }
        // Rules go by the name of the interface, which has changed.
        self.unguard_egress(index);
        self.begin();
        ruleset::guard_egress(&mut self.batch, &self.table, index, device);
        self.egress = self.commit().is_ok();
        self.guarded.insert(index, device.to_owned());
    }

    /// Ends that, of an interface that is gone, too.
    pub(crate) fn unguard_egress(&mut self, index: u32) {
        if self.guarded.remove(&index).is_some() {
            self.begin();
            ruleset::unguard_egress(&mut self.batch, &self.table, index);
            // Before Linux 6.16 the chain has gone with its interface.
            let _ = self.commit();
        }
    }

    /// Fences an address: nothing passes until it is armed, and everything from then on.
    pub(crate) fn enclose(&mut self, address: IpAddr) -> io::Result<()> {
        self.retried(|nft| {
            nft.begin();
            for (family, set) in nft.sets(address.is_ipv4(), false) {
                nft.elements(NEW_ELEMENT, family, set, std::iter::once((address, None)));
            }
            nft.no_element(FAMILY_INET, if address.is_ipv4() { QUIET4 } else { QUIET6 }, address);
            nft.commit()
        })
    }

    /// Drops what would open a connection to these addresses until the times given; times that are past or all but past are
    /// passed over. Nothing hangs on their being late.
    pub(crate) fn quiesce(&mut self, quiet: &[FenceTimeout]) -> io::Result<()> {
        self.retried(|nft| {
            let now = Instant::now();
            nft.begin();
            for (ipv4, set) in [(true, QUIET4), (false, QUIET6)] {
                let due = quiet.iter().filter_map(move |quiet| timed(quiet, ipv4, now));
                if due.clone().next().is_some() {
                    nft.timed_elements(FAMILY_INET, set, due);
                }
            }
            nft.commit()
        })
    }

    /// Closes the fence of an address at once.
    pub(crate) fn shut(&mut self, address: IpAddr) -> io::Result<()> {
        self.remove(address, true)
    }

    /// Takes the fence of an address away, shut or not.
    pub(crate) fn forget(&mut self, address: IpAddr) -> io::Result<()> {
        self.remove(address, false)
    }

    fn remove(&mut self, address: IpAddr, leases: bool) -> io::Result<()> {
        self.retried(|nft| {
            nft.begin();
            for (family, set) in nft.sets(address.is_ipv4(), leases) {
                nft.no_element(family, set, address);
            }
            // Nothing passes any more, or all does; what was kept out for a time would look like another program's doing.
            nft.no_element(FAMILY_INET, if address.is_ipv4() { QUIET4 } else { QUIET6 }, address);
            nft.commit()
        })
    }

    /// Opens the fence for these addresses until their deadlines, for all or for none; deadlines that are past or all but
    /// past are left to expire.
    ///
    /// Timeouts are relative, so a thread that is stopped between reading the clock and the kernel's taking the message
    /// would open the fence too long. Therefore the transaction starts by removing a guard element that was added *before*
    /// the clock was read and that expires after [`GUARD_TIME`]: if it is gone, the whole transaction fails. From there on
    /// it is one system call, which takes effect as a whole or not at all.
    pub(crate) fn arm(&mut self, leases: &[FenceTimeout]) -> io::Result<()> {
        self.arm_by(leases, Instant::now)
    }

    /// As [`Self::arm`], with the time that `clock` tells.
    pub(crate) fn arm_by(&mut self, leases: &[FenceTimeout], clock: impl Fn() -> Instant) -> io::Result<()> {
        self.retried(|nft| {
            nft.begin();
            nft.set_guard();
            nft.commit().map_err(|error| match error.raw_os_error() {
                // Adding fails so only without its table.
                Some(libc::ENOENT) => io::Error::new(io::ErrorKind::NotFound, "tables are gone"),
                _ => error,
            })?;
            let now = clock();
            nft.begin();
            nft.guard(DEL_ELEMENT, None);
            for ipv4 in [true, false] {
                let due = leases.iter().filter_map(move |lease| timed(lease, ipv4, now));
                if due.clone().next().is_none() {
                    continue;
                }
                for (family, set) in nft.sets(ipv4, true) {
                    nft.timed_elements(family, set, due.clone());
                }
            }
            nft.commit()
        })
    }

    /// Runs a transaction again when an element expired while the kernel was at it.
    fn retried(&mut self, mut transaction: impl FnMut(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let mut outcome = transaction(self);
        for _ in 1..ATTEMPTS {
            match &outcome {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => {
                    outcome = transaction(self);
                }
                _ => break,
            }
        }
        outcome
    }
}

/// An address of the wanted family and the milliseconds that its timeout runs for yet, rounded down.
fn timed(armed: &FenceTimeout, ipv4: bool, now: Instant) -> Option<(IpAddr, Option<u64>)> {
    let left = armed.until.saturating_duration_since(now);
    let wanted = armed.address.is_ipv4() == ipv4 && left >= SHORTEST;
    wanted.then(|| (armed.address, u64::try_from(left.as_millis()).ok()))
}

fn element(batch: &mut Batch, key: &[u8], milliseconds: Option<u64>) {
    let element = batch.open(LIST_ELEMENT);
    let nest = batch.open(ELEMENT_KEY);
    batch.put(DATA_VALUE, key);
    batch.close(nest);
    if let Some(milliseconds) = milliseconds {
        batch.put(ELEMENT_TIMEOUT, &milliseconds.to_be_bytes());
    }
    batch.close(element);
}
