//! An empty member on its way into a cluster that its initial members found.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::status::Failure;
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::{peer, unanswered};
use trestle_consensus::Error;
use trestle_identity::FoundingToken;
use trestle_model::defaults::TOKEN_LIFE;
use trestle_model::{Authority, ClusterId, HostPort, JoinAs, JoinTokenSpec, KeyPin, MemberId};

use super::decide::{Step, decide};
use super::exchange::{self, Answer};
use super::own::Founding;
use crate::config::FoundingConfig;
use crate::identities::{AuthorityKeys, OwnLeaf};
use crate::joining::{self, NotTaken};
use crate::process::{draw_id, wall_clock_ms};
use crate::this_member::ThisMember;

/// Pause between two rounds of asking.
const RETRY: Duration = Duration::from_secs(1);
/// How long a member may take to be connected with and to answer: it looks nothing up.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What to do where the cluster takes a member in no more by the founding token.
const AFTER_FOUNDING: &str = "the founding token takes in each initial member once, within an hour after the founding. A member that has lost \
                              its data, or comes later, joins by an ordinary token: on another member run \"trestle member remove NAME\" if it \
                              was a member before, and \"trestle token create\"; then stop trestled here, give that token to \"trestled join\", and \
                              start it again";

/// Whether this member began to found a cluster when it was last stopped, and has not come so far that there is one. Asked before Raft is
/// started.
pub(crate) fn was_interrupted(local: &ThisMember) -> bool {
    local.config.founding.is_some()
        && local.id() == Some(MemberId::FOUNDER)
        && local.consensus.transport_on_disk().is_none()
}

/// Founds a cluster with the other initial members or joins theirs, until this member belongs to one.
pub(crate) async fn found_or_join(local: ThisMember, leaf: OwnLeaf, stop: CancellationToken) {
    let founding = local.founding.clone();
    let Some(config) = &founding.config else { return };
    loop {
        match Box::pin(step(&local, &leaf, &founding, config)).await {
            Ok(()) => {
                founding.set_waits(None);
                return;
            }
            Err(why) => {
                // The same again and again is said once.
                if founding.set_waits(Some(why.clone())) {
                    warn!("this member {why}");
                }
            }
        }
        tokio::select! {
            () = sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Comes into a cluster, or says what is waited for.
async fn step(
    local: &ThisMember,
    leaf: &OwnLeaf,
    founding: &Founding,
    config: &FoundingConfig,
) -> Result<(), String> {
    let token = founding.reload()?.ok_or("has no founding_token_file")?;
    match local.id() {
        None => {}
        // It has begun to found, for which all others were empty, and could be in no cluster but this one.
        Some(MemberId::FOUNDER) => return found(local, &token, config).await,
        Some(_) => return Ok(()),
    }
    let own = &local.config.advertise_peer_address;
    let others = config.members.iter().filter(|member| *member != own);
    let answers = join_all(others.map(|member| ask(member, own, &token, config))).await;
    match decide(&config.members, own, &answers) {
        Step::Found => {
            info!(
                members = config.members.len(),
                "all initial members answer and are empty: founds the cluster"
            );
            found(local, &token, config).await
        }
        Step::Join(cluster, authority, through) => {
            join(local, leaf, token.join_token(authority, through), cluster, authority).await
        }
        Step::Wait(why) => Err(why),
    }
}

async fn ask(
    member: &HostPort,
    own: &HostPort,
    token: &FoundingToken,
    config: &FoundingConfig,
) -> (HostPort, Answer) {
    let answer = match exchange::question(token, own, &config.members) {
        Err(why) => Answer::None(why),
        Ok(question) => match timeout(ANSWER_MAX, answered(member, question.clone())).await {
            Err(_) => Answer::None(unanswered::none_within(ANSWER_MAX)),
            Ok(Err(why)) => Answer::None(why),
            Ok(Ok(answer)) => exchange::understood(token, &question, member, answer),
        },
    };
    (member.clone(), answer)
}

/// Over a connection of its own, without TLS: an empty member has nothing to be known by but its proof.
async fn answered(
    member: &HostPort,
    question: peer::DescribeFoundingRequest,
) -> Result<peer::DescribeFoundingResponse, String> {
    let options = ChannelOptions { connect_timeout: Some(ANSWER_MAX), ..ChannelOptions::default() };
    let dialer = Transport::plain().dialer(member.as_str(), &options);
    let dialer = dialer.map_err(|error| unanswered::of_transport(&error))?;
    let channel = dialer.connect().await.map_err(|error| unanswered::of_transport(&error))?;
    let answer = PeerServiceClient::new(channel).describe_founding(question).await;
    answer.map(tonic::Response::into_inner).map_err(|status| unanswered::why(&status))
}

/// The token of the other initial members, if there are any.
fn others_token(token: &FoundingToken, config: &FoundingConfig) -> Option<JoinTokenSpec> {
    // The authority is not part of what is derived.
    let text = token.join_token(KeyPin([0; 32]), Vec::new());
    let uses = u32::try_from(config.members.len()).unwrap_or(u32::MAX).saturating_sub(1);
    let life = u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
    (uses > 0).then(|| JoinTokenSpec {
        id: text.id,
        secret_hash: text.secret_hash(),
        joins_as: JoinAs::Voter,
        uses,
        not_after_ms: wall_clock_ms().saturating_add(life),
        authority: Authority::FIRST,
    })
}

/// Founds the cluster, or goes on where an earlier attempt has ended.
async fn found(local: &ThisMember, token: &FoundingToken, config: &FoundingConfig) -> Result<(), String> {
    let keys = AuthorityKeys::new(local.config.data_dir.clone());
    let identities = keys.founding(local.config.founding_transport(), others_token(token, config));
    let cluster = draw_id().and_then(|id| ClusterId::parse(&id))?;
    match local.consensus.bootstrap(cluster, local.spec(), identities).await {
        Ok(member) => {
            let cluster = local.consensus.identity().map(|identity| identity.cluster_id.to_string());
            info!(cluster, member = %member.spec.name, "cluster founded; the other initial members join it by themselves");
            Ok(())
        }
        // An earlier attempt has.
        Err(Error::Failed(Failure::InCluster(_))) => Ok(()),
        Err(error) => Err(format!("does not get the cluster founded yet: {error}")),
    }
}

/// Joins a cluster by a token that comes from the founding token.
async fn join(
    local: &ThisMember,
    leaf: &OwnLeaf,
    token: trestle_identity::TokenText,
    cluster: ClusterId,
    authority: KeyPin,
) -> Result<(), String> {
    let joined = joining::by_token(local, leaf, &token).await;
    joined.map_err(|why| match why {
        NotTaken::Refused { .. } => {
            format!("is not taken into cluster {cluster}, to which other initial members belong: {why}. {AFTER_FOUNDING}")
        }
        NotTaken::Nobody(_) => format!("waits to be taken into cluster {cluster}: {why}"),
        NotTaken::Useless { .. } | NotTaken::Files(_) => {
            format!("is not taken into cluster {cluster} of authority {authority}: {why}")
        }
    })
}
