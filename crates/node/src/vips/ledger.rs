//! Raft's log, as the driver uses it. Tests have a fake that loses and delays calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};
use trestle_consensus::Consensus;
use trestle_model::{Command, MemberId, Proposal};

/// How long a record may wait for a quorum before it is proposed again.
const RECORD_WAIT: Duration = Duration::from_millis(500);

/// A record waits for its answer while this exists.
pub(super) struct PendingRecord(Arc<AtomicBool>);

impl PendingRecord {
    /// Begins to wait; `None` while another record waits.
    pub(super) fn begin(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(flag.clone()))
    }
}

impl Drop for PendingRecord {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Raft's log. Both calls return at once. Their results come with everything else that Raft reports. The machine asks again for
/// what was not done.
pub(super) trait Ledger: Send {
    /// Proposes a record as the leader of `term`, or not at all. `pending` is dropped when the result is known.
    fn propose_in_term(&self, command: Command, term: u64, pending: PendingRecord);

    /// Hands leadership over.
    fn transfer(&self, to: MemberId);
}

impl Ledger for Consensus {
    fn propose_in_term(&self, command: Command, term: u64, pending: PendingRecord) {
        let consensus = self.clone();
        self.runtime().spawn(async move {
            let proposal = Proposal { origin: None, request: None, command };
            let done = consensus.propose_in_term(proposal, term, RECORD_WAIT).await;
            drop(pending);
            if let Err(error) = done {
                warn!(%error, "the record of who holds the virtual IPs was not written; it is tried again");
            }
        });
    }

    fn transfer(&self, to: MemberId) {
        let consensus = self.clone();
        self.runtime().spawn(async move {
            match consensus.transfer(Some(to)).await {
                Ok((to, term)) => info!(%to, term, "handed leadership over"),
                Err(error) => warn!(%error, "leadership was not handed over"),
            }
        });
    }
}
