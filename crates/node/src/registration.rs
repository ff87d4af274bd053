//! Whether this process is the member that it says it is, where the cluster looks for that member. A cloned machine and one
//! that has moved look alike: both have the member's data and another address. So each process draws a number when it starts,
//! the log records it, and an address changes by itself only when nothing at the recorded one answers as the member.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, info, warn};
use trestle_api::status::{self, Failure};
use trestle_api::{convert, peer};
use trestle_consensus::RaftState;
use trestle_model::{HostPort, MemberId, MemberSockets};

use crate::member::{Member, REPORT_TIMEOUT};

/// Pause between two attempts to be recorded, and between two looks at whether this process still is.
const LOOK: Duration = Duration::from_secs(2);

/// Longest wait for the leader's answer: it asks at two addresses, and writes.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long nobody must have answered as this member at the recorded address after somebody has: long enough for that one's
/// machine to restart.
const SILENCE: Duration = Duration::from_secs(120);

/// Draws the number of a start.
pub(crate) fn draw() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    // 0 stands for none.
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// A number that processes have in common whose loopback is the same: of this boot of the machine, and of the network namespace
/// in it. 0 where that cannot be known.
pub(crate) fn network() -> u64 {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let namespace = std::fs::metadata("/proc/self/ns/net").map(|namespace| namespace.ino());
    match (u64::from_str_radix(&digits, 16), namespace) {
        (Ok(boot), Ok(namespace)) => boot ^ namespace,
        _ => 0,
    }
}

/// What came of an attempt to be recorded.
enum Registration {
    Recorded,
    /// Another process is this member.
    Refused(String),
    /// No leader said anything.
    Unheard,
}

