//! The machine that joins: makes its key, looks whether it has the right cluster before it, shows the token, and keeps what it gets.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tonic::{Code, Status};
use tracing::info;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::status::Reason;
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::{peer, unanswered};
use trestle_consensus::RecoveryId;
use trestle_identity::{
    CertificateFacts, CertificateRequest, PrivateKey, TokenText, VerificationTime, to_pem, verify_member,
    write_private,
};
use trestle_model::{ClusterId, HostPort, MemberId};

use crate::config::Config;
use crate::identities::{OwnLeaf, authority_file, certificate_file, own_key, own_names};
use crate::this_member::ThisMember;

/// How long a member may take to be connected with, and for its answer: it may ask the leader, which writes an entry.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Why a machine was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The cluster refuses it; asking again changes nothing.
    #[error("{by} refused: {why}")]
    Refused {
        /// The member that was asked.
        by: HostPort,
        /// Why.
        why: String,
    },
    /// Nobody took it in, and it may be asked again.
    #[error("no member took it in: {}", each(.0))]
    Nobody(Vec<(HostPort, String)>),
    /// What it got is not what it asked for.
    #[error("{by} gave what is of no use: {why}")]
    Useless {
        /// The member that was asked.
        by: HostPort,
        /// Why.
        why: String,
    },
    /// Its own files.
    #[error("{0}")]
    Files(String),
}

/// What is to be done on a machine that has joined a cluster for which an authority outside of it signs.
pub(super) const AWAITS_CERTIFICATE: &str = "its certificate is signed outside of the cluster: once trestled runs there, \"trestle certificate \
                                             request\" prints what is to be signed, and \"trestle certificate install FILE\" puts it in place";

fn each(failed: &[(HostPort, String)]) -> String {
    failed.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}

/// Who it is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) cluster_id: ClusterId,
    pub(crate) member_id: MemberId,
    pub(crate) recovery: RecoveryId,
    /// Whether the leader makes it a voter.
    pub(crate) becomes_voter: bool,
    /// Whether its certificate is to be signed outside of the cluster.
    pub(crate) awaits_certificate: bool,
}

fn write(path: &Path, text: &str) -> Result<(), NotTaken> {
    let written = write_private(path, text.as_bytes());
    written.map_err(|error| NotTaken::Files(format!("cannot write {}: {error}", path.display())))
}

/// Whether another member, or the same one later, may answer otherwise.
fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::Unknown => true,
        Code::Unimplemented | Code::Internal | Code::ResourceExhausted => true,
        _ => matches!(Reason::of(status), None | Some(Reason::NoCluster | Reason::MemberRemoved)),
    }
}

/// Asks each member that the token names to be taken in, until one does.
///
/// # Errors
/// [`NotTaken`].
pub(crate) async fn take_in(local: &ThisMember, token: &TokenText) -> Result<Taken, NotTaken> {
    // That of an earlier attempt, if there was one: by it the cluster knows this machine again.
    let key = own_key::kept_or_new(&local.config.data_dir).map_err(NotTaken::Files)?;
    let asked = CertificateRequest::make(&key).map_err(|error| NotTaken::Files(error.to_string()))?;
    let request = peer::JoinRequest {
        token_id: token.id.0.to_vec(),
        secret: token.secret.expose().to_vec(),
        certificate_request: asked,
        member: Some(local.described()),
        hosts: own_names(&local.config).iter().map(ToString::to_string).collect(),
        to: None,
    };
    let mut failed = Vec::new();
    for address in &token.endpoints {
        match ask(address, token, request.clone()).await {
            Ok(answer) => return keep(&local.config, address, &key, &answer),
            Err(status) if passes(&status) => failed.push((address.clone(), unanswered::why(&status))),
            Err(status) => {
                let mut why = status.message().to_owned();
                if status.code() == Code::AlreadyExists {
                    let name = &local.config.name;
                    why.push_str(&format!(
                        "; if this machine was that member and has lost its data, \"trestle member remove {name}\" lets it join anew"
                    ));
                }
                return Err(NotTaken::Refused { by: address.clone(), why });
            }
        }
    }
    Err(NotTaken::Nobody(failed))
}

