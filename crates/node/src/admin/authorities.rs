//! Authorities, as clients see and change them. What changes them is done by the leader (`rotating`).

use std::pin::Pin;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};
use trestle_api::peer::forward_request::Operation;
use trestle_api::peer::forward_response::Message;
use trestle_api::status::{self, Failure};
use trestle_api::v1::authority_service_server::AuthorityService;
use trestle_api::{convert, peer, v1};
use trestle_identity::{CertificateFacts, check_authority, from_pem, to_pem};
use trestle_model::{Authority, AuthorityState, Invalid, Secret, Violation};

use super::leader::{OperationStream, resource_name, unexpected};
use super::{Admin, internal};
use crate::access::{self, Action, Caller, Subject, Target, TargetKind, Via};

type Stream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::RotateAuthorityResponse, Status>> + Send>>;

fn rendered(authority: &Authority) -> v1::Authority {
    let state = match authority.state {
        AuthorityState::Trusted => v1::AuthorityState::Trusted,
        AuthorityState::Active => v1::AuthorityState::Active,
        AuthorityState::Retired => v1::AuthorityState::Retired,
    };
    let end = CertificateFacts::read(&authority.certificate).ok().map(|facts| facts.not_after);
    v1::Authority {
        generation: authority.generation,
        state: state.into(),
        certificate: to_pem(&authority.certificate),
        expire_time: end.map(Into::into),
        external: authority.external,
        ..Default::default()
    }
}

/// The one certificate of an authority in a text in PEM, in DER.
pub(super) fn authority_in(field: &str, text: &str, now: SystemTime) -> Result<Vec<u8>, Status> {
    let found = from_pem(text).and_then(|mut found| match found.len() {
        1 => Ok(found.remove(0)),
        many => Err(format!("must have one certificate, and has {many}")),
    });
    let checked = found.and_then(|der| check_authority(&der, now).map(|_| der));
    checked.map_err(|rule| status::invalid(&Invalid(vec![Violation::new(field, "(not shown)", rule)])))
}

fn unanswering(member: peer::UnansweringMember) -> v1::UnansweringMember {
    v1::UnansweringMember { member: resource_name(&member.name), error: member.error }
}

fn step(step: peer::AuthorityStep) -> v1::RotateAuthorityResponse {
    v1::RotateAuthorityResponse {
        step: step.step,
        generation: step.generation,
        members: step.members.iter().map(|name| resource_name(name)).collect(),
        unanswering_members: step.unanswering.into_iter().map(unanswering).collect(),
        former_generation: step.former_generation,
    }
}

fn steps(stream: OperationStream) -> Stream {
    Box::pin(stream.map(|response| match response?.message {
        Some(Message::AuthorityStep(found)) => Ok(step(found)),
        Some(other) => Err(unexpected(&other)),
        None => Err(internal("the leader answered nothing")),
    }))
}

/// Refuses to send a key to, or take one from, whoever proves nothing of itself: that came by a plain connection.
fn require_privacy(caller: &Caller) -> Result<(), Status> {
    match (&caller.via, &caller.subject) {
        (Via::UnixSocket, _) | (Via::AdminPort(_), Subject::Known(_)) => Ok(()),
        _ => {
            let why = "an authority's key goes over TLS or the admin socket only, and this call came over a plain connection: use a \
                       context, or the admin socket on a member's machine";
            Err(status::failure(&Failure::Denied(why.to_owned())))
        }
    }
}

impl Admin {
    /// What a member says of keys and certificates.
    pub(super) async fn identity_report(
        &self,
        member: &trestle_model::Member,
    ) -> Result<peer::MemberReport, Status> {
        let ask = peer::ReportRequest { authorities: true, no_digest: true, ..Default::default() };
        Ok(self.reports.ask(member, &ask).await?.status.unwrap_or_default())
    }

    /// Adds to authorities what each member says, and answers which ones say nothing.
    async fn add_members(&self, authorities: &mut [v1::Authority]) -> Vec<v1::UnansweringMember> {
        let known = self.local.known();
        let answers = join_all(known.iter().map(|member| self.identity_report(member))).await;
        let mut silent = Vec::new();
        for (member, answer) in known.iter().zip(answers) {
            let member = convert::member_name(&member.spec.name);
            let report = match answer {
                Ok(report) => report,
                Err(status) => {
                    let error = status.message().to_owned();
                    silent.push(v1::UnansweringMember { member, error });
                    continue;
                }
            };
            for authority in &mut *authorities {
                if report.authority_keys.contains(&authority.generation) {
                    authority.key_members.push(member.clone());
                }
                if report.certificate_authority == authority.generation {
                    authority.certified_members.push(member.clone());
                }
            }
        }
        silent
    }
}

