//! `trestle status`.

use clap::Args;

use crate::endpoint::Outside;
use crate::error::{Error, Failure};
use crate::session::Session;
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
        let (status, failures) = session.cluster_status(self.local, |_| None).await?;
        let view = if status.cluster_id.is_empty() {
            // Others may belong to a cluster, as far as can be seen from here.
            for failure in failures.iter().filter(|failure| failure.outside.is_none()) {
                session.terminal.note(failure.line());
            }
            StatusView::without_cluster(status, failures.iter().all(has_none))
        } else {
            StatusView::new(status, self.local)
        };
        let width = session.terminal.width();
        session.print(&view, || view.text(width))
    }
}

fn has_none(failure: &Failure) -> bool {
    failure.outside == Some(Outside::NoCluster)
}