/// Joins by a token, and goes on as the member that this process is then.
///
/// # Errors
/// [`NotTaken`].
pub(crate) async fn by_token(local: &ThisMember, leaf: &OwnLeaf, token: &TokenText) -> Result<(), NotTaken> {
    let taken = take_in(local, token).await?;
    // Before the leader calls.
    leaf.take_kept(&local.config);
    let adopted = local.consensus.adopt(taken.cluster_id.clone(), taken.member_id, taken.recovery).await;
    adopted.map_err(|error| NotTaken::Files(error.to_string()))?;
    let becomes =
        if taken.becomes_voter { "becomes a voter once it has caught up" } else { "becomes a learner" };
    info!(cluster = %taken.cluster_id, id = %taken.member_id, "taken into the cluster by token {}; it {becomes}", token.id);
    if taken.awaits_certificate {
        info!("{AWAITS_CERTIFICATE}");
    }
    Ok(())
}

/// Nothing is sent before the member has shown that the authority of the token's cluster has signed for it.
async fn ask(
    address: &HostPort,
    token: &TokenText,
    request: peer::JoinRequest,
) -> Result<peer::JoinResponse, Status> {
    let none = || Status::unavailable(unanswered::none_within(CONNECT_MAX));
    let unreachable = |error: &tonic::transport::Error| Status::unavailable(unanswered::of_transport(error));
    let options = ChannelOptions { connect_timeout: Some(CONNECT_MAX), ..ChannelOptions::default() };
    let dialer = Transport::joining(token.authority).dialer(address.as_str(), &options);
    let dialer = dialer.map_err(|error| unreachable(&error))?;
    let channel = timeout(CONNECT_MAX, dialer.connect()).await.map_err(|_| none())?;
    let channel = channel.map_err(|error| unreachable(&error))?;
    match timeout(ANSWER_MAX, PeerServiceClient::new(channel).join(request)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::unavailable(unanswered::none_within(ANSWER_MAX))),
    }
}

/// Keeps what a member has answered, if it is what was asked for. Which cluster it is of was proved before anything was sent.
fn keep(
    config: &Config,
    by: &HostPort,
    key: &PrivateKey,
    answer: &peer::JoinResponse,
) -> Result<Taken, NotTaken> {
    let useless = |why: String| NotTaken::Useless { by: by.clone(), why };
    let cluster_id = ClusterId::parse(&answer.cluster_id);
    let cluster_id = cluster_id.map_err(|rule| useless(format!("the cluster id {rule}")))?;
    let awaits_certificate = answer.certificate.is_empty();
    if !awaits_certificate {
        check_certificate(&cluster_id, key, answer).map_err(useless)?;
    } else if answer.member_id == 0 || answer.authorities.is_empty() {
        return Err(useless("it has neither an id nor an authority".to_owned()));
    }
    let authorities: String = answer.authorities.iter().map(|authority| to_pem(authority)).collect();
    write(&authority_file(config), &authorities)?;
    if !awaits_certificate {
        write(&certificate_file(config), &to_pem(&answer.certificate))?;
    }
    Ok(Taken {
        cluster_id,
        member_id: MemberId(answer.member_id),
        recovery: RecoveryId { number: answer.recovery, draw: answer.recovery_draw },
        becomes_voter: answer.becomes_voter,
        awaits_certificate,
    })
}

/// Whether the certificate that a member has answered with is for this machine's key and the member that it is from now on.
fn check_certificate(
    cluster: &ClusterId,
    key: &PrivateKey,
    answer: &peer::JoinResponse,
) -> Result<(), String> {
    let now = VerificationTime::by_clock(SystemTime::now());
    let id = verify_member(cluster, &answer.authorities, &answer.certificate, now);
    let id = id.map_err(|refusal| refusal.to_string())?;
    let facts = CertificateFacts::read(&answer.certificate).map_err(|refusal| refusal.to_string())?;
    if id.0 != answer.member_id || facts.pin != key.pin() {
        return Err("the certificate is for another member or key".to_owned());
    }
    Ok(())
}