#[tonic::async_trait]
impl AuthorityService for Admin {
    async fn list_authorities(
        &self,
        request: Request<v1::ListAuthoritiesRequest>,
    ) -> Result<Response<v1::ListAuthoritiesResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let read = self.read(&caller, &Target::all(TargetKind::Authority), request.consistency).await?;
        let mut authorities: Vec<_> = read.state().authorities.values().map(|one| rendered(one)).collect();
        let silent = match request.certificates_only {
            true => Vec::new(),
            false => self.add_members(&mut authorities).await,
        };
        Ok(Response::new(v1::ListAuthoritiesResponse {
            authorities,
            unanswering_members: silent,
            read: Some(read.info),
        }))
    }

    type RotateAuthorityStream = Stream;

    async fn rotate_authority(
        &self,
        request: Request<v1::RotateAuthorityRequest>,
    ) -> Result<Response<Self::RotateAuthorityStream>, Status> {
        let (caller, request) = Caller::take(request)?;
        let rotate = peer::RotateAuthority { without_former_key: request.without_former_key };
        let stream = self.lead(&caller, Operation::RotateAuthority(rotate)).await?;
        Ok(Response::new(steps(stream)))
    }

    async fn add_authority(
        &self,
        request: Request<v1::AddAuthorityRequest>,
    ) -> Result<Response<v1::AddAuthorityResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        access::authorize(&caller, Action::Create, &Target::all(TargetKind::Authority))?;
        let certificate = match request.certificate.as_str() {
            "" => Vec::new(),
            text => authority_in("certificate", text, self.local.trust.now().time())?,
        };
        match self.led(&caller, Operation::AddAuthority(peer::AddAuthority { certificate })).await? {
            Message::AuthorityAdded(added) => Ok(Response::new(v1::AddAuthorityResponse {
                generation: added.generation,
                members: added.members.iter().map(|name| resource_name(name)).collect(),
                unanswering_members: added.unanswering.into_iter().map(unanswering).collect(),
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn retire_authority(
        &self,
        request: Request<v1::RetireAuthorityRequest>,
    ) -> Result<Response<v1::RetireAuthorityResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let (generation, despite_members) = (request.generation, request.despite_members);
        let retire = peer::RetireAuthority { generation, despite_members };
        match self.led(&caller, Operation::RetireAuthority(retire)).await? {
            Message::AuthorityRetired(peer::AuthorityRetired { revision, warnings }) => {
                Ok(Response::new(v1::RetireAuthorityResponse { revision, warnings }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn export_authority_key(
        &self,
        request: Request<v1::ExportAuthorityKeyRequest>,
    ) -> Result<Response<v1::ExportAuthorityKeyResponse>, Status> {
        let (caller, _) = Caller::take(request)?;
        access::authorize(&caller, Action::Export, &Target::all(TargetKind::Authority))?;
        require_privacy(&caller)?;
        let read = self.read_newest().await?;
        let state = read.state();
        let active = state.active_authority().ok_or_else(|| status::failure(&Failure::NoAuthority))?;
        let generation = active.generation;
        if active.external {
            let why = format!(
                "authority {generation} is external: no member has its key, and it is kept by whoever signs with it"
            );
            return Err(status::failure(&Failure::Authority(why)));
        }
        let key = self.signer.keys.text(state, generation).map_err(|why| internal(&why))?;
        let none = || {
            let why = format!(
                "{} does not have the key of authority {generation}; \"trestle ca list\" says who has it",
                self.local.config.name
            );
            status::failure(&Failure::NotSigned(why))
        };
        let key = key.ok_or_else(none)?;
        tracing::warn!(%caller, generation, "gives the key of the cluster's authority away, as asked");
        Ok(Response::new(v1::ExportAuthorityKeyResponse {
            generation,
            certificate: to_pem(&active.certificate),
            key: key.expose().clone(),
        }))
    }

    async fn import_authority_key(
        &self,
        request: Request<v1::ImportAuthorityKeyRequest>,
    ) -> Result<Response<v1::ImportAuthorityKeyResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        access::authorize(&caller, Action::Restore, &Target::all(TargetKind::Authority))?;
        require_privacy(&caller)?;
        let read = self.read_newest().await?;
        let key = Secret::new(request.key);
        let generation = self
            .joins
            .import(&read.view, &key)
            .await
            .map_err(|why| status::invalid(&Invalid(vec![Violation::new("key", "(not shown)", why)])))?;
        let member = convert::member_name(&self.local.config.name);
        Ok(Response::new(v1::ImportAuthorityKeyResponse { generation, member }))
    }
}
