//! Whether this process is the member that it says it is, where the cluster looks for that member. A cloned machine and one
//! that has moved look alike: both have the member's data and another address. So each process draws a number when it starts,
//! the log records it, and an address changes by itself only when nothing at the recorded one answers as the member.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, info, warn};
use trestle_api::peer;
use trestle_api::status::{self, Failure};
use trestle_api::stored::feature_level;
use trestle_consensus::RaftState;
use trestle_model::{HostPort, MemberId, MemberSockets};

use crate::peers::{Peers, REPORT_TIMEOUT};
use crate::this_member::ThisMember;
use crate::vip_clash;

/// Pause between two attempts to be recorded, and between two looks at whether this process still is.
const LOOK: Duration = Duration::from_secs(2);

/// Longest wait for the leader's answer: it asks at two addresses, and writes.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long nobody must have answered as this member at the recorded address after somebody has: long enough for that one's
/// machine to restart.
const SILENCE: Duration = Duration::from_secs(120);

/// What came of an attempt to be recorded.
enum Registration {
    Recorded,
    /// Another process is this member.
    Refused(String),
    /// No leader said anything.
    Unheard,
}

/// How far this process is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    /// No leader has said so.
    No,
    /// A leader has. This member's own state has the record of this process before, as long as it has not caught up.
    Answered(Option<u64>),
    /// This member's own state has it.
    Yes,
}

/// Has this process recorded as its member, and records others where this member leads.
#[derive(Clone)]
pub(crate) struct Registrar {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
}

