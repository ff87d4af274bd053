//! Signing: here, if this member has the authority's key, and otherwise by a member that has it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tonic::Status;
use trestle_api::peer::issue_certificate_request::Subject as Message;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::status::{self, Failure};
use trestle_api::{peer, unanswered};
use trestle_identity::{CertificateAuthority, CertificateRequest, LeafName, SigningError};
use trestle_model::{
    ClusterState, Invalid, KeyPin, Member, MemberId, TransportSecurity, UserName, Violation,
};

use super::authority_key::AuthorityKeys;
use crate::peers::Peers;
use crate::this_member::ThisMember;

/// How long a member that has the key may take to sign.
const SIGN_MAX: Duration = Duration::from_secs(2);
/// Most names of a member's certificate.
const HOSTS_MAX: usize = 8;

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub(crate) enum LeafSubject {
    /// A user, for so long.
    User(UserName, Duration),
    /// A member, which is reached under these names.
    Member(MemberId, Vec<LeafName>),
}

/// Signs certificates.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
    pub(crate) keys: AuthorityKeys,
}

fn not_signed(why: impl Into<String>) -> Status {
    status::failure(&Failure::NotSigned(why.into()))
}

fn invalid(field: &str, value: impl std::fmt::Display, rule: impl Into<String>) -> Status {
    status::invalid(&Invalid(vec![Violation::new(field, value, rule)]))
}

/// What is said where the cluster was asked to sign, and somebody else does.
fn signed_outside(generation: u32) -> Status {
    status::failure(&Failure::Authority(format!(
        "authority {generation} is external, and no member has its key: have the certificate signed there"
    )))
}

fn signed(
    authority: &CertificateAuthority,
    request: &CertificateRequest,
    subject: &LeafSubject,
    now: SystemTime,
) -> Result<Vec<u8>, SigningError> {
    match subject {
        LeafSubject::User(name, life) => authority.sign_user(request, name, now, *life),
        LeafSubject::Member(id, names) => authority.sign_member(request, *id, names, now),
    }
}

/// A name of a certificate, as it is told.
pub(crate) fn leaf_name(text: &str) -> LeafName {
    text.parse::<IpAddr>().map_or_else(|_| LeafName::Dns(text.to_owned()), LeafName::Ip)
}

fn message(subject: &LeafSubject) -> Message {
    match subject {
        LeafSubject::User(name, life) => Message::User(peer::UserSubject {
            name: name.to_string(),
            lifetime: Some(trestle_api::convert::duration(*life)),
        }),
        LeafSubject::Member(id, names) => {
            let hosts = names.iter().map(ToString::to_string).collect();
            Message::Member(peer::MemberSubject { member_id: id.0, hosts })
        }
    }
}

fn parsed(subject: Option<Message>) -> Result<LeafSubject, Status> {
    match subject {
        Some(Message::User(user)) => {
            let name = UserName::parse(&user.name).map_err(|rule| invalid("user.name", &user.name, rule))?;
            let life = user.lifetime.and_then(|life| Duration::try_from(life).ok()).unwrap_or_default();
            Ok(LeafSubject::User(name, life))
        }
        Some(Message::Member(member)) if member.hosts.len() <= HOSTS_MAX => {
            let names = member.hosts.iter().map(|host| leaf_name(host)).collect();
            Ok(LeafSubject::Member(MemberId(member.member_id), names))
        }
        Some(Message::Member(member)) => {
            Err(invalid("member.hosts", member.hosts.len(), format!("must be at most {HOSTS_MAX}")))
        }
        None => Err(invalid("subject", "", "must be a user or a member")),
    }
}

impl Signer {
    pub(crate) fn new(local: ThisMember, peers: Peers) -> Self {
        let keys = AuthorityKeys::new(local.config.data_dir.clone());
        Self { local, peers, keys }
    }

    /// The generation of the authority that signs, where that is external, by what this member knows.
    pub(crate) fn external_authority(&self) -> Option<u32> {
        let state = self.local.consensus.view().borrow().state.clone();
        state.active_authority().filter(|active| active.external).map(|active| active.generation)
    }

    /// Signs with the key that this member has; `None` if it has none.
    fn sign_here(
        &self,
        request: &CertificateRequest,
        subject: &LeafSubject,
    ) -> Result<Option<Vec<u8>>, Status> {
        let state = self.local.consensus.view().borrow().state.clone();
        let Some(authority) = self.keys.load(&state).map_err(not_signed)? else { return Ok(None) };
        let now = self.local.trust.signing_time().map_err(not_signed)?;
        let certificate = signed(&authority, request, subject, now);
        certificate.map(Some).map_err(|error| not_signed(error.to_string()))
    }

