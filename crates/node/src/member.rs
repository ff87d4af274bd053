//! One member, as its services see it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::Status;
use trestle_api::{convert, peer, unanswered, v1};
use trestle_consensus::Consensus;
use trestle_dataplane::DataPlane;
use trestle_model::{MemberId, MemberName, MemberSockets, MemberSpec, Revision};

use crate::admin::RevisionWaits;
use crate::config::Config;
use crate::events::Journal;
use crate::lag::Lag;
use crate::peer::PeerClients;
use crate::ports::ServicePorts;
use crate::registration;
use crate::supervise::Supervisor;
use crate::vips::Vips;

/// How long another member may take to say something of itself.
pub(crate) const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the services of a member share.
pub(crate) struct Member {
    pub(crate) config: Config,
    pub(crate) ports: ServicePorts,
    pub(crate) consensus: Consensus,
    pub(crate) plane: DataPlane,
    pub(crate) vips: Vips,
    pub(crate) clients: PeerClients,
    /// What other members are asked for those who wait.
    pub(crate) waits: RevisionWaits,
    pub(crate) supervisor: Supervisor,
    /// What happens here.
    pub(crate) journal: Journal,
    pub(crate) lag: Lag,
    pub(crate) started: Instant,
    /// The number that this process drew when it started.
    pub(crate) start: u64,
    /// The digest of the newest state that one was asked for.
    pub(crate) last_digest: Mutex<Option<(Revision, String)>>,
}

impl Member {
    /// What this member says of itself when it joins.
    pub(crate) fn spec(&self) -> MemberSpec {
        MemberSpec {
            name: self.config.name.clone(),
            peer_address: self.config.advertise_peer_address.clone(),
            admin_address: self.config.advertise_admin_address.clone(),
        }
    }

    /// Where this process listens.
    pub(crate) fn sockets(&self) -> MemberSockets {
        MemberSockets {
            admin: self.config.admin_address,
            peer: self.config.peer_address,
            http: self.config.http_address,
            data_address: self.config.data_address,
            network: registration::network(),
        }
    }

    /// The parts of this process that have ended or give no sign of life, in words; empty while it is whole.
    pub(crate) fn missing_parts(&self) -> Vec<String> {
        let workers = self.plane.accepting().err().unwrap_or_default();
        let workers = workers.into_iter().filter(|fault| fault.listener.is_none()).map(|fault| fault.why);
        let own = self.supervisor.missing().into_iter().chain(self.vips.missing());
        own.chain(self.plane.silent()).chain(workers).collect()
    }

    /// Whether all parts that there is one of give signs of life. Asked by the thread that keeps the leases, so it is quick.
    pub(crate) fn is_whole(&self) -> bool {
        self.supervisor.is_whole() && self.vips.is_whole() && self.plane.silent().is_empty()
    }

    /// This member's id, once it belongs to a cluster.
    pub(crate) fn id(&self) -> Option<MemberId> {
        self.consensus.identity().map(|identity| identity.member_id)
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
    pub(crate) fn known(&self) -> Vec<Arc<trestle_model::Member>> {
        if self.consensus.was_removed() {
            return Vec::new();
        }
        self.consensus.view().borrow().state.members.values().cloned().collect()
    }

    /// Renders a member with the part that it has in Raft, as this member knows it.
    pub(crate) fn rendered(&self, member: &trestle_model::Member) -> v1::Member {
        let view = self.consensus.view().borrow().clone();
        let role = match () {
            () if view.voters.contains(&member.id) => v1::MemberRole::Voter,
            () if view.learners.contains(&member.id) => v1::MemberRole::Learner,
            () => v1::MemberRole::Unspecified,
        };
        let leader = self.consensus.status().leader == Some(member.id);
        v1::Member { role: role.into(), leader, ..convert::member(member) }
    }

    /// Asks one member for a report; this one answers itself without the network.
    pub(crate) async fn ask(
        &self,
        member: &trestle_model::Member,
        ask: &peer::ReportRequest,
    ) -> Result<peer::ReportResponse, Status> {
        if Some(member.id) == self.id() {
            return Ok(self.report(ask));
        }
        let mut client = self.clients.peer(&member.spec.peer_address)?;
        let ask = peer::ReportRequest { to: self.destination(Some(member.id)), ..ask.clone() };
        let answer = tokio::time::timeout(REPORT_TIMEOUT, client.report(ask)).await;
        match answer {
            Ok(Ok(report)) => Ok(report.into_inner()),
            Ok(Err(status)) => Err(Status::new(status.code(), unanswered::why(&status))),
            Err(_) => Err(Status::deadline_exceeded(unanswered::none_within(REPORT_TIMEOUT))),
        }
    }

    /// Asks all members for a report. Answers those that there are, with whose they are, and names the members that did not
    /// answer.
    pub(crate) async fn ask_all(
        &self,
        ask: peer::ReportRequest,
    ) -> (Vec<(MemberName, peer::ReportResponse)>, Vec<String>) {
        let known = self.known();
        let answers = join_all(known.iter().map(|member| self.ask(member, &ask))).await;
        let (mut reports, mut unreachable) = (Vec::new(), Vec::new());
        for (member, answer) in known.iter().zip(answers) {
            match answer {
                Ok(report) => reports.push((member.spec.name.clone(), report)),
                Err(_) => unreachable.push(convert::member_name(&member.spec.name)),
            }
        }
        (reports, unreachable)
    }
}
