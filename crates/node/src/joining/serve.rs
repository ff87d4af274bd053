//! A member's answer to a process that has a token: the leader takes it in, and any other member asks the leader to.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_api::stored::feature_level;
use trestle_api::{peer, unanswered};
use trestle_consensus::{DEFAULT_WAIT, STORAGE_FORMAT};
use trestle_identity::{CertificateRequest, LeafName, admin_host, secret_hash};
use trestle_model::{
    ClusterId, Command, HostPort, Invalid, JoinAs, Member, MemberId, MemberName, MemberSpec, Origin, Outcome,
    Proposal, TokenId, Violation,
};

use crate::access::Caller;
use crate::identities::{LeafSubject, Signer, leaf_name};
use crate::peers::Peers;
use crate::this_member::ThisMember;
use crate::vip_clash;

/// How long the leader may take: it writes an entry, and has a certificate signed.
const LEADER_MAX: Duration = Duration::from_secs(15);
/// Bytes of a token's secret.
const SECRET: usize = 16;

/// Takes in processes that have a token.
#[derive(Clone)]
pub(crate) struct Joins {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
    pub(crate) signer: Signer,
}

fn invalid(field: &str, value: impl std::fmt::Display, rule: impl Into<String>) -> Status {
    status::invalid(&Invalid(vec![Violation::new(field, value, rule)]))
}

fn refused(why: String) -> Status {
    status::failure(&Failure::Membership(why))
}

/// What a process says of itself, as the cluster records it.
fn spec(described: &peer::DescribeResponse) -> Result<MemberSpec, Status> {
    let address =
        |field: &str, text: &str| HostPort::parse_reachable(text).map_err(|rule| invalid(field, text, rule));
    let name = MemberName::parse(&described.name);
    Ok(MemberSpec {
        name: name.map_err(|rule| invalid("member.name", &described.name, rule))?,
        peer_address: address("member.peer_address", &described.peer_address)?,
        admin_address: address("member.admin_address", &described.admin_address)?,
        feature_level_max: feature_level(described.feature_level_max),
    })
}

impl Joins {
    /// Takes a process in, wherever the leader is.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a token by which nobody may join; what else a new member is refused for; no leader.
    pub(crate) async fn join(
        &self,
        caller: &Caller,
        request: peer::JoinRequest,
    ) -> Result<peer::JoinResponse, Status> {
        let me = self.local.id().ok_or_else(|| status::failure(&Failure::NoCluster))?;
        let mut role = self.local.consensus.role();
        let known = timeout(DEFAULT_WAIT, role.wait_for(|role| role.leader.is_some())).await;
        let leader = known.ok().and_then(Result::ok).and_then(|role| role.leader.as_ref().map(|(id, _)| *id));
        match leader {
            Some(id) if id == me => self.join_here(caller, request).await,
            Some(id) if request.to.is_none() => self.forward(id, request).await,
            _ => Err(status::failure(&Failure::NoLeader(
                "none is known to the member that was asked".to_owned(),
            ))),
        }
    }

    async fn forward(
        &self,
        leader: MemberId,
        request: peer::JoinRequest,
    ) -> Result<peer::JoinResponse, Status> {
        let no_leader = |why: String| status::failure(&Failure::NoLeader(why));
        let state = self.local.consensus.view().borrow().state.clone();
        let record = state.members.get(&leader);
        let record = record.ok_or_else(|| no_leader("its address is not known here yet".to_owned()))?;
        let mut client = self.peers.client(&record.spec.peer_address)?;
        let request = peer::JoinRequest { to: self.local.destination(Some(leader)), ..request };
        match timeout(LEADER_MAX, client.join(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
                Err(no_leader(unanswered::why(&status)))
            }
            Ok(Err(status)) => Err(status),
            Err(_) => Err(no_leader(unanswered::none_within(LEADER_MAX))),
        }
    }

