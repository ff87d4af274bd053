//! One machine, a kernel that does as it is told, and a log that agrees to everything at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::MemberId;

use super::super::{Action, Elected, Event, Lease, Ownership, Standing, Tenure, Vip};

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
    /// A member that has scrubbed and is told these VIPs.
    pub(super) fn with(vips: &[(IpAddr, Vip)]) -> Self {
        let mut bench = Self { machine: Ownership::new(ME, Lease::default()), now: ms(10_000) };
        assert_eq!(bench.tell(Event::Tick)[0], Action::Scrub);
        bench.tell(Event::Scrubbed);
        bench.configure(vips);
        bench.tell(Event::Targets(vec![OTHER, THIRD]));
        bench
    }

    pub(super) fn plain() -> Self {
        Self::with(&[(vip(100), Vip::on("eth0", 24))])
    }

    /// The same, serving in term 1.
    pub(super) fn serving(vips: &[(IpAddr, Vip)]) -> Self {
        let mut bench = Self::with(vips);
        bench.lead(1);
        bench.ack();
        assert!(matches!(bench.machine.standing(bench.now), Standing::Serving { .. }));
        bench
    }

    pub(super) fn configure(&mut self, vips: &[(IpAddr, Vip)]) -> Vec<Action> {
        let vips: BTreeMap<_, _> = vips.iter().map(|(a, vip)| (*a, Arc::new(vip.clone()))).collect();
        self.tell(Event::Vips(vips))
    }

    /// Leads by an election by time-out, and has its tenure.
    pub(super) fn lead(&mut self, term: u64) -> Vec<Action> {
        self.tell(Event::Leading { term, elected: Elected::ByTimeout });
        self.agree(term, ME, false)
    }

    pub(super) fn agree(&mut self, term: u64, member: MemberId, released: bool) -> Vec<Action> {
        let tenure = Some(Tenure { member, term, reach: Lease::default().reach(), released });
        self.tell(Event::Applied { term, tenure })
    }

    /// A quorum answers a heartbeat sent now.
    pub(super) fn ack(&mut self) -> Vec<Action> {
        let sent = self.now;
        let Some(term) = self.machine.reign.as_ref().map(|reign| reign.term) else { return Vec::new() };
        self.tell(Event::QuorumAcked { term, sent })
    }

    /// Tells an event, and the kernel's reports of what follows from it. The wish to be woken is left out.
    pub(super) fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut done = Vec::new();
        for action in self.machine.handle(event, self.now) {
            let report = |address, there| Event::Kernel { address, present: there, open: there };
            let next = match action {
                Action::WakeAt(at) => {
                    assert!(at > self.now);
                    continue;
                }
                Action::Claim { address, .. } | Action::Repair { address, .. } => Some(report(address, true)),
                Action::Release { address, .. } => Some(report(address, false)),
                _ => None,
            };
            done.push(action);
            done.extend(next.map(|event| self.tell(event)).unwrap_or_default());
        }
        done
    }

    pub(super) fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.tell(Event::Tick)
    }

    pub(super) fn holds(&self) -> Vec<IpAddr> {
        self.machine.facts().filter(|facts| facts.open && self.now < facts.until).map(|f| f.address).collect()
    }
}
