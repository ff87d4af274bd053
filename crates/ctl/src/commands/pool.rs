//! `trestle pool`.

use clap::Subcommand;
use prost_types::FieldMask;
use trestle_api::v1;

use super::check_settings::Check;
use super::pool_settings::{PoolChange, PoolSettings};
use super::{PAGE_SIZE, consistency, next_page};
use crate::args::{CreateArgs, ReadArgs, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::pages;
use crate::session::{Repeat, Session, cluster, pools};
use crate::view::{PoolView, PoolsDown, StatusView};
use crate::write::{Created, Deleted, Write};

/// Told in place of an empty list.
const NO_POOLS: &str = "no pools; make one with \"trestle pool create NAME\"";

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Create a pool
    #[command(alias = "add")]
    Create {
        /// Name of the new pool
        name: String,
        #[command(flatten)]
        settings: Box<PoolSettings>,
        #[command(flatten)]
        write: CreateArgs,
    },
    /// List the pools
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Show a pool with all its settings
    #[command(alias = "show")]
    Get {
        /// The pool
        name: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Change the settings that are given, and no others
    #[command(alias = "set")]
    Update {
        /// The pool
        name: String,
        #[command(flatten)]
        settings: Box<PoolSettings>,
        /// Refuse if the pool is not as it was with this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a pool with its backends; refused while a listener leads to it
    #[command(visible_alias = "rm", alias = "remove")]
    Delete {
        /// The pool
        name: String,
        /// Refuse if the pool is not as it was with this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
}

impl PoolCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create { name, settings, write } => create(session, &name, &settings, &write).await,
            Self::List(read) => list(session, &read).await,
            Self::Get { name, read } => get(session, &name, &read).await,
            Self::Update { name, settings, etag, write } => {
                update(session, &name, &settings, etag.unwrap_or_default(), &write).await
            }
            Self::Delete { name, etag, write } => {
                delete(session, &name, etag.unwrap_or_default(), &write).await
            }
        }
    }
}

async fn create(
    session: &mut Session<'_>,
    name: &str,
    settings: &PoolSettings,
    write: &CreateArgs,
) -> Result<(), Error> {
    let mut input = Input::default();
    input.pool("NAME", name);
    let mut change = settings.change(&mut input);
    change.complete(Check::Tcp.plain(), &mut input);
    let write = Write::create(write, &mut input)?;
    input.finish()?;
    let request = v1::CreatePoolRequest {
        pool_id: name.to_owned(),
        pool: Some(change.pool),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
        if_absent: write.if_absent,
    };
    let make = async |channel| Created::read(pools(channel).create_pool(request.clone()).await);
    let Created { resource, existing } = session.call(write.repeat(), make).await?;
    let view = PoolView::from(resource);
    let what = format!("pool {name}");
    write.finish_created(session, &what, "created", existing, (view.revision, &view)).await
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (found, info) = all(session, read).await?;
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

/// All pools, and how fresh that is.
pub(super) async fn all(
    session: &mut Session<'_>,
    read: &ReadArgs,
) -> Result<(Vec<v1::Pool>, Option<v1::ReadInfo>), Error> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let consistency = consistency(read);
        let request =
            v1::ListPoolsRequest { page_size: PAGE_SIZE, page_token: page_token.clone(), consistency };
        let make = async |channel| pools(channel).list_pools(request.clone()).await;
        let answer = session.call(Repeat::Read, make).await?;
        found.extend(answer.pools);
        match next_page(&page_token, answer.next_page_token)? {
            Some(next) => page_token = next,
            None => return Ok((found, answer.read)),
        }
    }
}

/// What the members see of a pool's backends, or of all. The configuration is worth showing without it.
async fn health(session: &mut Session<'_>, name: &str) -> Option<v1::PoolHealth> {
    session.call_for_extra("health", async |channel| pages::pool_health(channel, name).await).await
}

/// The pools that are down, as the status names them.
async fn down(session: &mut Session<'_>) -> Option<PoolsDown> {
    let request = v1::GetClusterStatusRequest { local_only: false };
    let make = async |channel| cluster(channel).get_cluster_status(request).await;
    let status = session.call_for_extra("which pools are down", make).await?;
    Some(StatusView::from(status).pools_down())
}

async fn get(session: &mut Session<'_>, name: &str, read: &ReadArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let name = input.pool("NAME", name);
    input.finish()?;
    let request = v1::GetPoolRequest { name: name.clone(), consistency: consistency(read) };
    let make = async |channel| pools(channel).get_pool(request.clone()).await;
    let mut view = PoolView::from(session.call(Repeat::Read, make).await?);
    view.join(health(session, &name).await.as_ref());
    view.note_down(down(session).await.as_ref());
    session.print(&view, || view.description())
}

async fn update(
    session: &mut Session<'_>,
    name: &str,
    settings: &PoolSettings,
    mut etag: String,
    write: &WriteArgs,
) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.pool("NAME", name);
    let mut change = settings.change(&mut input);
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    if change.rest.is_some() {
        let found = change_check(session, &resource, &mut change).await?;
        // What was read is what is changed: another's change in the meantime is not overwritten.
        if etag.is_empty() {
            etag = found;
        }
    }
    if change.paths.is_empty() {
        return Err(Error::NothingToChange("trestle pool update"));
    }
    let request = v1::UpdatePoolRequest {
        pool: Some(v1::Pool { name: resource, etag, ..change.pool }),
        update_mask: Some(FieldMask { paths: change.paths }),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| pools(channel).update_pool(request.clone()).await;
    let view = PoolView::from(session.call(write.repeat(), make).await?);
    write.finish(session, &format!("pool {name}"), "updated", view.revision, &view).await
}

/// Completes a change with the check that the pool has; answers the pool's etag. The API replaces a check as a whole.
async fn change_check(
    session: &mut Session<'_>,
    resource: &str,
    change: &mut PoolChange,
) -> Result<String, Error> {
    let request =
        v1::GetPoolRequest { name: resource.to_owned(), consistency: v1::Consistency::Linearizable.into() };
    let make = async |channel| pools(channel).get_pool(request.clone()).await;
    let pool = session.call(Repeat::Read, make).await?;
    let check = pool.health_check.and_then(|check| check.kind).unwrap_or_else(|| Check::Tcp.plain());
    let mut input = Input::default();
    change.complete(check, &mut input);
    input.finish()?;
    Ok(pool.etag)
}

async fn delete(session: &mut Session<'_>, name: &str, etag: String, write: &WriteArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.pool("NAME", name);
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    let request = v1::DeletePoolRequest {
        name: resource,
        etag,
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| pools(channel).delete_pool(request.clone()).await;
    let revision = session.call(write.repeat(), make).await?.revision;
    write.finish(session, &format!("pool {name}"), "deleted", revision, &Deleted { name, revision }).await
}
