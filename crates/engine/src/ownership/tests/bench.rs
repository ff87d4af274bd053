//! One machine, a kernel that does as it is told, and a log that agrees to everything at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::MemberId;

use super::super::{
    Elected, LeaseTiming, Ownership, OwnershipAction, OwnershipEvent, OwnershipState, ServedVip, Tenure,
};

pub(super) const ME: MemberId = MemberId(1);
pub(super) const OTHER: MemberId = MemberId(2);
pub(super) const THIRD: MemberId = MemberId(3);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn vip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 3, last])
}

pub(super) struct Bench {
    pub(super) machine: Ownership,
    pub(super) now: Duration,
}

impl Bench {
    /// A member that is told these VIPs.
    pub(super) fn with(vips: &[(IpAddr, ServedVip)]) -> Self {
        let mut bench = Self { machine: Ownership::new(ME, LeaseTiming::default()), now: ms(10_000) };
        bench.configure(vips);
        bench.tell(OwnershipEvent::Targets(vec![OTHER, THIRD]));
        bench
    }

    pub(super) fn plain() -> Self {
        Self::with(&[(vip(100), ServedVip::on("eth0", 24))])
    }

    /// The same, serving in term 1.
    pub(super) fn serving(vips: &[(IpAddr, ServedVip)]) -> Self {
        let mut bench = Self::with(vips);
        bench.lead(1);
        bench.ack();
        assert!(matches!(bench.machine.state(bench.now), OwnershipState::Serving { .. }));
        bench
    }

    pub(super) fn configure(&mut self, vips: &[(IpAddr, ServedVip)]) -> Vec<OwnershipAction> {
        let vips: BTreeMap<_, _> = vips.iter().map(|(a, vip)| (*a, Arc::new(vip.clone()))).collect();
        self.tell(OwnershipEvent::Vips(vips))
    }

    /// Leads by an election by time-out, and has its tenure.
    pub(super) fn lead(&mut self, term: u64) -> Vec<OwnershipAction> {
        self.tell(OwnershipEvent::Leading { term, elected: Elected::ByTimeout });
        self.agree(term, ME, false)
    }

    pub(super) fn agree(&mut self, term: u64, member: MemberId, released: bool) -> Vec<OwnershipAction> {
        let tenure = Some(Tenure { member, term, reach: LeaseTiming::default().reach(), released });
        self.tell(OwnershipEvent::Applied { term, tenure })
    }

    /// A quorum answers a heartbeat sent now.
    pub(super) fn ack(&mut self) -> Vec<OwnershipAction> {
        let sent = self.now;
        let Some(term) = self.machine.leader_term.as_ref().map(|leader_term| leader_term.term) else {
            return Vec::new();
        };
        self.tell(OwnershipEvent::QuorumAcked { term, sent })
    }

    /// Tells an event, and the kernel's reports of what follows from it. The wish to be woken is left out.
    pub(super) fn tell(&mut self, event: OwnershipEvent) -> Vec<OwnershipAction> {
        let mut done = Vec::new();
        for action in self.machine.handle(event, self.now) {
            let report = |address, there| OwnershipEvent::Kernel { address, present: there, open: there };
            let next = match action {
                OwnershipAction::WakeAt(at) => {
                    assert!(at > self.now);
                    continue;
                }
                OwnershipAction::Claim { address, .. } | OwnershipAction::Repair { address, .. } => {
                    Some(report(address, true))
                }
                OwnershipAction::Release { address, .. } => Some(report(address, false)),
                _ => None,
            };
            done.push(action);
            done.extend(next.map(|event| self.tell(event)).unwrap_or_default());
        }
        done
    }

    pub(super) fn pass(&mut self, time: Duration) -> Vec<OwnershipAction> {
        self.now += time;
        self.tell(OwnershipEvent::Tick)
    }

    pub(super) fn holds(&self) -> Vec<IpAddr> {
        self.machine.facts().filter(|facts| facts.open && self.now < facts.until).map(|f| f.address).collect()
    }
}
