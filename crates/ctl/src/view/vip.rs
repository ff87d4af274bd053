//! Virtual IPs.

use std::collections::BTreeMap;

use serde::Serialize;
use trestle_api::v1;

use super::{short_name, typed_duration};

/// A virtual IP's settings.
#[derive(Debug, Serialize)]
pub(crate) struct VipView {
    name: String,
    address: String,
    /// `None` for the one that has an address of the same network.
    interface: Option<String>,
    /// By member.
    interface_overrides: BTreeMap<String, String>,
    on_quorum_loss: &'static str,
    preferred: Vec<String>,
    preference_delay: Option<String>,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
}

impl From<v1::Vip> for VipView {
    fn from(vip: v1::Vip) -> Self {
        let on_quorum_loss = match vip.on_quorum_loss() {
            v1::OnQuorumLoss::Hold => "hold",
            v1::OnQuorumLoss::Release | v1::OnQuorumLoss::Unspecified => "release",
        };
        let overrides = vip.interface_overrides.into_iter();
        Self {
            name: short_name(&vip.name),
            address: vip.address,
            interface: Some(vip.interface).filter(|name| !name.is_empty()),
            interface_overrides: overrides.map(|o| (short_name(&o.member), o.interface)).collect(),
            on_quorum_loss,
            preferred: vip.preferred.iter().map(|name| short_name(name)).collect(),
            preference_delay: typed_duration(vip.preference_delay.as_ref()),
            revision: vip.revision,
            etag: vip.etag,
        }
    }
}
