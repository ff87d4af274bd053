//! Questions to the other members.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::{peer, unanswered};
use trestle_model::{HostPort, Member};

use crate::peer::PeerClients;
use crate::this_member::ThisMember;

/// How long another member may take to say something of itself.
pub(crate) const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the other members. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Peers {
    local: ThisMember,
    clients: Arc<PeerClients>,
}

impl Peers {
    pub(crate) fn new(local: ThisMember) -> Self {
        let clients = Arc::new(PeerClients::new(Arc::new(local.trust.clone())));
        Self { local, clients }
    }

    /// A client for a peer address.
    ///
    /// # Errors
    /// When the address is no URI authority; addresses that were parsed are.
    pub(crate) fn client(&self, address: &HostPort) -> Result<PeerServiceClient<Channel>, Status> {
        self.clients.peer(address)
    }

    /// Drops connections to addresses that no member has any longer.
    pub(crate) fn keep(&self, wanted: impl Fn(&HostPort) -> bool) {
        self.clients.keep(wanted);
    }

    /// Asks another member for a report.
    pub(crate) async fn report(
        &self,
        member: &Member,
        ask: &peer::ReportRequest,
    ) -> Result<peer::ReportResponse, Status> {
        let mut client = self.client(&member.spec.peer_address)?;
        let ask = peer::ReportRequest { to: self.local.destination(Some(member.id)), ..ask.clone() };
        let answer = tokio::time::timeout(REPORT_TIMEOUT, client.report(ask)).await;
        match answer {
            Ok(Ok(report)) => Ok(report.into_inner()),
            Ok(Err(status)) => Err(Status::new(status.code(), unanswered::why(&status))),
            Err(_) => Err(Status::deadline_exceeded(unanswered::none_within(REPORT_TIMEOUT))),
        }
    }
}
