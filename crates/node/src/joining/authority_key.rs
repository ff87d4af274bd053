//! The authority's key on its way to who gets a vote: from member to member, by TLS, into a file.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_api::{peer, unanswered};
use trestle_consensus::{ClusterView, DEFAULT_WAIT};
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

/// The authorities whose keys a member lacks, and can be sent.
fn lacking(state: &ClusterState, id: MemberId) -> impl Iterator<Item = &Authority> {
    let signing = state.signing_authorities();
    signing.filter(move |one| has_tls(state, id) && !one.key_holders.contains(&id))
}

impl Joins {
    fn state(&self) -> std::sync::Arc<ClusterState> {
        self.local.consensus.view().borrow().state.clone()
    }

    /// Gives a member the keys of the authorities that sign and are to sign, if it lacks them and speaks TLS. This member leads.
    ///
    /// # Errors
    /// Why it has not got one of them, in words; then it should get no vote.
    pub(crate) async fn hand_over(&self, id: MemberId) -> Result<(), Status> {
        let state = self.state();
        let me = self.local.id();
        let Some(member) = state.members.get(&id).filter(|_| Some(id) != me) else { return Ok(()) };
        for authority in lacking(&state, id) {
            self.hand(&state, authority, member).await?;
        }
        Ok(())
    }

    async fn hand(&self, state: &ClusterState, active: &Authority, member: &Member) -> Result<(), Status> {
        let key = self.key(state, active).await?;
        match self.send(member, active.generation, &key).await {
            Ok(()) => self.note_holder(active.generation, member.id).await,
            Err(status) => {
                Err(not_handed_over(format!("{}: {}", member.spec.name, unanswered::why(&status))))
            }
        }
    }

    /// Gives each voter the key that lacks it, this member first, which leads.
    pub(crate) async fn hand_over_to_voters(&self) -> Result<(), Status> {
        let (state, view) = (self.state(), self.local.consensus.view().borrow().clone());
        let Some(me) = self.local.id() else { return Ok(()) };
        let mut failed = None;
        for authority in lacking(&state, me) {
            failed = self.take(&state, authority, me).await.err().or(failed);
        }
        for id in view.voters.iter().filter(|id| **id != me) {
            // One that is off gets it when it is back.
            failed = self.hand_over(*id).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether a member speaks TLS, so that keys can be sent to it.
    pub(crate) fn speaks_tls(&self, id: MemberId) -> bool {
        has_tls(&self.state(), id)
    }

    /// Keeps a key that was kept elsewhere, of whichever authority it is, and gives it to the other voters that answer. Answers the
    /// authority's generation.
    ///
    /// # Errors
    /// In words, when it is none that is of use here.
    pub(crate) async fn import(&self, view: &ClusterView, key: &Secret<String>) -> Result<u32, String> {
        let (state, me) = (&view.state, self.local.id());
        if !me.is_some_and(|me| view.voters.contains(&me)) {
            return Err("goes to a voter, which this member is not: call another one".to_owned());
        }
        let kept = |authority: &Authority| {
            self.signer.keys.keep(state, authority.generation, key).map(|()| authority.generation)
        };
        let attempts: Vec<_> = state.believed_authorities().map(kept).collect();
        let generation = match attempts.iter().find_map(|kept| kept.as_ref().ok()) {
            Some(generation) => *generation,
            None => {
                let why: Vec<_> = attempts.into_iter().filter_map(Result::err).collect();
                return Err(format!(
                    "must be the key of an authority of this cluster that is not retired: {}",
                    why.join("; ")
                ));
            }
        };
        let others = view.voters.iter().filter(|id| Some(**id) != me && has_tls(state, **id));
        for member in others.filter_map(|id| state.members.get(id)) {
            if let Err(status) = self.send(member, generation, key).await {
                tracing::warn!(member = %member.spec.name, "did not take a key: {}", unanswered::why(&status));
            }
        }
        Ok(generation)
    }

    /// Gets keys again that this member should have, and has lost.
    ///
    /// # Errors
    /// Why it has not got one.
    pub(super) async fn find_lost_keys(&self) -> Result<(), Status> {
        let (state, Some(me)) = (self.state(), self.local.id()) else { return Ok(()) };
        if !self.local.consensus.view().borrow().voters.contains(&me) {
            return Ok(());
        }
        let lost =
            |one: &&Authority| one.key_holders.contains(&me) && !self.signer.keys.is_there(one.generation);
        for authority in state.signing_authorities().filter(lost) {
            self.key(&state, authority).await?;
        }
        Ok(())
    }

    async fn send(&self, member: &Member, generation: u32, key: &Secret<String>) -> Result<(), Status> {
        let mut client = self.peers.client(&member.spec.peer_address)?;
        let to = self.local.destination(Some(member.id));
        let hand = peer::TakeAuthorityKeyRequest { to, generation, key: key.expose().clone() };
        match timeout(KEEP_MAX, client.take_authority_key(hand)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Status::deadline_exceeded(unanswered::none_within(KEEP_MAX))),
        }
    }

    /// Takes the key of an authority into this member's own file.
    async fn take(&self, state: &ClusterState, authority: &Authority, me: MemberId) -> Result<(), Status> {
        self.key(state, authority).await?;
        self.note_holder(authority.generation, me).await
    }

    async fn note_holder(&self, generation: u32, member: MemberId) -> Result<(), Status> {
        let command = Command::NoteKeyHolder { generation, member };
        let proposal = Proposal { request: None, origin: None, command };
        self.local.consensus.propose_here(proposal, DEFAULT_WAIT).await?;
        tracing::info!(%member, generation, "has the key of the cluster's authority");
        Ok(())
    }

    /// The key, from this member's file or from another member that has it, and then into this member's file.
    pub(crate) async fn key(
        &self,
        state: &ClusterState,
        authority: &Authority,
    ) -> Result<Secret<String>, Status> {
        let generation = authority.generation;
        let mut failed = Vec::new();
        match self.signer.keys.text(state, generation) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {}
            // As of a leader that was killed after it had made a key, and before the log had its certificate.
            Err(why) => failed.push(why),
        }
        let me = self.local.id();
        let holders = authority.key_holders.iter().filter(|id| Some(**id) != me);
        for member in holders.filter_map(|id| state.members.get(id)) {
            match self.fetch(member, generation).await {
                Ok(key) => {
                    self.signer.keys.keep(state, generation, &key).map_err(not_handed_over)?;
                    return Ok(key);
                }
                Err(status) => failed.push(format!("{}: {}", member.spec.name, unanswered::why(&status))),
            }
        }
        let why = if failed.is_empty() { "no other member had it".to_owned() } else { failed.join("; ") };
        Err(not_handed_over(format!(
            "this member lacks that of authority {generation} too, and nobody gives it ({why})"
        )))
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
