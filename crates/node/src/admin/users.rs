//! Users, and the certificates that are signed for them.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tonic::{Request, Response, Status};
use trestle_api::convert::{self, Wanted, WantedCertificate, Write};
use trestle_api::status::{self, Failure};
use trestle_api::v1;
use trestle_api::v1::user_service_server::UserService;
use trestle_identity::{CertificateFacts, CertificateRefusal, CertificateRequest, ShownChain, to_pem};
use trestle_model::defaults::{CERTIFICATE_BACKDATED, USER_CERTIFICATE_LIFE};
use trestle_model::{
    Actor, Command, Expected, Invalid, Kind, Refusal, Revision, User, UserKey, UserName, UserSpec, Violation,
    Violations,
};

use super::paging::{after, page_size};
use super::{Admin, internal};
use crate::access::{self, Action, Caller, Target, TargetKind};
use crate::identities::{LeafSubject, generation_of};

/// How much later a user's certificate must end than the one that is noted to be noted itself, at the most.
const NOTED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// How long members that lag or do not answer are waited for when a user was made.
const KNOWN_MAX: Duration = Duration::from_secs(1);

/// A certificate that was signed, and the key of it that is to be pinned.
struct Signed {
    /// `None` where an authority outside of the cluster is to sign it.
    certificate: Option<Vec<u8>>,
    key: UserKey,
}

/// Since the beginning of 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long a certificate was meant to be valid from when it was signed.
fn life(key: &UserKey) -> Duration {
    match key.not_before {
        0 => USER_CERTIFICATE_LIFE,
        begin => {
            Duration::from_secs(key.not_after.saturating_sub(begin)).saturating_sub(CERTIFICATE_BACKDATED)
        }
    }
}

/// Whether a new certificate is to be noted. What is a little newer than what the record has is not worth an entry of the log, which
/// viewers could otherwise fill.
fn is_news(known: &UserKey, key: &UserKey) -> bool {
    let later = Duration::from_secs(key.not_after.saturating_sub(known.not_after));
    known.authority != key.authority || later >= (life(key) / 4).min(NOTED_EVERY)
}

fn invalid(found: &Invalid) -> Status {
    status::invalid(found)
}

/// A key that is pinned, and whose certificate an authority outside of the cluster is to sign.
fn unsigned(request: &[u8]) -> Result<Signed, Status> {
    let read =
        CertificateRequest::read(request).map_err(|error| bad_request(String::new(), error.to_string()))?;
    Ok(Signed {
        certificate: None,
        key: UserKey { pin: read.pin(), not_after: 0, not_before: 0, authority: 0 },
    })
}

fn bad_request(value: String, rule: String) -> Status {
    invalid(&Invalid(vec![Violation::new("certificate_request", value, rule)]))
}

fn named(name: &UserName) -> Target {
    Target::named(TargetKind::User, convert::user_name(name))
}

impl Admin {
    /// Has a certificate signed. It is worth nothing until its key is in the user's record.
    async fn signed(&self, request: &[u8], wanted: &WantedCertificate) -> Result<Signed, Status> {
        if self.local.consensus.view().borrow().state.active_authority().is_none() {
            return Err(status::failure(&Failure::NoAuthority));
        }
        if self.signer.external_authority().is_some() {
            return unsigned(request);
        }
        let subject = LeafSubject::User(wanted.name.clone(), wanted.lifetime);
        let certificate = self.signer.sign(request, &subject).await?;
        let unreadable = |refusal: CertificateRefusal| internal(&refusal.to_string());
        let facts = CertificateFacts::read(&certificate).map_err(unreadable)?;
        let state = self.local.consensus.view().borrow().state.clone();
        let key = UserKey {
            pin: facts.pin,
            not_after: seconds(facts.not_after),
            not_before: seconds(facts.not_before),
            authority: generation_of(&state, ShownChain::alone(&certificate)).unwrap_or_default(),
        };
        Ok(Signed { certificate: Some(certificate), key })
    }

    /// What a user gets that now is as it was wanted.
    async fn credentials(
        &self,
        name: &UserName,
        signed: &Signed,
    ) -> Result<Response<v1::UserCredentials>, Status> {
        let read = self.read_newest().await?;
        let state = read.state();
        let user = state.users.get(name).filter(|user| user.has_key(&signed.key.pin));
        // Somebody was quicker.
        let user = user.ok_or_else(|| status::refusal(&missing(name)))?;
        Ok(Response::new(v1::UserCredentials {
            user: Some(convert::user(user)),
            certificate: signed.certificate.as_deref().map(to_pem).unwrap_or_default(),
            authorities: state
                .believed_authorities()
                .map(|authority| to_pem(&authority.certificate))
                .collect(),
            endpoints: state.members.values().map(|member| member.spec.admin_address.to_string()).collect(),
            cluster_id: state.cluster_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        }))
    }

