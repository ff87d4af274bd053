//! A listener as the table has it: its addresses on this member, and what came in through it.

use std::net::SocketAddr;
use std::sync::Arc;

use trestle_model::{self as model, Bind};

use crate::accept::admission::Admission;
use crate::accept::bind::{self, BindError, BindFailure};
use crate::observe::counters::Counters;

/// A listener on this member.
#[derive(Debug)]
pub struct Listener {
    /// Its configuration.
    pub config: Arc<model::Listener>,
    /// Its addresses on this member, in the order of the configuration.
    pub binds: Vec<BindStatus>,
    /// What came in through it.
    pub(crate) counters: Arc<Counters>,
    pub(crate) admission: Arc<Admission>,
}

impl Listener {
    /// Counts one more connection, if the listener may have one now.
    pub(crate) fn try_admit(&self) -> bool {
        self.admission.try_admit(&self.config.spec, &self.counters)
    }

    /// Waits until the listener may have one more connection, and counts it.
    pub(crate) async fn admit(&self) {
        self.admission.admit(&self.config.spec, &self.counters).await;
    }

    /// A connection that was counted has ended.
    pub(crate) fn release(&self) {
        self.counters.release();
        self.admission.release();
    }

    /// The addresses that accept connections.
    pub fn bound(&self) -> impl Iterator<Item = SocketAddr> {
        self.binds.iter().filter(|b| b.error.is_none()).map(|b| b.effective)
    }

    /// The other addresses, with what keeps them from being bound; that they wait for the first checks or for their turn is no
    /// error.
    pub fn failed(&self) -> impl Iterator<Item = (SocketAddr, &BindError)> {
        let failed = self.binds.iter().filter_map(|b| Some((b.effective, b.error.as_ref()?)));
        failed.filter(|(_, error)| !error.is_passing())
    }

    /// What keeps addresses from being bound, in words: one text for each reason.
    pub fn errors(&self) -> Vec<String> {
        bind::told(self.failed())
    }

    /// What keeps addresses from being bound, by reason: the first eight reasons.
    pub fn bind_failures(&self) -> Vec<BindFailure> {
        bind::failures(self.failed()).0
    }

    /// Whether it waits for the first checks of its backends.
    pub fn is_unchecked(&self) -> bool {
        self.binds.iter().any(|b| b.error == Some(BindError::Unchecked))
    }
}

/// One socket address of a listener on this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindStatus {
    /// The address as configured.
    pub configured: Bind,
    /// The address on this member: its data address in place of a wildcard, if it has one of that family.
    pub effective: SocketAddr,
    /// Why it does not accept connections, if it does not.
    pub error: Option<BindError>,
}
