//! `trestle pool`.

use clap::Subcommand;
use tonic::transport::Channel;
use trestle_api::v1;

use super::backend::health;
use super::consistency;
use super::pool_settings::PoolSettings;
use super::resource::{
    self, Answer, ApiName, CreateCommand, DeleteCommand, GetCommand, ResourceKind, UpdateCommand, calls,
};
use crate::args::ReadArgs;
use crate::error::Error;
use crate::input::Input;
use crate::session::{Session, cluster, pools};
use crate::view::{PoolView, PoolsDown, StatusView};

/// Told in place of an empty list.
const NO_POOLS: &str = "no pools; make one with \"trestle pool create NAME\"";

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Create a pool
    #[command(alias = "add")]
    Create(Box<CreateCommand<v1::Pool, PoolSettings>>),
    /// List the pools
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Show a pool with all its settings
    #[command(alias = "show")]
    Get(GetCommand<v1::Pool>),
    /// Change the settings that are given, and no others
    #[command(alias = "set")]
    Update(Box<UpdateCommand<v1::Pool, PoolSettings>>),
    /// Delete a pool with its backends; refused while a listener leads to it
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(DeleteCommand<v1::Pool>),
}

impl PoolCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create(create) => create.run(session).await,
            Self::List(read) => list(session, &read).await,
            Self::Get(get) => get.run(session).await,
            Self::Update(update) => update.run(session).await,
            Self::Delete(delete) => delete.run(session).await,
        }
    }
}

impl ResourceKind for v1::Pool {
    const NEW: &'static str = "Name of the new pool";
    type View = PoolView;

    fn parse(name: &str, input: &mut Input) -> ApiName {
        ApiName { id: name.to_owned(), name: input.pool("NAME", name), ..ApiName::default() }
    }

    async fn show(self, session: &mut Session<'_>) -> Result<(), Error> {
        let health = health(session, &self.name).await;
        let mut view = PoolView::from(self);
        view.join(health.as_ref());
        view.note_down(down(session).await.as_ref());
        session.print(&view, || view.description())
    }

    calls!(pools: create_pool, get_pool, list_pools, update_pool, delete_pool);
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (found, info) = resource::list::<v1::Pool>(session, "", consistency(read)).await?;
    let mut views: Vec<PoolView> = found.into_iter().map(PoolView::from).collect();
    session.note_freshness(info.as_ref());
    if !views.is_empty() {
        let (health, down) = (health(session, "pools/-").await, down(session).await);
        for view in &mut views {
            view.join(health.as_ref());
            view.note_down(down.as_ref());
        }
    }
    session.print_list(&views, NO_POOLS, || PoolView::table(&views))
}

/// The pools that are down, as the status names them.
async fn down(session: &mut Session<'_>) -> Option<PoolsDown> {
    let request = v1::GetClusterStatusRequest { local_only: false };
    let make = async |channel| cluster(channel).get_cluster_status(request).await;
    let status = session.call_for_extra("which pools are down", make).await?;
    Some(StatusView::from(status).pools_down())
}
