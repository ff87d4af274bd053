//! What one member says of the whole cluster at one time.

use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use trestle_api::v1;

use crate::error::Error;
use crate::pages;
use crate::session::{Repeat, Session, cluster, listeners, pools, vips};

/// Most pools that the API puts on a page.
const PAGE_SIZE: i32 = 1000;

/// What one member says of the whole cluster at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// When, counted from the beginning of the command.
    pub(crate) at: Duration,
    /// Who answered, HOST:PORT.
    pub(crate) endpoint: String,
    pub(crate) status: v1::ClusterStatus,
    pub(crate) listeners: v1::ListenerHealth,
    pub(crate) listener_configs: Vec<v1::Listener>,
    pub(crate) pools: Vec<v1::Pool>,
    pub(crate) health: v1::PoolHealth,
    /// What members' kernels have of the virtual IPs.
    pub(crate) vips: Vec<v1::VipView>,
    /// Why there is no health of backends.
    pub(crate) missing: Option<String>,
}

/// Asks the first endpoint that answers.
///
/// # Errors
/// When none does, or the member refuses.
pub(crate) async fn take(session: &mut Session<'_>, began: Instant) -> Result<Snapshot, Error> {
    // A member that waits for others that do not answer gives up after a second: asked one after another, six calls
    // would make that six.
    let make = async |channel: Channel| {
        let (status, bound, configs, pools, health, vips) = Box::pin(async {
            tokio::join!(
                cluster_status(channel.clone()),
                listener_health(channel.clone()),
                all_listeners(channel.clone()),
                all_pools(channel.clone()),
                all_health(channel.clone()),
                vip_views(channel.clone()),
            )
        })
        .await;
        let (health, missing) = health?;
        let (status, listeners, listener_configs) = (status?, bound?, configs?);
        let (pools, vips) = (pools?, vips?);
        let (at, endpoint) = (began.elapsed(), String::new());
        Ok(Response::new(Snapshot {
            at,
            endpoint,
            status,
            listeners,
            listener_configs,
            pools,
            health,
            vips,
            missing,
        }))
    };
    let snapshot = session.call(Repeat::Read, make).await?;
    Ok(Snapshot { endpoint: session.endpoint().to_owned(), ..snapshot })
}

async fn cluster_status(channel: Channel) -> Result<v1::ClusterStatus, Status> {
    let request = v1::GetClusterStatusRequest { local_only: false };
    Ok(cluster(channel).get_cluster_status(request).await?.into_inner())
}

async fn listener_health(channel: Channel) -> Result<v1::ListenerHealth, Status> {
    Ok(pages::listener_health(channel, "").await?.into_inner())
}

async fn vip_views(channel: Channel) -> Result<Vec<v1::VipView>, Status> {
    let request = v1::GetVipStatusRequest { name: String::new() };
    match vips(channel).get_vip_status(request).await {
        Ok(answer) => Ok(answer.into_inner().views),
        // A member that is too old to know of virtual IPs.
        Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
        Err(status) => Err(status),
    }
}

/// What exists, as the member knows it: a cluster without a leader is worth looking at too.
async fn all_pools(channel: Channel) -> Result<Vec<v1::Pool>, Status> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let consistency = v1::Consistency::Local.into();
        let request =
            v1::ListPoolsRequest { page_size: PAGE_SIZE, page_token: page_token.clone(), consistency };
        let answer = pools(channel.clone()).list_pools(request).await?.into_inner();
        found.extend(answer.pools);
        if answer.next_page_token.is_empty() || answer.next_page_token == page_token {
            return Ok(found);
        }
        page_token = answer.next_page_token;
    }
}

/// The same of listeners.
async fn all_listeners(channel: Channel) -> Result<Vec<v1::Listener>, Status> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let consistency = v1::Consistency::Local.into();
        let request =
            v1::ListListenersRequest { page_size: PAGE_SIZE, page_token: page_token.clone(), consistency };
        let answer = listeners(channel.clone()).list_listeners(request).await?.into_inner();
        found.extend(answer.listeners);
        if answer.next_page_token.is_empty() || answer.next_page_token == page_token {
            return Ok(found);
        }
        page_token = answer.next_page_token;
    }
}

/// What is seen of all backends, or why not: a member of an earlier version may have too many of them, or be too old to be asked for all.
async fn all_health(channel: Channel) -> Result<(v1::PoolHealth, Option<String>), Status> {
    match pages::pool_health(channel, "pools/-").await {
        Ok(answer) => Ok((answer.into_inner(), None)),
        Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
            Ok((v1::PoolHealth::default(), Some(status.message().to_owned())))
        }
        Err(status) => Err(status),
    }
}