    /// Refuses a process that could not be a member here, though it has a token.
    async fn check(&self, spec: &MemberSpec, described: &peer::DescribeResponse) -> Result<(), Status> {
        let (theirs, mine) = (described.vote_refusal_ms, self.local.consensus.timing().vote_refusal_ms());
        if theirs != mine {
            return Err(refused(format!(
                "{} has election timeouts of up to {theirs} ms, and this cluster of up to {mine} ms; start it with the same profile",
                spec.name
            )));
        }
        if described.storage_format != STORAGE_FORMAT {
            return Err(refused(format!(
                "{} has another storage format ({}) than this cluster ({STORAGE_FORMAT}): it runs version {}, and the leader {}",
                spec.name,
                described.storage_format,
                described.version.escape_debug(),
                env!("CARGO_PKG_VERSION")
            )));
        }
        for own in [&spec.peer_address, &spec.admin_address] {
            if let Some(why) = vip_clash::vip_at(&self.local.consensus, own).await {
                return Err(refused(why));
            }
        }
        Ok(())
    }

    /// Takes a process in; this member leads.
    async fn join_here(
        &self,
        caller: &Caller,
        request: peer::JoinRequest,
    ) -> Result<peer::JoinResponse, Status> {
        let described = request.member.unwrap_or_default();
        let spec = spec(&described)?;
        let token = TokenId::read(&request.token_id).map_err(|rule| invalid("token_id", "", rule))?;
        if request.secret.len() != SECRET {
            return Err(invalid("secret", "", format!("must be {SECRET} bytes")));
        }
        let asked = CertificateRequest::read(&request.certificate_request);
        let asked = asked.map_err(|error| invalid("certificate_request", "", error.to_string()))?;
        let command = Command::JoinMember {
            spec: spec.clone(),
            key: asked.pin(),
            token,
            secret_hash: secret_hash(&request.secret),
            time_ms: self.local.trust.now_ms(),
        };
        // Before names are looked up for somebody who has no token.
        let view = self.local.consensus.read(DEFAULT_WAIT).await?;
        let decided = view.state.decide(view.applied + 1, &command);
        decided.map_err(|refusal| status::refusal(&refusal))?;
        self.check(&spec, &described).await?;
        let client = if request.to.is_none() { caller.client() } else { None };
        let origin = Origin { time_ms: 0, member: self.local.id(), client, actor: None };
        let proposal = Proposal { request: None, origin: Some(origin), command };
        let member = match self.local.consensus.propose_here(proposal, DEFAULT_WAIT).await?.outcome {
            Outcome::Member(member) => member,
            other => {
                let why = format!("a joining member was answered with {other:?}");
                return Err(status::failure(&Failure::Internal(why)));
            }
        };
        tracing::info!(member = %member.spec.name, id = %member.id, %token, "joins by a token");
        self.answer(&member, &request.certificate_request, &request.hosts).await
    }

    /// What a member that has a record needs to begin.
    async fn answer(
        &self,
        member: &Member,
        asked: &[u8],
        hosts: &[String],
    ) -> Result<peer::JoinResponse, Status> {
        let identity = self.local.consensus.identity();
        let identity = identity.ok_or_else(|| status::failure(&Failure::NoCluster))?;
        let subject = LeafSubject::Member(member.id, names(&identity.cluster_id, hosts)?);
        let certificate = match self.signer.external_authority() {
            Some(_) => Vec::new(),
            None => self.signer.sign(asked, &subject).await?,
        };
        let state = self.local.consensus.view().borrow().state.clone();
        Ok(peer::JoinResponse {
            cluster_id: identity.cluster_id.to_string(),
            member_id: member.id.0,
            recovery: identity.recovery.number,
            recovery_draw: identity.recovery.draw,
            certificate,
            authorities: state.believed_authorities().map(|one| one.certificate.to_vec()).collect(),
            becomes_voter: state.joins_as.get(&member.id) == Some(&JoinAs::Voter),
        })
    }
}

/// The names of a member's certificate: what it asked for, and the one that all members of the cluster have.
fn names(cluster: &ClusterId, hosts: &[String]) -> Result<Vec<LeafName>, Status> {
    const HOSTS_MAX: usize = 7;
    if hosts.len() > HOSTS_MAX {
        return Err(invalid("hosts", hosts.len(), format!("must be at most {HOSTS_MAX}")));
    }
    let own = std::iter::once(LeafName::Dns(admin_host(cluster)));
    Ok(own.chain(hosts.iter().map(|host| leaf_name(host))).collect())
}
