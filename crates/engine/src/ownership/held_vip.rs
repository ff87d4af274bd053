//! VIPs on this member's interfaces, one by one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::OnQuorumLoss;

use super::action::OwnershipAction;
use super::announcement::AnnouncementSchedule;
use super::lease::LeaseTiming;
use super::state::HeldVipFacts;
use super::vip::ServedVip;
use super::{Ownership, RETRY, RetryTimer};

/// A VIP that was claimed and of which the kernel has not yet said that it is gone.
#[derive(Debug, Clone)]
pub(super) struct HeldVip {
    /// As it was claimed.
    pub(super) vip: Arc<ServedVip>,
    /// When the fence shuts by itself.
    pub(super) until: Duration,
    pub(super) releasing: bool,
    pub(super) without_quorum: bool,
    since: Duration,
    /// Last report of the kernel: address present, fence open. `None` since the claim.
    pub(super) reported: Option<(bool, bool)>,
    /// Last time that the kernel was told to add or remove it.
    command_timer: RetryTimer,
    announcements: AnnouncementSchedule,
    foreign: Option<Duration>,
}

impl HeldVip {
    fn claimed(vip: Arc<ServedVip>, until: Duration, now: Duration) -> Self {
        Self {
            vip,
            until,
            releasing: false,
            without_quorum: false,
            since: now,
            reported: None,
            command_timer: RetryTimer(Some(now)),
            announcements: AnnouncementSchedule::new(now),
            foreign: None,
        }
    }

    /// Whether it stays on the same interface with the same prefix.
    fn same_interface(&self, wanted: Option<&Arc<ServedVip>>) -> bool {
        wanted.is_some_and(|vip| vip.interface == self.vip.interface && vip.prefix_len == self.vip.prefix_len)
    }

    /// True when an announcement is due; notes it as sent.
    fn announces(&mut self, now: Duration) -> bool {
        let there = self.reported.is_none_or(|(present, _)| present);
        let announces = there && now >= self.announcements.due();
        if announces {
            self.announcements.sent(now);
        }
        announces
    }

    fn is_in_force(&self) -> bool {
        self.reported == Some((true, true))
    }

    pub(super) fn facts(&self, address: IpAddr) -> HeldVipFacts {
        let (present, open) = self.reported.unwrap_or_default();
        HeldVipFacts {
            address,
            present,
            open,
            until: self.until,
            since: self.since,
            releasing: self.releasing,
            without_quorum: self.without_quorum,
            announced: self.announcements.last(),
            foreign: self.foreign,
        }
    }

    pub(super) fn next_wake(&self, lease: &LeaseTiming, now: Duration) -> Duration {
        let retry = now.saturating_add(RETRY);
        if self.releasing {
            return retry;
        }
        let hold = self.vip.on_quorum_loss == OnQuorumLoss::Hold;
        let end = if hold { self.until.saturating_sub(lease.length / 2) } else { self.until };
        end.min(if self.is_in_force() { self.announcements.due() } else { retry })
    }
}

impl Ownership {
    /// Whether every fence of this member has shut, by report or by itself.
    pub(super) fn all_shut(&self, now: Duration) -> bool {
        self.held.values().all(|held| now >= held.until.saturating_add(self.lease.fence_error))
    }

    /// Releases what is not to be served any more.
    pub(super) fn release_lapsed(
        &mut self,
        serve_until: Option<Duration>,
        now: Duration,
        actions: &mut Vec<OwnershipAction>,
    ) {
        let eligible_term = self.eligible_term().is_some();
        for (address, held) in &mut self.held {
            let wanted = self.vips.get(address);
            if let Some(vip) = wanted.filter(|_| held.same_interface(wanted)) {
                held.vip = vip.clone();
            }
            let hold = held.vip.on_quorum_loss == OnQuorumLoss::Hold;
            // Without a quorum a fence that is open may be kept open. One that has shut stays shut: another member may have
            // begun to serve.
            held.without_quorum = serve_until.is_none() && hold && eligible_term && now < held.until;
            // A fence that was kept open beyond the lease cannot be made to shut earlier, so its VIP is released.
            let covered = serve_until.is_some_and(|until| hold || held.until <= until);
            let keep = held.same_interface(wanted) && (covered || held.without_quorum);
            if !keep && !held.releasing {
                (held.releasing, held.command_timer) = (true, RetryTimer::default());
            }
            if held.releasing && held.command_timer.due(now, RETRY) {
                let interface = held.vip.interface.clone();
                actions.push(OwnershipAction::Release { address: *address, interface });
            }
        }
    }

    /// Claims, renews, repairs and announces what is to be served.
    pub(super) fn claim_and_renew(
        &mut self,
        serve_until: Option<Duration>,
        now: Duration,
        actions: &mut Vec<OwnershipAction>,
    ) {
        for (&address, vip) in &self.vips {
            match (self.held.get_mut(&address), serve_until) {
                (Some(held), _) if held.releasing => {}
                (Some(held), _) if now < held.until => {
                    let mut until = held.until.max(serve_until.unwrap_or_default());
                    if held.vip.on_quorum_loss == OnQuorumLoss::Hold
                        && until.saturating_sub(now) <= self.lease.length / 2
                    {
                        until = now.saturating_add(self.lease.length);
                    }
                    if until > held.until {
                        held.until = until;
                        actions.push(OwnershipAction::Renew { address, until });
                    }
                }
                // Nothing is held, or its fence has shut by itself: this process was stopped, or no heartbeat was answered.
                (_, Some(until)) => {
                    self.held.insert(address, HeldVip::claimed(vip.clone(), until, now));
                    actions.push(OwnershipAction::Claim { address, vip: vip.clone(), until });
                }
                (_, None) => {}
            }
        }
        for (&address, held) in self.held.iter_mut().filter(|(_, held)| !held.releasing) {
            if !held.is_in_force() && held.command_timer.due(now, RETRY) {
                let (vip, until) = (held.vip.clone(), held.until);
                actions.push(OwnershipAction::Repair { address, vip, until });
                held.announcements.restart(now);
                held.reported = None;
            }
            if held.announces(now) {
                actions.push(OwnershipAction::Announce { address });
            }
        }
    }

    /// Takes the kernel's report.
    pub(super) fn reported(&mut self, address: IpAddr, present: bool, open: bool, now: Duration) {
        let Some(held) = self.held.get_mut(&address) else { return };
        if held.releasing && !present && !open {
            self.held.remove(&address);
            return;
        }
        // An address that came back was silent for a while.
        if present && held.reported.is_some_and(|(before, _)| !before) {
            held.announcements.restart(now);
        }
        held.reported = Some((present, open));
    }

    /// Another host claims a VIP. The claim of the later term wins, and a host that is no member has none.
    pub(super) fn foreign(&mut self, address: IpAddr, term: Option<u64>, now: Duration) {
        let Some(held) = self.held.get_mut(&address) else { return };
        held.foreign = Some(now);
        let mine = self.leader_term.as_ref().map_or(0, |leader_term| leader_term.term);
        match term {
            Some(theirs) if theirs > mine => self.barred_term = self.barred_term.max(theirs - 1),
            _ => held.announcements.answer(now),
        }
    }

    /// Neighbours may have forgotten what was announced.
    pub(super) fn link_restored(&mut self, now: Duration) {
        self.held.values_mut().for_each(|held| held.announcements.restart(now));
    }
}