/// Has this process recorded, and watches that it stays so.
pub(crate) async fn follow(member: Arc<Member>, stop: CancellationToken) {
    let (mut recorded, mut rival) = (false, None);
    loop {
        if takes_part(&member) {
            step(&member, &mut recorded, &mut rival).await;
        } else {
            (recorded, rival) = (false, None);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn takes_part(member: &Member) -> bool {
    let state = member.consensus.status().state;
    !matches!(state, RaftState::Empty | RaftState::Starting | RaftState::Removed | RaftState::Stopped)
}

/// `rival` is when another process was last heard to be this member.
async fn step(member: &Arc<Member>, recorded: &mut bool, rival: &mut Option<Instant>) {
    let Some(me) = member.id() else { return };
    let view = member.consensus.view().borrow().state.clone();
    let start = view.starts.get(&me).copied();
    if *recorded && start.is_some_and(|start| start != member.start) {
        // The older one: for good, because nothing tells which of two the operator wants.
        let at = view.members.get(&me).map(|own| own.spec.peer_address.to_string()).unwrap_or_default();
        displace(
            member,
            format!(
                "another process that started later is this member, at {at}, so this one takes no part any more: two machines have \
                 the same data directory, as a clone or a restored copy does; stop one of them, and restart this one if it is to \
                 stay"
            ),
        );
        return;
    }
    // A leader that knows nothing of sockets records none.
    let told = view.sockets.get(&me).is_some_and(|sockets| **sockets == member.sockets());
    if *recorded && told && member.consensus.status().leader.is_some() {
        return;
    }
    let own = &member.config.advertise_peer_address;
    let known = member.consensus.role().borrow().address_of(me).map(str::to_owned);
    let known = known.and_then(|known| HostPort::parse(&known).ok()).filter(|known| known != own);
    if let Some(known) = &known {
        match start_at_recorded_address(member, known).await {
            // The new address leads to the same process as the old one.
            Some(start) if start == member.start => member.consensus.displace(None),
            Some(_) => {
                *rival = Some(Instant::now());
                return displace(member, two_processes(own, known));
            }
            None if rival.is_some_and(|at| at.elapsed() < SILENCE) => return,
            None => {}
        }
    }
    match register(member, me).await {
        Registration::Recorded => {
            if let Some(known) = &known {
                warn!(before = %known, after = %own, "the cluster reaches this member at another address now");
            }
            (*recorded, *rival) = (true, None);
            member.consensus.displace(None);
        }
        Registration::Refused(why) => {
            *rival = Some(Instant::now());
            displace(member, why);
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

fn displace(member: &Member, why: String) {
    if member.consensus.abstains().as_ref() != Some(&why) {
        error!("this process abstains: {why}");
    }
    member.consensus.displace(Some(why));
}

/// The start of the process that answers as this member at an address, if one does.
async fn start_at_recorded_address(member: &Member, address: &HostPort) -> Option<u64> {
    start_of_process_at(member, address, member.id()?).await
}

async fn start_of_process_at(member: &Member, address: &HostPort, id: MemberId) -> Option<u64> {
    let cluster = member.consensus.identity()?.cluster_id;
    let mut client = member.clients.peer(address).ok()?;
    let asked = client.describe(peer::DescribeRequest {});
    let described = tokio::time::timeout(REPORT_TIMEOUT, asked).await.ok()?.ok()?.into_inner();
    (described.cluster_id == cluster.as_str() && described.member_id == id.0).then_some(described.start)
}

/// Asks every member that this one knows to record it; only the leader does.
async fn register(member: &Arc<Member>, me: MemberId) -> Registration {
    let Some(identity) = member.consensus.identity() else { return Registration::Unheard };
    let request = peer::RegisterStartRequest {
        cluster_id: identity.cluster_id.to_string(),
        member_id: me.0,
        start: member.start,
        peer_address: member.config.advertise_peer_address.to_string(),
        admin_address: member.config.advertise_admin_address.to_string(),
        sockets: Some((&member.sockets()).into()),
    };
    if member.consensus.leadership().borrow().leads.is_some() {
        return match member.register(&request).await {
            Ok(None) => Registration::Recorded,
            Ok(Some(why)) => Registration::Refused(why),
            Err(_) => Registration::Unheard,
        };
    }
    let role = member.consensus.role().borrow().clone();
    let others = role.voters.iter().chain(&role.learners).filter(|(id, _)| **id != me);
    let answers = join_all(others.map(|(_, address)| ask(member, address, &request))).await;
    let refused = answers.iter().flatten().find(|refusal| !refusal.is_empty());
    match refused {
        Some(why) => Registration::Refused(why.clone()),
        None if answers.iter().any(Option::is_some) => Registration::Recorded,
        None => Registration::Unheard,
    }
}

async fn ask(member: &Member, address: &str, request: &peer::RegisterStartRequest) -> Option<String> {
    let mut client = member.clients.peer(&HostPort::parse(address).ok()?).ok()?;
    let asked = client.register_start(request.clone());
    Some(tokio::time::timeout(ANSWER_MAX, asked).await.ok()?.ok()?.into_inner().refusal)
}

fn invalid(why: &str) -> Status {
    Status::invalid_argument(why.to_owned())
}

impl Member {
    /// Records, as the leader, a process that has started as a member, and where it is reached; or says why it is not that
    /// member.
    pub(crate) async fn register(
        &self,
        request: &peer::RegisterStartRequest,
    ) -> Result<Option<String>, Status> {
        if self.consensus.leadership().borrow().leads.is_none() {
            let why = "the member that was asked does not lead".to_owned();
            return Err(status::failure(&Failure::NoLeader(why)));
        }
        let own = self.consensus.identity().map(|identity| identity.cluster_id.to_string());
        if own.as_ref() != Some(&request.cluster_id) || request.start == 0 {
            return Err(invalid("the start is not one of a member of this cluster"));
        }
        let address =
            |text: &str| HostPort::parse(text).map_err(|rule| invalid(&format!("\"{text}\" {rule}")));
        let (peer, admin) = (address(&request.peer_address)?, address(&request.admin_address)?);
        let sockets = request.sockets.as_ref().map(MemberSockets::try_from).transpose();
        let sockets = sockets.map_err(|error| invalid(&error.to_string()))?;
        let id = MemberId(request.member_id);
        let state = self.consensus.view().borrow().state.clone();
        let Some(record) = state.members.get(&id) else { return Err(invalid("there is no such member")) };
        let known = &record.spec;
        let replaces = state.starts.get(&id).copied().unwrap_or(0);
        let raft = self.consensus.role().borrow().address_of(id).map(str::to_owned);
        let moved = known.peer_address != peer || raft.is_some_and(|raft| raft != peer.as_str());
        let told = state.sockets.get(&id).map(|known| **known) == sockets;
        if replaces == request.start && known.admin_address == admin && !moved && told {
            return Ok(None);
        }
        for (known, new) in [(&known.peer_address, &peer), (&known.admin_address, &admin)] {
            if known != new
                && let Some(why) = self.refuse_vip_at(new).await
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
            self.consensus.relocate(id, Some(peer), Some(admin), None).await?;
        }
        self.consensus.note_start(id, request.start, replaces, sockets).await?;
        if replaces != request.start {
            info!(member = %convert::member_name(&known.name), "a process of this member has started");
        }
        Ok(None)
    }
}
