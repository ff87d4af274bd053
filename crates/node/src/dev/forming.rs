//! How the three members of `trestled dev` become a cluster, as any three would: the first founds it over its admin socket, the
//! others join by a token, and a user gets a context.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::v1;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::member_service_client::MemberServiceClient;
use trestle_api::v1::token_service_client::TokenServiceClient;
use trestle_api::v1::user_service_client::UserServiceClient;
use trestle_identity::{CertificateRequest, PrivateKey, SigningError, write_private};
use trestle_model::{Choice, Role};

use super::DevError;
use crate::config::Config;
use crate::joining::{JoinError, enroll};

/// The user that the printed commands run as.
const USER: &str = "dev";
/// Everything is in this process, and a machine may do other things.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// A channel to the admin API of a member of this process.
pub(super) fn over_socket(socket: &Path) -> Result<Channel, DevError> {
    let dialer = Transport::plain().dialer(&format!("unix:{}", socket.display()), &ChannelOptions::default());
    Ok(dialer.map_err(|error| DevError::Forming(error.to_string()))?.connect_lazy())
}

/// Founds a cluster; answers whether there was none yet.
pub(super) async fn found(channel: Channel) -> Result<bool, DevError> {
    match ClusterServiceClient::new(channel).bootstrap_cluster(v1::BootstrapClusterRequest::default()).await {
        Ok(_) => Ok(true),
        // The data directory was kept: what the user made of the cluster stays as it is.
        Err(status) if status.code() == Code::FailedPrecondition => Ok(false),
        Err(status) => Err(status.into()),
    }
}

/// A token by which so many members join.
pub(super) async fn token(channel: Channel, uses: usize) -> Result<String, DevError> {
    let token = Some(v1::Token { uses: u32::try_from(uses).unwrap_or(u32::MAX), ..Default::default() });
    let request = v1::CreateTokenRequest { token, lifetime: None };
    let made = TokenServiceClient::new(channel).create_token(request).await?;
    Ok(made.into_inner().text)
}

/// Makes a member of the token's cluster of one that is not started yet.
pub(super) async fn join(config: &Config, token: &str) -> Result<(), DevError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match enroll(config.clone(), token).await {
            Ok(_) => return Ok(()),
            // The one that is asked has its own certificate in a moment.
            Err(JoinError::Unanswered(_)) if Instant::now() < deadline => sleep(PAUSE).await,
            Err(error) => {
                return Err(DevError::Forming(format!("member {} does not join: {error}", config.name)));
            }
        }
    }
}

/// Waits until all members vote.
pub(super) async fn all_vote(channel: Channel, members: usize) -> Result<(), DevError> {
    let deadline = Instant::now() + PATIENCE;
    let mut client = MemberServiceClient::new(channel);
    loop {
        let asked = timeout_at(deadline, client.list_members(v1::ListMembersRequest::default())).await;
        let why = match asked {
            Ok(Ok(listed)) => {
                let listed = listed.into_inner().members;
                let voters = listed.iter().filter(|member| member.role() == v1::MemberRole::Voter).count();
                if voters == members {
                    return Ok(());
                }
                format!("{voters} of {members} members vote")
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "the first member does not answer".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(DevError::Forming(why));
        }
        sleep(PAUSE).await;
    }
}

/// Makes a user with all rights, unless that was done before, and writes its context into a file. Answers whether there is one: a
/// cluster of an earlier version has no users.
pub(super) async fn write_context(channel: Channel, file: &Path) -> Result<bool, DevError> {
    if file.exists() {
        return Ok(true);
    }
    let failed = |error: SigningError| DevError::Forming(error.to_string());
    let key = PrivateKey::generate().map_err(failed)?;
    let certificate_request = CertificateRequest::make(&key).map_err(failed)?;
    let credentials = match user(channel, certificate_request).await {
        Ok(credentials) => credentials,
        Err(status) if status.code() == Code::FailedPrecondition => return Ok(false),
        Err(status) => return Err(status.into()),
    };
    let text = context(&credentials, key.to_pem().expose());
    write_private(file, text.as_bytes())
        .map_err(|error| DevError::Directory { path: file.to_owned(), error })?;
    Ok(true)
}

/// The user with this key, new or in place of the one that it had.
async fn user(channel: Channel, certificate_request: Vec<u8>) -> Result<v1::UserCredentials, Status> {
    let mut users = UserServiceClient::new(channel);
    let create = v1::CreateUserRequest {
        user_id: USER.to_owned(),
        user: Some(v1::User { role: Role::Admin.number(), ..Default::default() }),
        certificate_request: certificate_request.clone(),
        ..Default::default()
    };
    match users.create_user(create).await {
        Err(status) if status.code() == Code::AlreadyExists => {
            let name = format!("users/{USER}");
            let rotate = v1::RotateUserRequest { name, certificate_request, ..Default::default() };
            users.rotate_user(rotate).await.map(tonic::Response::into_inner)
        }
        other => other.map(tonic::Response::into_inner),
    }
}

/// A file of contexts with this one, as `trestle` reads it.
fn context(credentials: &v1::UserCredentials, key: &str) -> String {
    let endpoints: Vec<String> = credentials.endpoints.iter().map(|at| format!("{at:?}")).collect();
    let (endpoints, certificate, ca) =
        (endpoints.join(", "), &credentials.certificate, &credentials.authorities);
    format!(
        "current = \"{USER}\"\n\n[contexts.\"{USER}\"]\nendpoints = [{endpoints}]\ncertificate = \"\"\"\n{certificate}\"\"\"\n\
         key = \"\"\"\n{key}\"\"\"\nca = \"\"\"\n{ca}\"\"\"\n"
    )
}
