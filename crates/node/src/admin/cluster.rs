//! The cluster as a whole.

use tonic::{Request, Response, Status};
use trestle_api::status::{self, Failure};
use trestle_api::v1;
use trestle_api::v1::cluster_service_server::ClusterService;
use trestle_consensus::MakeIdentities;
use trestle_model::ClusterId;
use trestle_model::defaults::FEATURE_LEVEL_IDENTITIES;

use super::authorities::authority_in;
use super::leader::resource_name;
use super::paging::{PageBounds, abridge, fill, shorten_text};
use super::{Admin, configuration, wait, watch};
use crate::access::{self, Action, Caller, Target, TargetKind};
use crate::certificate_ends;
use crate::process::draw_id;

/// Most of each list in what a member says of itself: 15 members at the largest configuration would say more than 10 MiB.
const TOLD: PageBounds = PageBounds { items: 100, bytes: 64 * 1024 };
/// Bytes of unbound listeners, and of troubled pools.
const TROUBLES_BYTES: usize = 24 * 1024;
/// Bytes of a reason among them.
const REASON_MAX: usize = 512;

/// The first of them, up to the bounds.
fn within<T: prost::Message>(all: Vec<T>) -> Vec<T> {
    let bounds = PageBounds { bytes: TROUBLES_BYTES, ..TOLD };
    fill(all.into_iter().map(|one| ((), one)), bounds, T::encoded_len).0
}

/// Cuts what one member says of itself to what an answer has of it. Members among themselves need all of it.
pub(super) fn shorten(status: &mut v1::MemberStatus) {
    status.dead_pools.truncate(TOLD.items);
    status.vip_faults.truncate(TOLD.items);
    abridge(&mut status.unfit, TOLD, "reasons");
    abridge(&mut status.problems, TOLD, "problems");
    for listener in &mut status.unbound_listeners {
        listener.errors.clear();
        let failures = listener.bind_failures.iter_mut();
        failures.for_each(|failure| shorten_text(&mut failure.reason, REASON_MAX));
    }
    for pool in &mut status.troubled_pools {
        pool.examples.iter_mut().for_each(|example| shorten_text(&mut example.reason, REASON_MAX));
    }
    status.unbound_listeners = within(std::mem::take(&mut status.unbound_listeners));
    status.troubled_pools = within(std::mem::take(&mut status.troubled_pools));
}

#[tonic::async_trait]
impl ClusterService for Admin {
    async fn bootstrap_cluster(
        &self,
        request: Request<v1::BootstrapClusterRequest>,
    ) -> Result<Response<v1::BootstrapClusterResponse>, Status> {
        let text = request.into_inner().external_authority;
        let external = Some(text).filter(|text| !text.is_empty());
        let now = self.local.trust.now().time();
        let external = external.map(|text| authority_in("external_authority", &text, now)).transpose()?;
        let is_founded = self.local.consensus.view().borrow().state.cluster_id.is_some();
        if let Some(why) = self.local.founding.refuses_another_way(is_founded) {
            return Err(status::failure(&Failure::Membership(why)));
        }
        let cluster_id =
            draw_id().and_then(|id| ClusterId::parse(&id)).map_err(|rule| super::internal(&rule))?;
        let (keys, transport) = (self.signer.keys.clone(), self.local.config.founding_transport());
        let identities: MakeIdentities = match (external, self.local.config.feature_level_max) {
            (Some(authority), _) => keys.founding_with(authority, transport),
            (None, ..FEATURE_LEVEL_IDENTITIES) => Box::new(|_| Ok(None)),
            (None, _) => keys.founding(transport, None),
        };
        let member =
            self.local.consensus.bootstrap(cluster_id.clone(), self.local.spec(), identities).await?;
        let answer = v1::BootstrapClusterResponse {
            cluster_id: cluster_id.to_string(),
            member: Some(self.local.rendered(&member)),
        };
        Ok(Response::new(answer))
    }

    async fn get_cluster_status(
        &self,
        request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        let (caller, request) = Caller::take(request)?;
        let mut status = self.cluster_status(request.local_only).await;
        let lists_users = access::authorize(&caller, Action::Read, &Target::all(TargetKind::User)).is_ok();
        let state = self.local.consensus.view().borrow().state.clone();
        if !self.local.consensus.was_removed() {
            status.problems = certificate_ends::problems(&state, self.local.trust.now().time(), lists_users);
        }
        status.members.iter_mut().for_each(shorten);
        Ok(Response::new(status))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let moved = self.transfer_leadership_to(&caller, &request.to).await?;
        let (leader, term) = (resource_name(&moved.leader), moved.term);
        Ok(Response::new(v1::TransferLeadershipResponse { leader, term }))
    }

    type WatchClusterStream = watch::Stream;

    async fn watch_cluster(
        &self,
        request: Request<v1::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        self.watch(request.into_inner()).await.map(Response::new)
    }

    type BackupConfigurationStream = configuration::Backup;

    async fn backup_configuration(
        &self,
        request: Request<v1::BackupConfigurationRequest>,
    ) -> Result<Response<Self::BackupConfigurationStream>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.backup(&caller, request.consistency).await
    }

    async fn restore_configuration(
        &self,
        request: Request<tonic::Streaming<v1::RestoreConfigurationRequest>>,
    ) -> Result<Response<v1::RestoreConfigurationResponse>, Status> {
        let (caller, parts) = Caller::take(request)?;
        self.restore(&caller, parts).await.map(Response::new)
    }

    async fn apply_batch(
        &self,
        request: Request<v1::ApplyBatchRequest>,
    ) -> Result<Response<v1::ApplyBatchResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.batch(&caller, &request).await.map(Response::new)
    }

    async fn secure_cluster(
        &self,
        request: Request<v1::SecureClusterRequest>,
    ) -> Result<Response<v1::SecureClusterResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        self.secure(&caller, &request).await.map(Response::new)
    }

    type WaitForRevisionStream = wait::Stream;

    async fn wait_for_revision(
        &self,
        request: Request<v1::WaitForRevisionRequest>,
    ) -> Result<Response<Self::WaitForRevisionStream>, Status> {
        self.wait(request.get_ref()).map(Response::new)
    }
}
