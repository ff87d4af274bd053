//! This process as a member of its cluster: what it is called, where it is, and whom it knows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use trestle_api::{convert, peer, v1};
use trestle_consensus::{Consensus, STORAGE_FORMAT};
use trestle_model::{Member, MemberId, MemberSockets, MemberSpec, Revision};

use crate::config::Config;
use crate::founding::Founding;
use crate::identities::ClusterTrust;
use crate::joining::Arrivals;
use crate::process;

/// This process as a member of its cluster. Clones share it.
#[derive(Clone)]
pub(crate) struct ThisMember {
    pub(crate) config: Arc<Config>,
    pub(crate) consensus: Consensus,
    /// What it believes other members by.
    pub(crate) trust: ClusterTrust,
    /// How it founds a cluster with others.
    pub(crate) founding: Arc<Founding>,
    /// Who has joined by a token and is waited for, while it leads.
    pub(crate) arrivals: Arc<Arrivals>,
    /// The number that this process drew when it started.
    pub(crate) start: u64,
}

impl ThisMember {
    /// What this member says of itself when it joins.
    pub(crate) fn spec(&self) -> MemberSpec {
        MemberSpec {
            name: self.config.name.clone(),
            peer_address: self.config.advertise_peer_address.clone(),
            admin_address: self.config.advertise_admin_address.clone(),
            feature_level_max: self.config.feature_level_max,
        }
    }

    /// What this process says of itself to whoever asks.
    pub(crate) fn described(&self) -> peer::DescribeResponse {
        let config = &self.config;
        let identity = self.consensus.identity();
        let recovery = identity.as_ref().map(|identity| identity.recovery).unwrap_or_default();
        peer::DescribeResponse {
            name: config.name.to_string(),
            peer_address: config.advertise_peer_address.to_string(),
            admin_address: config.advertise_admin_address.to_string(),
            cluster_id: identity.as_ref().map(|i| i.cluster_id.to_string()).unwrap_or_default(),
            member_id: identity.as_ref().map_or(0, |i| i.member_id.0),
            recovery: recovery.number,
            recovery_draw: recovery.draw,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage_format: STORAGE_FORMAT,
            vote_refusal_ms: self.consensus.timing().vote_refusal_ms(),
            start: self.start,
            sockets: Some((&self.sockets()).into()),
            feature_level_max: config.feature_level_max,
            time: Some(SystemTime::now().into()),
        }
    }

    /// Where this process listens.
    pub(crate) fn sockets(&self) -> MemberSockets {
        MemberSockets {
            admin: self.config.admin_address,
            peer: self.config.peer_address,
            http: self.config.http_address,
            data_address: self.config.data_address,
            network: process::network(),
        }
    }

    /// This member's id, once it belongs to a cluster.
    pub(crate) fn id(&self) -> Option<MemberId> {
        self.consensus.identity().map(|identity| identity.member_id)
    }

    /// The revision of the configuration that this member knows.
    pub(crate) fn revision(&self) -> Revision {
        self.consensus.view().borrow().state.revision
    }

    /// How a question to a member of this cluster says whom it is for; to this one without an id.
    pub(crate) fn destination(&self, id: Option<MemberId>) -> Option<peer::Destination> {
        let identity = self.consensus.identity()?;
        let member_id = id.unwrap_or(identity.member_id).0;
        Some(peer::Destination {
            cluster_id: identity.cluster_id.to_string(),
            member_id,
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
            ..Default::default()
        })
    }

    /// The members that this one knows, in the order of their ids; none once it was removed, whatever it knew before.
    pub(crate) fn known(&self) -> Vec<Arc<Member>> {
        if self.consensus.was_removed() {
            return Vec::new();
        }
        self.consensus.view().borrow().state.members.values().cloned().collect()
    }

    /// The other members.
    pub(crate) fn others(&self) -> Vec<Arc<Member>> {
        let me = self.id();
        self.known().into_iter().filter(|member| Some(member.id) != me).collect()
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.consensus.leadership().borrow().leads.is_some()
    }

    /// Whether its own record says that it is drained.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain().is_some()
    }

    /// The time of its drain, if it is drained.
    pub(crate) fn drain(&self) -> Option<Option<Duration>> {
        let state = self.consensus.view().borrow().state.clone();
        let own = state.members.get(&self.id()?).filter(|own| own.draining)?;
        Some(own.drain_timeout)
    }

    /// Renders a member with the part that it has in Raft, as this member knows it.
    pub(crate) fn rendered(&self, member: &Member) -> v1::Member {
        let view = self.consensus.view().borrow().clone();
        let role = match () {
            () if view.voters.contains(&member.id) => v1::MemberRole::Voter,
            () if view.learners.contains(&member.id) => v1::MemberRole::Learner,
            () => v1::MemberRole::Unspecified,
        };
        let leader = self.consensus.status().leader == Some(member.id);
        let keys =
            view.state.member_keys.get(&member.id).into_iter().flatten().map(ToString::to_string).collect();
        v1::Member { role: role.into(), leader, keys, ..convert::member(member) }
    }

    /// The record of this member itself. Before it joins, and once it was removed, it knows only what its configuration says.
    pub(crate) fn own_record(&self) -> v1::Member {
        let state = self.consensus.view().borrow().state.clone();
        let known = self.id().filter(|_| !self.consensus.was_removed());
        match known.and_then(|id| state.members.get(&id)) {
            Some(member) => self.rendered(member),
            None => v1::Member {
                name: convert::member_name(&self.config.name),
                peer_address: self.config.advertise_peer_address.to_string(),
                admin_address: self.config.advertise_admin_address.to_string(),
                feature_level_max: self.config.feature_level_max,
                ..Default::default()
            },
        }
    }
}
