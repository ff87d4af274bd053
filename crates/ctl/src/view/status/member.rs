//! What a member says of itself.

use serde::Serialize;
use trestle_api::v1;

use super::data_plane::{TroubledPoolView, UnboundView};
use crate::view::member::{MemberView, yes_no};
use crate::view::span::{self, Span};
use crate::view::{raft_state_word, short_name, vip_standing_word};

/// A signed duration in seconds.
fn seconds(duration: &prost_types::Duration) -> f64 {
    // No duration here comes near the 2^53 that a float still tells apart.
    #[allow(clippy::cast_precision_loss)]
    let whole = duration.seconds as f64;
    whole + f64::from(duration.nanos) / 1e9
}

/// A member in its own words.
#[derive(Debug, Serialize)]
pub(super) struct MemberStatusView {
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) role: &'static str,
    pub(super) leader: bool,
    pub(super) peer_address: String,
    pub(super) admin_address: String,
    pub(super) reachable: bool,
    pub(super) error: Option<String>,
    pub(super) state: String,
    pub(super) term: u64,
    pub(super) applied_index: u64,
    pub(super) revision: u64,
    pub(super) in_force_revision: u64,
    pub(super) digest: String,
    pub(super) listeners_bound: u32,
    pub(super) listeners_failed: u32,
    pub(super) connections: u64,
    pub(super) backends_unhealthy: u32,
    pub(super) version: String,
    /// The highest feature level that its program knows.
    pub(super) feature_level_max: u32,
    /// When its process was started.
    pub(super) started: Option<String>,
    #[serde(flatten, serialize_with = "span::uptime")]
    pub(super) uptime: Option<Span>,
    pub(super) descriptors_used: u64,
    /// `None` for no bound.
    pub(super) descriptors_max: Option<u64>,
    pub(super) draining: bool,
    /// It takes no new connections and has none open.
    pub(super) drained: bool,
    /// When what is open is closed; `None` when it is not drained, or without a deadline.
    #[serde(flatten, serialize_with = "span::drain_left")]
    pub(super) drain_left: Option<Span>,
    /// `None` when the member says nothing of it.
    pub(super) vip_standing: Option<&'static str>,
    /// Why it should not hold virtual IPs while another member can.
    pub(super) unfit: Vec<String>,
    /// `None` when the member says nothing of it.
    #[serde(flatten, serialize_with = "span::election_timeout_max")]
    pub(super) election_timeout_max: Option<Span>,
    /// What the member finds wrong with itself.
    pub(super) problems: Vec<String>,
    /// Whom it asks to take it in while it belongs to no cluster.
    pub(super) join_addresses: Vec<String>,
    /// What it waits for before it founds a cluster with others or joins theirs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) waits_for: String,
    /// How far its clock is ahead of the answering member's, negative for behind; `None` for that one itself.
    pub(super) clock_offset_seconds: Option<f64>,
    /// By how much that may be wrong.
    pub(super) clock_offset_error_seconds: Option<f64>,
    /// Whether it lacks a revision that another member has, and goes on to.
    pub(super) behind: bool,
    /// For how long its data plane has lacked a revision that it knows; `None` while it lacks none.
    pub(super) in_force_lag_seconds: Option<f64>,
    /// Virtual IPs that its kernel serves.
    pub(super) held_vips: Vec<String>,
    /// Listeners that lack addresses.
    pub(super) unbound_listeners: Vec<UnboundView>,
    /// Pools that can do less than they were given to.
    pub(super) troubled_pools: Vec<TroubledPoolView>,
    /// How many of them there are; more than are listed where that are too many.
    pub(super) troubled_pools_total: u32,
}

impl From<v1::MemberStatus> for MemberStatusView {
    fn from(status: v1::MemberStatus) -> Self {
        let (raft_state, vip_standing) =
            (raft_state_word(status.raft_state()), vip_standing_word(status.vip_standing()));
        let member = MemberView::from(status.member.unwrap_or_default());
        let uptime = Span::seconds(status.uptime.as_ref());
        Self {
            name: member.name,
            id: member.id,
            role: member.role,
            leader: member.leader,
            peer_address: member.peer_address,
            admin_address: member.admin_address,
            reachable: status.reachable,
            error: (!status.reachable).then_some(status.error),
            state: raft_state.to_owned(),
            term: status.term,
            applied_index: status.applied_index,
            revision: status.revision,
            in_force_revision: status.in_force_revision,
            digest: status.digest,
            listeners_bound: status.listeners_bound,
            listeners_failed: status.listeners_failed,
            connections: status.active_connections,
            backends_unhealthy: status.backends_unhealthy,
            version: status.version,
            feature_level_max: member.feature_level_max,
            started: uptime.and_then(Span::ago),
            uptime,
            descriptors_used: status.descriptors_used,
            descriptors_max: Some(status.descriptors_max).filter(|max| *max > 0),
            draining: member.draining,
            drained: status.drained && status.active_connections == 0,
            drain_left: Span::seconds(status.drain_left.as_ref()),
            vip_standing,
            unfit: status.unfit,
            election_timeout_max: Span::setting(status.election_timeout_max.as_ref()),
            problems: status.problems,
            join_addresses: status.join_addresses,
            waits_for: status.waits_for,
            clock_offset_seconds: status.clock_offset.as_ref().map(seconds),
            clock_offset_error_seconds: status.clock_offset_error.as_ref().map(seconds),
            behind: status.behind,
            in_force_lag_seconds: status.in_force_lag.as_ref().map(seconds),
            held_vips: status.held_vips.iter().map(|vip| short_name(vip)).collect(),
            unbound_listeners: status.unbound_listeners.into_iter().map(Into::into).collect(),
            troubled_pools_total: status.troubled_pools_total,
            troubled_pools: status.troubled_pools.into_iter().map(Into::into).collect(),
        }
    }
}

impl MemberStatusView {
    pub(super) fn row(&self, leader: Option<&str>) -> [String; 12] {
        let said = |text: String| if self.reachable { text } else { "-".to_owned() };
        let listeners = match (self.listeners_bound, self.listeners_failed) {
            (bound, 0) => bound.to_string(),
            (bound, failed) => format!("{bound}/{}", u64::from(bound) + u64::from(failed)),
        };
        let state = if self.reachable { &self.state } else { "unreachable" };
        let state = match (self.draining, self.drained) {
            (false, _) => state.to_owned(),
            (true, true) => format!("{state}, drained"),
            (true, false) => format!("{state}, draining"),
        };
        [
            self.name.clone(),
            self.id.to_string(),
            self.role.to_owned(),
            state,
            yes_no(leader == Some(self.name.as_str())),
            said(self.revision.to_string()),
            said(self.in_force_revision.to_string()),
            said(listeners),
            said(self.connections.to_string()),
            said(self.vip_standing.unwrap_or_default().to_owned()),
            self.admin_address.clone(),
            said(self.version.clone()),
        ]
    }
}
