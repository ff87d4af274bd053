//! A backend as the table has it: its settings, its verdict and where it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use trestle_engine::Verdict;
use trestle_model::{self as model, AdminState, PoolName};

use crate::machine::shortage::Shortage;
use crate::observe::check_result::CheckResult;
use crate::observe::history::{VerdictChange, VerdictHistory};
use crate::upstream::backend_runtime::BackendRuntime;

/// A backend as this member sees it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its configuration.
    pub config: Arc<model::Backend>,
    /// What this member thinks of it.
    pub verdict: Verdict,
    /// The check result that the verdict rests on.
    pub reason: CheckResult,
    /// The address that was checked, of a backend that is known by name.
    pub reason_ip: Option<IpAddr>,
    /// What keeps this member from checking it now, if anything does; then the verdict stays as it was.
    pub unchecked: Option<Shortage>,
    /// Since when the verdict stands.
    pub since: Instant,
    /// Where it is dialled: its address, or the one in use of those of its name; `None` while that is not known.
    pub ip: Option<IpAddr>,
    /// What its name stands for, in the order in which it is tried; empty for a backend that is known by its address.
    pub addresses: Arc<[IpAddr]>,
    pub(crate) history: VerdictHistory,
    /// When it came back: it became healthy after it was unhealthy, or was enabled after it was drained or disabled.
    pub(crate) risen: Option<Instant>,
    /// When the connections that are left are closed, because it is drained with a deadline.
    pub drain_ends: Option<Instant>,
    pub(crate) runtime: Arc<BackendRuntime>,
    /// Value of [`BackendRuntime::epoch`] that connections picked from this entry belong to.
    pub(crate) epoch: u32,
}

impl Backend {
    /// Where it is dialled for a client that dialled the port `dialled`; `None` while its name's address is not known.
    pub(crate) fn address(&self, dialled: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip?, self.config.spec.address.port_for(dialled)))
    }

    /// The pool that it belongs to.
    pub fn pool(&self) -> &PoolName {
        &self.runtime.pool
    }

    /// The last 16 changes of its verdict, the oldest first; it begins as unknown.
    pub fn history(&self) -> &[VerdictChange] {
        self.history.changes()
    }

    /// Takes note that it has other settings than `before`.
    pub(crate) fn admit(&mut self, before: &model::Backend, at: Instant) {
        let enabled = |settings: &model::Backend| settings.admin_state == AdminState::Enabled;
        if enabled(&self.config) && !enabled(before) {
            self.risen = Some(at);
        }
    }

    /// Its other addresses, beginning with the one after that in use.
    pub fn other_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let current = self.addresses.iter().position(|ip| Some(*ip) == self.ip);
        let (before, from) = self.addresses.split_at(current.unwrap_or(0));
        from.iter().skip(usize::from(current.is_some())).chain(before).copied()
    }

    /// Takes over a verdict or another reason for the one that stands.
    pub(crate) fn judge(&mut self, verdict: Verdict, reason: CheckResult, at: Instant) {
        if self.verdict != verdict {
            // Not where a backend only counts as unhealthy until its first check has ended.
            let was_down = self.verdict == Verdict::Unhealthy && self.reason != CheckResult::Awaited;
            match verdict {
                Verdict::Healthy if was_down => self.risen = Some(at),
                Verdict::Unhealthy => self.risen = None,
                Verdict::Healthy | Verdict::Unknown => {}
            }
            if verdict == Verdict::Unhealthy {
                self.runtime.went_down();
            }
            (self.verdict, self.since) = (verdict, at);
            self.history.add(VerdictChange { at, verdict, reason: reason.clone(), ip: self.reason_ip });
        }
        (self.reason, self.unchecked) = (reason, None);
    }

    /// Why the verdict is what it is, in words, and what keeps this member from checking it.
    pub fn grounds(&self) -> String {
        let mut grounds = self.reason.at(self.reason_ip);
        let others = self.addresses.len().saturating_sub(1);
        if others > 0 && self.verdict == Verdict::Unhealthy && self.reason != CheckResult::Awaited {
            grounds = format!("{grounds}; its other addresses ({others}) fail too");
        }
        match &self.unchecked {
            Some(shortage) => format!("{grounds}; now {}", CheckResult::NotMade(shortage.clone())),
            None => grounds,
        }
    }
}
