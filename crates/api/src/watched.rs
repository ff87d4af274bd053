//! The cluster's state as who watches it knows it: what `WatchCluster` sends, put together again. It has all that a data plane
//! uses, so that a process that is no member can run one.

use std::sync::Arc;

use trestle_model::{
    Backend, Bind, Change, ChangeKind, ClusterId, ClusterState, HostPort, Invalid, Listener, Member,
    MemberId, MemberSockets, MemberSpec, Pool, Resource, Revision, Violation, Violations, Vip,
};

use crate::convert::{
    parse_backend_name, parse_listener_name, parse_member_name, parse_pool_name, parse_vip_name,
};
use crate::settings::{self, Reader};
use crate::stored::{DecodeError, feature_level};
use crate::v1::event::Resource as Message;
use crate::{storage, v1};

/// Why a message of a watch cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// It has something that this version does not know.
    #[error(
        "the cluster has {0} that this version does not know; upgrade this program to the version of the members"
    )]
    Newer(&'static str),
    /// A value that no member has accepted, or only a newer one.
    #[error(
        "the cluster has what this version takes for wrong: {0}; upgrade this program to the version of the members"
    )]
    Invalid(#[from] Invalid),
    /// The same of what is agreed on beside the resources.
    #[error("{0}")]
    Facts(#[from] DecodeError),
}

/// A state that follows a watch.
///
/// Ask with [`request`](Self::request), give each message to [`take`](Self::take), and ask again after a failure: nothing is
/// missed. After `OUT_OF_RANGE` [`restart`](Self::restart) first.
#[derive(Debug, Default)]
pub struct WatchedCluster {
    /// The state of the last revision that was whole.
    whole: Arc<ClusterState>,
    /// The first revision that is not whole; 0 before anything is.
    next: Revision,
    /// With what has come of that revision, or of what exists.
    pending: ClusterState,
}

impl WatchedCluster {
    /// Begins anew with the next request: changes since the last one are no longer kept. The state stays until what exists has
    /// come.
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// The request that goes on from what is known.
    pub fn request(&mut self) -> v1::WatchClusterRequest {
        let include_current = self.next == 0;
        self.pending = if include_current { ClusterState::default() } else { (*self.whole).clone() };
        v1::WatchClusterRequest { start_revision: self.next, include_current }
    }

    /// Takes the next message; answers the state when it is that of a whole revision again.
    ///
    /// # Errors
    /// When this version cannot follow: what the message says was not taken whole. The last state that was answered goes on to
    /// be right for the revision that it has.
    pub fn take(
        &mut self,
        message: &v1::WatchClusterResponse,
    ) -> Result<Option<Arc<ClusterState>>, WatchError> {
        let facts = message.facts.as_ref().map(Facts::read).transpose()?;
        let changes: Vec<Change> = message.events.iter().map(change).collect::<Result<_, _>>()?;
        changes.iter().for_each(|change| self.pending.replay(change));
        if let Some(facts) = facts {
            facts.note(&mut self.pending);
        }
        if message.more {
            return Ok(None);
        }
        self.pending.revision = message.revision;
        self.next = message.revision.saturating_add(1);
        self.whole = Arc::new(self.pending.clone());
        Ok(Some(self.whole.clone()))
    }
}

/// What is agreed on beside the resources.
struct Facts {
    cluster_id: Option<ClusterId>,
    recovery: u64,
    feature_level: u32,
    sockets: Vec<(MemberId, MemberSockets)>,
}

impl Facts {
    fn read(facts: &v1::ClusterFacts) -> Result<Self, WatchError> {
        let sockets = |m: &v1::MemberSockets| {
            let v1::MemberSockets { member_id, admin, peer, http, data_address, network } = m.clone();
            let message = storage::MemberSockets { admin, peer, http, data_address, network };
            Ok((MemberId(member_id), MemberSockets::try_from(&message)?))
        };
        let id = ClusterId::parse(&facts.cluster_id);
        let wrong = |rule: String| Invalid(vec![Violation::new("facts.cluster_id", &facts.cluster_id, rule)]);
        Ok(Self {
            cluster_id: Some(id.map_err(wrong)?),
            recovery: facts.recovery,
            feature_level: facts.feature_level,
            sockets: facts.member_sockets.iter().map(sockets).collect::<Result<_, DecodeError>>()?,
        })
    }

    fn note(self, state: &mut ClusterState) {
        state.cluster_id = self.cluster_id;
        (state.recovery, state.feature_level) = (self.recovery, self.feature_level);
        state.sockets = self.sockets.into_iter().map(|(id, sockets)| (id, Arc::new(sockets))).collect();
    }
}

fn change(event: &v1::Event) -> Result<Change, WatchError> {
    let kind = match v1::EventType::try_from(event.r#type) {
        Ok(v1::EventType::Current | v1::EventType::Created) => ChangeKind::Created,
        Ok(v1::EventType::Updated) => ChangeKind::Updated,
        Ok(v1::EventType::Deleted) => ChangeKind::Deleted,
        Ok(v1::EventType::Unspecified) | Err(_) => return Err(WatchError::Newer("a kind of change")),
    };
    let message = event.resource.as_ref().ok_or(WatchError::Newer("a kind of resource"))?;
    // What a member has once accepted counts, also where rules were tightened since.
    let mut reader = Reader { stored: true, ..Reader::default() };
    let resource = resource(message, &mut reader);
    reader.found.into_result()?;
    // Nothing is left out without a mistake.
    Ok(Change::new(kind, resource.ok_or(WatchError::Newer("a resource"))?))
}

fn resource(message: &Message, reader: &mut Reader) -> Option<Resource> {
    Some(match message {
        Message::Pool(m) => {
            let spec = settings::pool(m, reader);
            spec.check_numbers(&mut reader.found);
            let name = parse_pool_name("pool.name", &m.name, &mut reader.found)?;
            let backends = usize::try_from(m.backend_count).unwrap_or(usize::MAX);
            Resource::Pool(Arc::new(Pool { name, spec, revision: m.revision }), backends)
        }
        Message::Backend(m) => {
            let spec = settings::backend(m, reader)?;
            spec.check_numbers(&mut reader.found);
            let admin_state = settings::admin_state(m.admin_state, m.drain_timeout, reader);
            let (pool, name) = parse_backend_name("backend.name", &m.name, &mut reader.found)?;
            Resource::Backend(pool, Arc::new(Backend { name, spec, admin_state, revision: m.revision }))
        }
        Message::Listener(m) => {
            let spec = settings::listener(m, reader)?;
            spec.check_numbers(&mut reader.found);
            let found = &mut reader.found;
            let name = parse_listener_name("listener.name", &m.name, found)?;
            let binds = m.addresses.iter();
            let binds = binds.filter_map(|text| found.take("listener.addresses", text, Bind::decode(text)));
            let binds = binds.collect();
            let (revision, created) = (m.revision, m.create_revision);
            Resource::Listener(Arc::new(Listener { name, spec, binds, revision, created }))
        }
        Message::Member(m) => Resource::Member(Arc::new(member(m, &mut reader.found)?)),
        Message::Vip(m) => {
            let spec = settings::vip(m, reader)?;
            spec.check_numbers(&mut reader.found);
            let name = parse_vip_name("vip.name", &m.name, &mut reader.found)?;
            Resource::Vip(Arc::new(Vip { name, spec, revision: m.revision }))
        }
    })
}

fn member(message: &v1::Member, found: &mut Violations) -> Option<Member> {
    let (peer, admin) = (&message.peer_address, &message.admin_address);
    let spec = MemberSpec {
        name: parse_member_name("member.name", &message.name, found)?,
        peer_address: found.take("member.peer_address", peer, HostPort::parse(peer))?,
        admin_address: found.take("member.admin_address", admin, HostPort::parse(admin))?,
        feature_level_max: feature_level(message.feature_level_max),
    };
    let drain_timeout = message.drain_timeout.and_then(|time| time.try_into().ok());
    let (id, draining, revision) = (MemberId(message.id), message.draining, message.revision);
    Some(Member { id, spec, draining, drain_timeout, revision })
}
