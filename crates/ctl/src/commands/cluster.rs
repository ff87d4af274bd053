//! `trestle cluster`.

mod bootstrap;
mod secure;

use clap::Subcommand;

use self::bootstrap::BootstrapArgs;
use self::secure::SecureArgs;
use crate::error::Error;
use crate::session::Session;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create a cluster with the member at the first endpoint, and only that, as its first voter; over an admin socket also its
    /// first user
    Bootstrap(BootstrapArgs),
    /// Show what the ports of members accept, and which members are known by a key; or change that, step by step, while the cluster
    /// serves
    Secure(SecureArgs),
}

impl ClusterCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Bootstrap(args) => args.run(session).await,
            Self::Secure(args) => args.run(session).await,
        }
    }
}
