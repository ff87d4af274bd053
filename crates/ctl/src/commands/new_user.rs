//! A user that gets a key: the key is made here and never leaves this machine, and what was signed for it becomes a context.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tonic::transport::Channel;
use trestle_api::v1;
use trestle_api::v1::user_service_client::UserServiceClient;
use trestle_identity::{
    CertificateRequest, CertificateSubject, PrivateKey, SigningError, SpiffeId, time_text,
};
use trestle_model::{Choice, ClusterId, Role, Secret, UserName};

use crate::context::{Context, Contexts, context_name, default_path};
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session};
use crate::view::{short_name, word};

/// A user as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct UserView {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) keys: Vec<UserKeyView>,
    pub(super) revision: u64,
}

/// A key of a user.
#[derive(Debug, Serialize)]
pub(super) struct UserKeyView {
    pin: String,
    pub(super) expire_time: Option<String>,
    /// Generation of the authority that has signed the certificate; 0 where it is not known.
    authority: u32,
}

/// A user that was made, without what is secret.
#[derive(Debug, Serialize)]
pub(super) struct MadeUser {
    /// As the cluster has it.
    pub(super) user: UserView,
    /// What its context is called.
    pub(super) context: String,
    /// The file that the context is in.
    pub(super) file: String,
    /// Whether its certificate is to be signed outside of the cluster.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) awaits_certificate: bool,
}

/// The context itself, in place of the text of the file, for programs.
#[derive(Debug, Serialize)]
pub(super) struct ContextDocument {
    name: String,
    endpoints: Vec<String>,
    certificate: String,
    key: String,
    ca: String,
    /// Whom an authority outside of the cluster is to sign for.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_for: Option<String>,
}

/// A user that was made, with the context that it calls the cluster with.
pub(super) enum KeptUser {
    /// The context is in a file.
    InFile {
        /// What was made.
        made: MadeUser,
        /// Whether another context is the current one there.
        another_is_current: bool,
    },
    /// The context goes to standard output.
    ForOutput {
        /// As the cluster has it.
        user: UserView,
        /// The context alone.
        contexts: Contexts,
    },
}

impl From<v1::User> for UserView {
    fn from(user: v1::User) -> Self {
        let key = |key: v1::UserKey| UserKeyView {
            pin: key.pin,
            expire_time: key.expire_time.and_then(|time| SystemTime::try_from(time).ok()).map(time_text),
            authority: key.authority,
        };
        Self {
            name: short_name(&user.name),
            role: word::<Role>(user.role),
            keys: user.keys.into_iter().map(key).collect(),
            revision: user.revision,
        }
    }
}

/// A client of the user service.
pub(super) fn users(channel: Channel) -> UserServiceClient<Channel> {
    UserServiceClient::new(channel)
}

/// A key of a user, and where its context is to be.
pub(super) struct NewUser {
    name: String,
    key: PrivateKey,
    request: Vec<u8>,
    request_id: String,
    lifetime: prost_types::Duration,
    /// The file; `None` for standard output.
    file: Option<PathBuf>,
}

impl NewUser {
    /// Makes the key. Looks at the file first, so that nothing is made that could not be kept; `None` is standard output.
    ///
    /// # Errors
    /// Every mistake in what was given, or what is wrong with the file.
    pub(super) fn begin(
        (label, name): (&str, &str),
        file: Option<&Path>,
        ttl: Duration,
    ) -> Result<Self, Error> {
        let mut input = Input::default();
        input.valid(label, name, UserName::parse(name));
        let request_id = input.request_id(None)?;
        let lifetime = prost_types::Duration::try_from(ttl).ok();
        if lifetime.is_none() {
            input.refuse("--ttl", &format!("{ttl:?}"), "must be 1m to 3650d");
        }
        input.finish()?;
        let file = file.map(|path| Contexts::read(path).map(|_| path.to_owned())).transpose()?;
        let failed = |error: SigningError| Error::Key(error.to_string());
        let key = PrivateKey::generate().map_err(failed)?;
        let request = CertificateRequest::make(&key).map_err(failed)?;
        let lifetime = lifetime.unwrap_or_default();
        Ok(Self { name: name.to_owned(), key, request, request_id, lifetime, file })
    }