/// Has this process recorded, and watches that it stays so.
pub(crate) async fn follow(registrar: Registrar, stop: CancellationToken) {
    let (mut recorded, mut rival) = (Recorded::No, None);
    loop {
        if takes_part(&registrar.local) {
            step(&registrar, &mut recorded, &mut rival).await;
        } else {
            (recorded, rival) = (Recorded::No, None);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn takes_part(local: &ThisMember) -> bool {
    let state = local.consensus.status().state;
    !matches!(state, RaftState::Empty | RaftState::Starting | RaftState::Removed | RaftState::Stopped)
}

/// `rival` is when another process was last heard to be this member.
async fn step(registrar: &Registrar, recorded: &mut Recorded, rival: &mut Option<Instant>) {
    let Registrar { local, .. } = registrar;
    let Some(me) = local.id() else { return };
    let view = local.consensus.view().borrow().state.clone();
    let start = view.starts.get(&me).copied();
    let is_own = start == Some(local.start);
    *recorded = match *recorded {
        _ if is_own => Recorded::Yes,
        // What was there before is no later process: there may be much to catch up with.
        Recorded::Answered(before) if start == before => return,
        Recorded::Answered(_) => Recorded::No,
        known => known,
    };
    if *recorded == Recorded::Yes && start.is_some() && !is_own {
        // The older one: for good, because nothing tells which of two the operator wants.
        let at = view.members.get(&me).map(|own| own.spec.peer_address.to_string()).unwrap_or_default();
        displace(
            local,
            format!(
                "another process that started later is this member, at {at}, so this one takes no part any more: two machines have \
                 the same data directory, as a clone or a restored copy does; stop one of them, and restart this one if it is to \
                 stay"
            ),
        );
        return;
    }
    // A leader that knows nothing of sockets or levels records none.
    let level = view.members.get(&me).map(|own| own.spec.feature_level_max);
    let told = view.sockets.get(&me).is_some_and(|sockets| **sockets == local.sockets())
        && level == Some(local.config.feature_level_max);
    if *recorded == Recorded::Yes && told && local.consensus.status().leader.is_some() {
        return;
    }
    let own = &local.config.advertise_peer_address;
    let known = local.consensus.role().borrow().address_of(me).map(str::to_owned);
    let known = known.and_then(|known| HostPort::parse(&known).ok()).filter(|known| known != own);
    if let Some(known) = &known {
        match start_of_process_at(registrar, known, me).await {
            // The new address leads to the same process as the old one.
            Some(start) if start == local.start => local.consensus.displace(None),
            Some(_) => {
                *rival = Some(Instant::now());
                return displace(local, two_processes(own, known));
            }
            None if rival.is_some_and(|at| at.elapsed() < SILENCE) => return,
            None => {}
        }
    }
    match register(registrar, me).await {
        Registration::Recorded => {
            if let Some(known) = &known {
                warn!(before = %known, after = %own, "the cluster reaches this member at another address now");
            }
            *rival = None;
            if *recorded == Recorded::No {
                *recorded = Recorded::Answered(start);
            }
            local.consensus.displace(None);
        }
        Registration::Refused(why) => {
            *rival = Some(Instant::now());
            displace(local, why);
        }
        Registration::Unheard => {}
    }
}

fn two_processes(own: &HostPort, known: &HostPort) -> String {
    format!(
        "another process answers as this member at {known}, where the cluster knows it, and this one is at {own}: it takes no part \
         in elections. Two machines have the same data directory, as a clone or a restored copy does; stop one of them: this one \
         with an empty data directory can be added as a new member, and takes over two minutes after the other one has gone"
    )
}

fn displace(local: &ThisMember, why: String) {
    if local.consensus.abstains().as_ref() != Some(&why) {
        error!("this process abstains: {why}");
    }
    local.consensus.displace(Some(why));
}

/// The start of the process that answers as a member at an address, if one does.
pub(crate) async fn start_of_process_at(
    Registrar { local, peers }: &Registrar,
    address: &HostPort,
    id: MemberId,
) -> Option<u64> {
    let cluster = local.consensus.identity()?.cluster_id;
    let mut client = peers.client(address).ok()?;
    let asked = client.describe(peer::DescribeRequest {});
    let described = tokio::time::timeout(REPORT_TIMEOUT, asked).await.ok()?.ok()?.into_inner();
    (described.cluster_id == cluster.as_str() && described.member_id == id.0).then_some(described.start)
}

/// Asks every member that this one knows to record it; only the leader does.
async fn register(registrar: &Registrar, me: MemberId) -> Registration {
    let Registrar { local, peers } = registrar;
    let Some(identity) = local.consensus.identity() else { return Registration::Unheard };
    let request = peer::RegisterStartRequest {
        cluster_id: identity.cluster_id.to_string(),
        member_id: me.0,
        start: local.start,
        peer_address: local.config.advertise_peer_address.to_string(),
        admin_address: local.config.advertise_admin_address.to_string(),
        sockets: Some((&local.sockets()).into()),
        feature_level_max: local.config.feature_level_max,
    };
    if local.consensus.leadership().borrow().leads.is_some() {
        return match registrar.register(&request).await {
            Ok(None) => Registration::Recorded,
            Ok(Some(why)) => Registration::Refused(why),
            Err(_) => Registration::Unheard,
        };
    }
    let role = local.consensus.role().borrow().clone();
    let others = role.voters.iter().chain(&role.learners).filter(|(id, _)| **id != me);
    let answers = join_all(others.map(|(_, address)| ask(peers, address, &request))).await;
    let refused = answers.iter().flatten().find(|refusal| !refusal.is_empty());
    match refused {
        Some(why) => Registration::Refused(why.clone()),
        None if answers.iter().any(Option::is_some) => Registration::Recorded,
        None => Registration::Unheard,
    }
}

async fn ask(peers: &Peers, address: &str, request: &peer::RegisterStartRequest) -> Option<String> {
    let mut client = peers.client(&HostPort::parse(address).ok()?).ok()?;
    let asked = client.register_start(request.clone());
    Some(tokio::time::timeout(ANSWER_MAX, asked).await.ok()?.ok()?.into_inner().refusal)
}

fn invalid(why: &str) -> Status {
    Status::invalid_argument(why.to_owned())
}

impl Registrar {
    /// Records, as the leader, a process that has started as a member, and where it is reached; or says why it is not that
    /// member.
    pub(crate) async fn register(
        &self,
        request: &peer::RegisterStartRequest,
    ) -> Result<Option<String>, Status> {
        if self.local.consensus.leadership().borrow().leads.is_none() {
            let why = "the member that was asked does not lead".to_owned();
            return Err(status::failure(&Failure::NoLeader(why)));
        }
        let own = self.local.consensus.identity().map(|identity| identity.cluster_id.to_string());
        if own.as_ref() != Some(&request.cluster_id) || request.start == 0 {
            return Err(invalid("the start is not one of a member of this cluster"));
        }
        let address =
            |text: &str| HostPort::parse(text).map_err(|rule| invalid(&format!("\"{text}\" {rule}")));
        let (peer, admin) = (address(&request.peer_address)?, address(&request.admin_address)?);
        let sockets = request.sockets.as_ref().map(MemberSockets::try_from).transpose();
        let sockets = sockets.map_err(|error| invalid(&error.to_string()))?;
        let id = MemberId(request.member_id);
        let state = self.local.consensus.view().borrow().state.clone();
        let Some(record) = state.members.get(&id) else { return Err(invalid("there is no such member")) };
        let known = &record.spec;
        let replaces = state.starts.get(&id).copied().unwrap_or(0);
        let raft = self.local.consensus.role().borrow().address_of(id).map(str::to_owned);
        let moved = known.peer_address != peer || raft.is_some_and(|raft| raft != peer.as_str());
        let level = feature_level(request.feature_level_max);
        if let Err(outdated) = state.check_member_level(&known.name, level) {
            return Ok(Some(outdated.to_string()));
        }
        let told = state.sockets.get(&id).map(|known| **known) == sockets && known.feature_level_max == level;
        if replaces == request.start && known.admin_address == admin && !moved && told {
            return Ok(None);
        }
        for (known, new) in [(&known.peer_address, &peer), (&known.admin_address, &admin)] {
            if known != new
                && let Some(why) = vip_clash::vip_at(&self.local.consensus, new).await
            {
                return Ok(Some(format!(
                    "its address is not recorded: {why}; give it another one and restart it"
                )));
            }
        }
        // Whoever answers at an address is the member there, whatever anybody says.
        match start_of_process_at(self, &peer, id).await {
            Some(start) if start == request.start => {}
            Some(_) => return Ok(Some(two_processes(&peer, &peer))),
            None => return Err(invalid("nobody answers as this member at the address that it gives")),
        }
        if known.peer_address != peer
            && start_of_process_at(self, &known.peer_address, id)
                .await
                .is_some_and(|start| start != request.start)
        {
            return Ok(Some(two_processes(&peer, &known.peer_address)));
        }
        if moved || known.admin_address != admin {
            self.local.consensus.relocate(id, Some(peer), Some(admin), None).await?;
        }
        self.local.consensus.note_start(id, request.start, replaces, sockets, level).await?;
        if replaces != request.start {
            info!("a process of member {} has started", known.name);
        }
        Ok(None)
    }
}