    /// Signs what a request asks for, in DER.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a request that is none; `UNAVAILABLE` when nobody who has the key answers, with who that would be.
    pub(crate) async fn sign(&self, request: &[u8], subject: &LeafSubject) -> Result<Vec<u8>, Status> {
        let read = CertificateRequest::read(request);
        let read = read.map_err(|error| invalid("certificate_request", "", error.to_string()))?;
        if let Some(generation) = self.external_authority() {
            return Err(signed_outside(generation));
        }
        let mut failed = Vec::new();
        match self.sign_here(&read, subject) {
            Ok(Some(certificate)) => return Ok(certificate),
            Ok(None) => {}
            // Another member may have the right key.
            Err(status) => failed.push(status.message().to_owned()),
        }
        let (holders, known) = self.holders()?;
        for member in known {
            match self.ask(&member, request, subject).await {
                Ok(certificate) => return Ok(certificate),
                Err(status) => failed.push(format!("{}: {}", member.spec.name, unanswered::why(&status))),
            }
        }
        let why = match failed.is_empty() {
            true => format!(
                "the authority's key is on {holders} alone, and no such member is in the cluster any more"
            ),
            false => format!("the authority's key is on {holders} alone ({})", failed.join("; ")),
        };
        Err(not_signed(why))
    }

    /// Who has the key, in words, and those of them that are other members.
    fn holders(&self) -> Result<(String, Vec<Arc<Member>>), Status> {
        let state = self.local.consensus.view().borrow().state.clone();
        let Some(active) = state.active_authority() else {
            return Err(status::failure(&Failure::NoAuthority));
        };
        let name = |id: &MemberId| match state.members.get(id) {
            Some(member) => member.spec.name.to_string(),
            None => format!("member {id}"),
        };
        let words: Vec<_> = active.key_holders.iter().map(name).collect();
        let me = self.local.id();
        let others = active.key_holders.iter().filter(|id| Some(**id) != me);
        let known = others.filter_map(|id| state.members.get(id).cloned()).collect();
        Ok((words.join(", "), known))
    }

    async fn ask(&self, member: &Member, request: &[u8], subject: &LeafSubject) -> Result<Vec<u8>, Status> {
        let mut client = self.peers.client(&member.spec.peer_address)?;
        let ask = peer::IssueCertificateRequest {
            to: self.local.destination(Some(member.id)),
            certificate_request: request.to_vec(),
            subject: Some(message(subject)),
        };
        match timeout(SIGN_MAX, client.issue_certificate(ask)).await {
            Ok(answer) => Ok(answer?.into_inner().certificate),
            Err(_) => Err(Status::deadline_exceeded(unanswered::none_within(SIGN_MAX))),
        }
    }

    /// Signs for another member, which has checked which of its users asks; for a member, as far as the caller may ask that.
    ///
    /// # Errors
    /// As [`sign`](Self::sign); this member must have the key. `PERMISSION_DENIED` for a member that is not the caller and whose record
    /// does not have the key that is to be certified.
    pub(crate) fn sign_for(
        &self,
        caller: PeerCaller,
        ask: peer::IssueCertificateRequest,
    ) -> Result<peer::IssueCertificateResponse, Status> {
        let subject = parsed(ask.subject)?;
        let request = CertificateRequest::read(&ask.certificate_request);
        let request = request.map_err(|error| invalid("certificate_request", "", error.to_string()))?;
        let state = self.local.consensus.view().borrow().state.clone();
        may_ask(&state, caller, &subject, request.pin())?;
        match self.sign_here(&request, &subject)? {
            Some(certificate) => Ok(peer::IssueCertificateResponse { certificate }),
            None => Err(not_signed("this member does not have the authority's key")),
        }
    }
}

/// Whether a caller may have a certificate for somebody and a key signed. Whoever has a key that a record has may: it has proved that by
/// its request, and gets nothing that the member does not have.
fn may_ask(
    state: &ClusterState,
    caller: PeerCaller,
    subject: &LeafSubject,
    key: KeyPin,
) -> Result<(), Status> {
    let denied = |why: String| Err(status::failure(&Failure::Denied(why)));
    let LeafSubject::Member(id, _) = subject else {
        return match caller {
            PeerCaller::Unproven | PeerCaller::Member(_) => Ok(()),
            PeerCaller::Anonymous | PeerCaller::Newer(_) | PeerCaller::Former(_) => {
                denied("only members have certificates signed for users".to_owned())
            }
        };
    };
    let Some(member) = state.members.get(id) else {
        return Err(invalid("member.member_id", id, "must be a member of this cluster"));
    };
    if !state.member_keys.contains_key(id) && state.transport != TransportSecurity::Require {
        return caller.is(*id);
    }
    if state.is_key_of(*id, &key) {
        return Ok(());
    }
    denied(format!(
        "key {key} is none of member {}: only a key that its record has is certified for it",
        member.spec.name
    ))
}
