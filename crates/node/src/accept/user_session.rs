//! Users that were let in by TLS, and who they still are at each call.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_consensus::ClusterView;
use trestle_identity::tls::ServerLeaf;
use trestle_identity::{AuthenticatedUser, check_user};
use trestle_model::{ClusterState, Role, UserName};

/// What a port needs to let users in: the certificate of this member as it is now, and what the cluster has agreed on.
#[derive(Debug)]
pub(crate) struct UserDoor {
    leaf: watch::Receiver<Option<ServerLeaf>>,
    view: watch::Receiver<Arc<ClusterView>>,
}

impl UserDoor {
    pub(crate) fn new(
        leaf: watch::Receiver<Option<ServerLeaf>>,
        view: watch::Receiver<Arc<ClusterView>>,
    ) -> Self {
        Self { leaf, view }
    }

    pub(super) fn leaf(&self) -> Option<ServerLeaf> {
        self.leaf.borrow().clone()
    }

    pub(super) fn state(&self) -> Arc<ClusterState> {
        self.view.borrow().state.clone()
    }

    pub(super) fn session(&self, user: AuthenticatedUser) -> Arc<UserSession> {
        Arc::new(UserSession { user, view: self.view.clone(), ended: CancellationToken::new() })
    }
}

/// The user of a call, as it is at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallingUser {
    pub(crate) name: UserName,
    pub(crate) role: Role,
}

/// The user of one connection.
#[derive(Debug)]
pub(crate) struct UserSession {
    user: AuthenticatedUser,
    view: watch::Receiver<Arc<ClusterView>>,
    /// Cancelled when the user is one no more.
    ended: CancellationToken,
}

impl UserSession {
    /// Who the user is now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it was deleted, its key was rotated, or its certificate has expired.
    pub(crate) fn current(&self) -> Result<CallingUser, Status> {
        let state = self.view.borrow().state.clone();
        match check_user(&state, &self.user, SystemTime::now()) {
            Ok(role) => Ok(CallingUser { name: self.user.name.clone(), role }),
            Err(refusal) => Err(status::failure(&Failure::Unauthenticated(refusal.to_string()))),
        }
    }

    /// How long the certificate is valid yet, with the second in which it ends.
    fn left(&self) -> Duration {
        let end = self.user.not_after + Duration::from_secs(1);
        end.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// Ends what its user has open once it is a user no more. Never resolves.
    pub(crate) async fn follow(&self) {
        let mut view = self.view.clone();
        while self.current().is_ok() {
            tokio::select! {
                changed = view.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                // A clock that was set back: it is looked at again.
                () = sleep(self.left().max(Duration::from_millis(100))) => {}
            }
        }
        if self.current().is_err() {
            self.ended.cancel();
        }
        std::future::pending().await
    }

    /// Resolves once the user is one no more.
    pub(crate) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }
}