    /// Waits for the members that answer to know what has come of a write: until then they refuse a new user.
    async fn known_everywhere(&self, revision: Revision) {
        let members = self.local.known();
        let each = members.iter().map(|member| self.waits.await_on(member, revision, KNOWN_MAX));
        // One that does not answer knows it when it is back.
        join_all(each).await;
    }

    /// The user as all members have it.
    async fn newest_user(&self, name: &UserName) -> Result<User, Status> {
        let read = self.read_newest().await?;
        let user = read.state().users.get(name).map(|user| User::clone(user));
        user.ok_or_else(|| status::refusal(&missing(name)))
    }
}

fn missing(name: &UserName) -> Refusal {
    Refusal::NotFound { kind: Kind::User, name: name.to_string() }
}

#[tonic::async_trait]
impl UserService for Admin {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::UserCredentials>, Status> {
        let (caller, request) = Caller::take(request)?;
        let (wanted, role) = convert::create_user(&request).map_err(|found| invalid(&found))?;
        access::authorize(&caller, Action::Create, &named(&wanted.name))?;
        self.require_membership()?;
        let signed = self.signed(&request.certificate_request, &wanted).await?;
        let user = UserSpec { name: wanted.name.clone(), role, keys: vec![signed.key] };
        let put = convert::put_user(&request, &request.request_id, user, Expected::Absent);
        let accepted = Box::pin(self.write(&caller, put)).await?;
        self.known_everywhere(accepted.revision).await;
        self.credentials(&wanted.name, &signed).await
    }

    async fn rotate_user(
        &self,
        request: Request<v1::RotateUserRequest>,
    ) -> Result<Response<v1::UserCredentials>, Status> {
        let (caller, request) = Caller::take(request)?;
        let wanted = convert::rotate_user(&request).map_err(|found| invalid(&found))?;
        access::authorize(&caller, Action::Update, &named(&wanted.name))?;
        self.require_membership()?;
        let known = self.newest_user(&wanted.name).await?;
        let signed = self.signed(&request.certificate_request, &wanted).await?;
        let user = UserSpec { keys: vec![signed.key], ..known.spec };
        let expected = Expected::Revision(known.revision);
        let put = convert::put_user(&request, &request.request_id, user, expected);
        let accepted = Box::pin(self.write(&caller, put)).await?;
        self.known_everywhere(accepted.revision).await;
        self.credentials(&wanted.name, &signed).await
    }

    async fn renew_user_certificate(
        &self,
        request: Request<v1::RenewUserCertificateRequest>,
    ) -> Result<Response<v1::UserCredentials>, Status> {
        let (caller, request) = Caller::take(request)?;
        let Some(Actor::User { name, .. }) = caller.actor().cloned() else {
            let why = format!("{caller} has shown no certificate of a user, which alone it could renew");
            return Err(status::failure(&Failure::Denied(why)));
        };
        access::authorize(&caller, Action::Renew, &named(&name))?;
        let read = CertificateRequest::read(&request.certificate_request);
        let pin = read.map_err(|error| bad_request(String::new(), error.to_string()))?.pin();
        let known = self.newest_user(&name).await?;
        let Some(key) = known.spec.keys.iter().find(|key| key.pin == pin) else {
            return Err(bad_request(
                pin.to_string(),
                format!("must be of a key that user \"{name}\" has already"),
            ));
        };
        if let Some(generation) = self.signer.external_authority() {
            let why = format!(
                "authority {generation} is external: have the certificate of user \"{name}\" signed there"
            );
            return Err(status::failure(&Failure::Authority(why)));
        }
        let wanted = WantedCertificate { name: name.clone(), lifetime: life(key) };
        let signed = self.signed(&request.certificate_request, &wanted).await?;
        if is_news(key, &signed.key) {
            let command = Command::NoteUserCertificate { user: name.clone(), key: signed.key };
            let write = Write { request: None, validate_only: false, wanted: Wanted::Command(command) };
            Box::pin(self.write(&caller, Ok(write))).await?;
        }
        self.credentials(&name, &signed).await
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let read = self.read(&caller, &Target::all(TargetKind::User), request.consistency).await?;
        let mut v = Violations::new();
        let size = page_size(request.page_size, &mut v);
        let after = after(&request.page_token, UserName::parse, &mut v);
        v.into_result().map_err(|found| invalid(&found))?;
        let users = &read.state().users;
        let mut rest = users.values().filter(|user| after.as_ref().is_none_or(|last| user.spec.name > *last));
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let next = rest.next().and(page.last()).map(|last| last.spec.name.to_string());
        Ok(Response::new(v1::ListUsersResponse {
            users: page.into_iter().map(|user| convert::user(user)).collect(),
            next_page_token: next.unwrap_or_default(),
            read: Some(read.info),
        }))
    }

    async fn delete_user(
        &self,
        request: Request<v1::DeleteUserRequest>,
    ) -> Result<Response<v1::DeleteUserResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let accepted = Box::pin(self.write(&caller, convert::delete_user(&request))).await?;
        Ok(Response::new(v1::DeleteUserResponse { revision: accepted.revision }))
    }
}
