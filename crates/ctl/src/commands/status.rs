//! `trestle status`.

use clap::Args;
use trestle_api::v1;

use crate::error::Error;
use crate::session::{Repeat, Session, cluster};
use crate::view::StatusView;

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Ask only the member that answers, not the others through it
    #[arg(long)]
    local: bool,
}

impl StatusArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let request = v1::GetClusterStatusRequest { local_only: self.local };
        let make = async |channel| cluster(channel).get_cluster_status(request).await;
        let view = StatusView::from(session.call(Repeat::Read, make).await?);
        session.print(&view, || view.text())
    }
}