    /// Has the user made, with this key.
    ///
    /// # Errors
    /// As of any call.
    pub(super) async fn create(
        &self,
        session: &mut Session<'_>,
        role: Role,
    ) -> Result<v1::UserCredentials, Error> {
        let request = v1::CreateUserRequest {
            user_id: self.name.clone(),
            user: Some(v1::User { role: role.number(), ..Default::default() }),
            certificate_request: self.request.clone(),
            lifetime: Some(self.lifetime),
            request_id: self.request_id.clone(),
        };
        let make = async |channel| users(channel).create_user(request.clone()).await;
        session.call(Repeat::Write(&self.request_id), make).await
    }

    /// Gives a user this key in place of the one that it has.
    ///
    /// # Errors
    /// As of any call.
    pub(super) async fn rotate(&self, session: &mut Session<'_>) -> Result<v1::UserCredentials, Error> {
        let request = v1::RotateUserRequest {
            name: format!("users/{}", self.name),
            certificate_request: self.request.clone(),
            lifetime: Some(self.lifetime),
            request_id: self.request_id.clone(),
        };
        let make = async |channel| users(channel).rotate_user(request.clone()).await;
        session.call(Repeat::Write(&self.request_id), make).await
    }

    /// Keeps what was signed, where it was to be.
    ///
    /// # Errors
    /// When it cannot be used, or not be written.
    pub(super) fn keep(self, answer: v1::UserCredentials) -> Result<KeptUser, Error> {
        let cluster = ClusterId::parse(&answer.cluster_id)
            .map_err(|rule| Error::BadAnswer(format!("the id of the cluster {rule}")))?;
        let user = UserView::from(answer.user.unwrap_or_default());
        let of = UserName::parse(&user.name)
            .map_err(|rule| Error::BadAnswer(format!("the name of the user {rule}")))?;
        let name = context_name(&of, &cluster);
        let unsigned = answer.certificate.is_empty();
        let subject = CertificateSubject::User(of);
        let context = Context {
            endpoints: answer.endpoints,
            certificate: answer.certificate,
            key: Secret::new(self.key.to_pem().expose().clone()),
            ca: answer.authorities,
            signed_for: unsigned.then(|| SpiffeId { cluster, subject }.to_string()),
            renewal_failed: None,
        };
        if !unsigned {
            context.identity(&name)?;
        }
        let Some(path) = self.file else {
            let mut contexts = Contexts::default();
            contexts.add(name, context);
            return Ok(KeptUser::ForOutput { user, contexts });
        };
        let another_is_current = Contexts::change(&path, |contexts| {
            contexts.add(name.clone(), context);
            Ok(contexts.current.as_ref() != Some(&name))
        })?;
        let file = path.display().to_string();
        let made = MadeUser { user, context: name, file, awaits_certificate: unsigned };
        Ok(KeptUser::InFile { made, another_is_current })
    }
}

impl ContextDocument {
    /// The only context of these.
    pub(super) fn of(contexts: &Contexts) -> Option<Self> {
        let (name, context) = contexts.contexts.iter().next()?;
        let Context { endpoints, certificate, key, ca, signed_for, renewal_failed: _ } = context.clone();
        Some(Self { name: name.clone(), endpoints, certificate, key: key.expose().clone(), ca, signed_for })
    }
}

/// What is to be said where an authority outside of the cluster is to sign for a context, in that file.
pub(super) fn how_to_sign(context: &str, file: &Path) -> String {
    let own = default_path().is_ok_and(|own| own == file);
    let meant = match own {
        true => context.to_owned(),
        false if file.display().to_string().contains('/') => file.display().to_string(),
        false => format!("./{}", file.display()),
    };
    format!(
        "its certificate is signed outside of the cluster: have what \"trestle context request {meant}\" prints signed, and put it in with \
         \"trestle context install FILE {meant}\""
    )
}

/// What is to be said where a context was added beside the current one.
pub(super) fn how_to_use(context: &str) -> String {
    format!("another context is current there: \"trestle context use {context}\" changes that")
}
