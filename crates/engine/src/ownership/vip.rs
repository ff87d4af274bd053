//! What this member is to do with a VIP.

use std::sync::Arc;
use std::time::Duration;

use trestle_model::{MemberId, OnQuorumLoss};

/// A VIP as this member is to serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedVip {
    /// Length of the prefix that the address is added with.
    pub prefix_len: u8,
    /// Name of this member's interface that gets the address.
    pub interface: Arc<str>,
    /// What becomes of it when the quorum is lost.
    pub on_quorum_loss: OnQuorumLoss,
    /// Who shall hold it, best first; empty leaves it where it is.
    pub preferred: Vec<MemberId>,
    /// How long a better member must have been fit before the VIP goes to it.
    pub preference_delay: Duration,
}

impl ServedVip {
    /// A VIP that stays where it is and is let go when the quorum is lost.
    pub fn on(interface: &str, prefix_len: u8) -> Self {
        Self {
            prefix_len,
            interface: interface.into(),
            on_quorum_loss: OnQuorumLoss::default(),
            preferred: Vec::new(),
            preference_delay: Duration::ZERO,
        }
    }
}
