//! The authority's key on its way to who gets a vote: from member to member, by TLS, into a file.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_api::{peer, unanswered};
use trestle_consensus::DEFAULT_WAIT;
use trestle_model::{
    Authority, ClusterState, Command, Member, MemberId, Proposal, Secret, TransportSecurity,
};

use super::Joins;

/// How long a member may take to keep a key, or to give it.
const KEEP_MAX: Duration = Duration::from_secs(5);

fn not_handed_over(why: impl Into<String>) -> Status {
    status::failure(&Failure::Membership(format!(
        "the key of the cluster's authority, which each voter has, was not handed over: {}",
        why.into()
    )))
}

/// Whether a member speaks TLS with the others, so that a key can be sent to it.
fn has_tls(state: &ClusterState, id: MemberId) -> bool {
    state.transport != TransportSecurity::Off
        && state.member_keys.get(&id).is_some_and(|keys| !keys.is_empty())
}

/// The authority whose key a member lacks, and can be sent.
fn lacking(state: &ClusterState, id: MemberId) -> Option<&Authority> {
    state.active_authority().filter(|active| has_tls(state, id) && !active.key_holders.contains(&id))
}

impl Joins {
    fn state(&self) -> std::sync::Arc<ClusterState> {
        self.local.consensus.view().borrow().state.clone()
    }

    /// Gives a member the key of the authority, if it lacks it and speaks TLS. This member leads.
    ///
    /// # Errors
    /// Why it has not got it, in words; then it should get no vote.
    pub(crate) async fn hand_over(&self, id: MemberId) -> Result<(), Status> {
        let state = self.state();
        let Some(active) = lacking(&state, id) else { return Ok(()) };
        let me = self.local.id();
        let Some(member) = state.members.get(&id).filter(|_| Some(id) != me) else { return Ok(()) };
        let key = self.key(&state, active).await?;
        let mut client = self.peers.client(&member.spec.peer_address)?;
        let hand = peer::TakeAuthorityKeyRequest {
            to: self.local.destination(Some(id)),
            generation: active.generation,
            key: key.expose().clone(),
        };
        match timeout(KEEP_MAX, client.take_authority_key(hand)).await {
            Ok(Ok(_)) => self.note_holder(active.generation, id).await,
            Ok(Err(status)) => {
                Err(not_handed_over(format!("{}: {}", member.spec.name, unanswered::why(&status))))
            }
            Err(_) => {
                Err(not_handed_over(format!("{}: {}", member.spec.name, unanswered::none_within(KEEP_MAX))))
            }
        }
    }

    /// Gives each voter the key that lacks it, this member first, which leads.
    pub(super) async fn hand_over_to_voters(&self) -> Result<(), Status> {
        let (state, view) = (self.state(), self.local.consensus.view().borrow().clone());
        let Some(me) = self.local.id() else { return Ok(()) };
        if let Some(active) = lacking(&state, me) {
            self.key(&state, active).await?;
            self.note_holder(active.generation, me).await?;
        }
        let mut failed = None;
        for id in view.voters.iter().filter(|id| **id != me) {
            // One that is off gets it when it is back.
            failed = self.hand_over(*id).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn note_holder(&self, generation: u32, member: MemberId) -> Result<(), Status> {
        let command = Command::NoteKeyHolder { generation, member };
        let proposal = Proposal { request: None, origin: None, command };
        self.local.consensus.propose_here(proposal, DEFAULT_WAIT).await?;
        tracing::info!(%member, generation, "has the key of the cluster's authority");
        Ok(())
    }

    /// The key, from this member's file or from another member that has it, and then into this member's file.
    async fn key(&self, state: &ClusterState, authority: &Authority) -> Result<Secret<String>, Status> {
        let generation = authority.generation;
        if let Some(key) = self.signer.keys.text(state, generation).map_err(not_handed_over)? {
            return Ok(key);
        }
        let me = self.local.id();
        let holders = authority.key_holders.iter().filter(|id| Some(**id) != me);
        let mut failed = Vec::new();
        for member in holders.filter_map(|id| state.members.get(id)) {
            match self.fetch(member, generation).await {
                Ok(key) => {
                    self.signer.keys.keep(state, generation, &key).map_err(not_handed_over)?;
                    return Ok(key);
                }
                Err(status) => failed.push(format!("{}: {}", member.spec.name, unanswered::why(&status))),
            }
        }
        Err(not_handed_over(format!("this member lacks it too, and nobody gives it ({})", failed.join("; "))))
    }

    async fn fetch(&self, member: &Member, generation: u32) -> Result<Secret<String>, Status> {
        let mut client = self.peers.client(&member.spec.peer_address)?;
        let ask = peer::FetchAuthorityKeyRequest { to: self.local.destination(Some(member.id)), generation };
        match timeout(KEEP_MAX, client.fetch_authority_key(ask)).await {
            Ok(answer) => Ok(Secret::new(answer?.into_inner().key)),
            Err(_) => Err(Status::deadline_exceeded(unanswered::none_within(KEEP_MAX))),
        }
    }

    /// Keeps the key that another member gives.
    pub(crate) fn keep(
        &self,
        request: peer::TakeAuthorityKeyRequest,
    ) -> Result<peer::TakeAuthorityKeyResponse, Status> {
        let key = Secret::new(request.key);
        self.signer
            .keys
            .keep(&self.state(), request.generation, &key)
            .map_err(Status::failed_precondition)?;
        Ok(peer::TakeAuthorityKeyResponse {})
    }

    /// Gives the key to another member, which must be a voter.
    pub(crate) fn give(
        &self,
        caller: MemberId,
        request: &peer::FetchAuthorityKeyRequest,
    ) -> Result<peer::FetchAuthorityKeyResponse, Status> {
        if !self.local.consensus.view().borrow().voters.contains(&caller) {
            let why = format!("member {caller} is no voter, and only voters have the authority's key");
            return Err(status::failure(&Failure::Denied(why)));
        }
        let key =
            self.signer.keys.text(&self.state(), request.generation).map_err(Status::failed_precondition)?;
        let key =
            key.ok_or_else(|| Status::failed_precondition("this member does not have that key either"))?;
        Ok(peer::FetchAuthorityKeyResponse { key: key.expose().clone() })
    }
}
