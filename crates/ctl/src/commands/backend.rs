//! `trestle backend`.

use clap::{ArgAction, Subcommand};
use prost_types::FieldMask;
use trestle_api::v1;

use super::field_mask::FieldMaskBuilder;
use super::{PAGE_SIZE, consistency, next_page};
use crate::args::{CreateArgs, ReadArgs, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::pages;
use crate::session::{Repeat, Session, pools};
use crate::view::{BackendState, BackendView};
use crate::wait::{Drain, drained, tell_what_is_left};
use crate::write::{Created, Deleted, Write, for_people};

/// Stands for all pools in a question about health.
const ALL_POOLS: &str = "pools/-";

/// What to do with backends.
#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Add a backend to a pool
    #[command(alias = "create")]
    Add {
        /// Pool and name of the new backend, as in web/a
        #[arg(value_name = "POOL/NAME")]
        path: String,
        /// Where it is dialled: an address or a name, as in 10.0.0.1:8080 or web.example:8080; without a port, on the
        /// port that the client dialled
        #[arg(value_name = "ADDR[:PORT]")]
        address: String,
        /// Share of connections, 0 to 256 [default: 1]
        #[arg(long)]
        weight: Option<u32>,
        /// Use it only while no other backend is usable
        #[arg(long)]
        backup: bool,
        /// Connections that it takes from each member at a time, up to 1000000; 0 for no bound [default: 0]
        #[arg(long, value_name = "COUNT")]
        max_connections: Option<u32>,
        #[command(flatten)]
        write: CreateArgs,
    },
    /// List the backends of a pool, or of all pools, with what the members see of them
    #[command(visible_alias = "ls")]
    List {
        /// The pool [default: all pools]
        pool: Option<String>,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Show a backend, with what each member sees of it
    #[command(alias = "show")]
    Get {
        /// The backend
        #[arg(value_name = "POOL/NAME")]
        path: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Change the settings that are given, and no others
    #[command(alias = "set")]
    Update {
        /// The backend
        #[arg(value_name = "POOL/NAME")]
        path: String,
        #[command(flatten)]
        settings: BackendSettings,
        /// Refuse if the backend is not as it was with this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Let it finish its connections and give it no new ones
    Drain {
        /// The backend
        #[arg(value_name = "POOL/NAME")]
        path: String,
        /// Close connections that are left after this time, 1ms to 7days [default: never]
        #[arg(long, value_name = "DURATION")]
        deadline: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Give it connections again
    Enable {
        /// The backend
        #[arg(value_name = "POOL/NAME")]
        path: String,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Close its connections and give it no new ones
    Disable {
        /// The backend
        #[arg(value_name = "POOL/NAME")]
        path: String,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Remove a backend and close its connections; drain it first to let them finish
    #[command(visible_alias = "rm", alias = "delete")]
    Remove {
        /// The backend
        #[arg(value_name = "POOL/NAME")]
        path: String,
        /// Refuse if the backend is not as it was with this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
}

/// Settings of a backend that an update may change.
#[derive(Debug, clap::Args)]
pub(crate) struct BackendSettings {
    /// Where it is dialled, an address or a name
    #[arg(long, value_name = "ADDR[:PORT]")]
    address: Option<String>,
    /// Share of connections, 0 to 256
    #[arg(long)]
    weight: Option<u32>,
    /// Whether it is used only while no other backend is usable
    #[arg(long, value_name = "true|false", action = ArgAction::Set)]
    backup: Option<bool>,
    /// Connections that it takes from each member at a time, up to 1000000; 0 for no bound
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<u32>,
}

/// A change of one backend, as all updating commands make it.
struct Change {
    backend: v1::Backend,
    paths: Vec<String>,
    done: &'static str,
    /// It is to be waited for until no connection is left.
    drains: bool,
}

impl BackendCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Add { path, address, weight, backup, max_connections, write } => {
                let max_connections = max_connections.unwrap_or_default();
                let backend =
                    v1::Backend { address, weight, backup, max_connections, ..v1::Backend::default() };
                add(session, &path, backend, &write).await
            }
            Self::List { pool, read } => list(session, pool.as_deref(), &read).await,
            Self::Get { path, read } => get(session, &path, &read).await,
            Self::Update { path, settings, etag, write } => {
                let mut input = Input::default();
                let mut change = settings.change(&mut input);
                change.backend.etag = etag.unwrap_or_default();
                update(session, &path, change, input, &write).await
            }
            Self::Drain { path, deadline, write } => {
                let mut input = Input::default();
                let mut change =
                    Change { drains: true, ..admin_change(v1::AdminState::Draining, "draining") };
                change.backend.drain_timeout = deadline.map(|text| input.duration("--deadline", &text));
                update(session, &path, change, input, &write).await
            }
            Self::Enable { path, write } => {
                let change = admin_change(v1::AdminState::Enabled, "enabled");
                update(session, &path, change, Input::default(), &write).await
            }
            Self::Disable { path, write } => {
                let change = admin_change(v1::AdminState::Disabled, "disabled");
                update(session, &path, change, Input::default(), &write).await
            }
            Self::Remove { path, etag, write } => {
                remove(session, &path, etag.unwrap_or_default(), &write).await
            }
        }
    }
}

/// A change of nothing but what the operator wants of the backend. The drain's deadline belongs to it.
fn admin_change(state: v1::AdminState, done: &'static str) -> Change {
    let backend = v1::Backend { admin_state: state.into(), ..v1::Backend::default() };
    Change { backend, paths: vec!["admin_state".to_owned()], done, drains: false }
}

impl BackendSettings {
    fn change(&self, input: &mut Input) -> Change {
        let mut mask = FieldMaskBuilder::default();
        let address = self.address.as_ref().map(|text| input.address("--address", text));
        let backend = v1::Backend {
            address: mask.set("address", address).unwrap_or_default(),
            weight: mask.set("weight", self.weight),
            backup: mask.set("backup", self.backup).unwrap_or_default(),
            max_connections: mask.set("max_connections", self.max_connections).unwrap_or_default(),
            ..v1::Backend::default()
        };
        Change { backend, paths: mask.paths, done: "updated", drains: false }
    }
}

async fn add(
    session: &mut Session<'_>,
    path: &str,
    mut backend: v1::Backend,
    write: &CreateArgs,
) -> Result<(), Error> {
    let mut input = Input::default();
    let named = input.backend(path);
    backend.address = input.address("ADDRESS", &backend.address);
    let write = Write::create(write, &mut input)?;
    input.finish()?;
    let request = v1::CreateBackendRequest {
        parent: named.parent(),
        backend_id: named.backend,
        backend: Some(backend),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
        if_absent: write.if_absent,
    };
    let make = async |channel| Created::read(pools(channel).create_backend(request.clone()).await);
    let Created { resource, existing } = session.call(write.repeat(), make).await?;
    let view = BackendView::from(resource);
    let what = format!("backend {path}");
    write.finish_created(session, &what, "added", existing, (view.revision, &view)).await
}

async fn list(session: &mut Session<'_>, pool: Option<&str>, read: &ReadArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let parent = pool.map(|name| input.pool("POOL", name));
    input.finish()?;
    let (mut backends, mut info) = (Vec::new(), None);
    let parents = match &parent {
        Some(parent) => vec![parent.clone()],
        None => {
            let (pools, read) = super::pool::all(session, read).await?;
            info = read;
            pools.into_iter().map(|pool| pool.name).collect()
        }
    };
    for parent in parents {
        info = list_one(session, &parent, read, &mut backends).await?.or(info);
    }
    session.note_freshness(info.as_ref());
    let none = format!(
        "no backends; add one with \"trestle backend add {}/NAME ADDR:PORT\"",
        pool.unwrap_or("POOL")
    );
    let health = health(session, parent.unwrap_or_else(|| ALL_POOLS.to_owned())).await;
    let joined = BackendState::join(backends, health);
    session.print_list(&joined, &none, || BackendState::table(&joined))
}

/// Adds the backends of one pool.
async fn list_one(
    session: &mut Session<'_>,
    parent: &str,
    read: &ReadArgs,
    backends: &mut Vec<v1::Backend>,
) -> Result<Option<v1::ReadInfo>, Error> {
    let mut page_token = String::new();
    loop {
        let request = v1::ListBackendsRequest {
            parent: parent.to_owned(),
            page_size: PAGE_SIZE,
            page_token: page_token.clone(),
            consistency: consistency(read),
        };
        let make = async |channel| pools(channel).list_backends(request.clone()).await;
        let answer = session.call(Repeat::Read, make).await?;
        backends.extend(answer.backends);
        match next_page(&page_token, answer.next_page_token)? {
            Some(next) => page_token = next,
            None => return Ok(answer.read),
        }
    }
}

async fn get(session: &mut Session<'_>, path: &str, read: &ReadArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let named = input.backend(path);
    input.finish()?;
    let request = v1::GetBackendRequest { name: named.resource(), consistency: consistency(read) };
    let make = async |channel| pools(channel).get_backend(request.clone()).await;
    let backend = session.call(Repeat::Read, make).await?;
    let health = health(session, named.parent()).await;
    for state in BackendState::join(vec![backend], health) {
        session.print(&state, || state.description())?;
    }
    Ok(())
}

/// What the members see of a pool. The configuration is worth showing without it, so a refusal is only told.
async fn health(session: &mut Session<'_>, pool: String) -> Option<v1::PoolHealth> {
    let make = async |channel| pages::pool_health(channel, &pool).await;
    session.call_for_extra("health", make).await
}

async fn update(
    session: &mut Session<'_>,
    path: &str,
    change: Change,
    mut input: Input,
    write: &WriteArgs,
) -> Result<(), Error> {
    let named = input.backend(path);
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    if change.paths.is_empty() {
        return Err(Error::NothingToChange("trestle backend update"));
    }
    let request = v1::UpdateBackendRequest {
        backend: Some(v1::Backend { name: named.resource(), ..change.backend }),
        update_mask: Some(FieldMask { paths: change.paths }),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| pools(channel).update_backend(request.clone()).await;
    let view = BackendView::from(session.call(write.repeat(), make).await?);
    let what = format!("backend {path}");
    if change.drains {
        write.tell(session, &what, change.done, view.revision, &view)?;
        let drain = Drain::Backend { pool: named.pool, backend: named.backend };
        if write.waits() {
            return drained(session, &drain, view.revision).await;
        }
        if for_people(session) && !write.dry_run {
            tell_what_is_left(session, &drain).await;
        }
        return Ok(());
    }
    write.finish(session, &what, change.done, view.revision, &view).await
}

async fn remove(session: &mut Session<'_>, path: &str, etag: String, write: &WriteArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let named = input.backend(path);
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    let request = v1::DeleteBackendRequest {
        name: named.resource(),
        etag,
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| pools(channel).delete_backend(request.clone()).await;
    let revision = session.call(write.repeat(), make).await?.revision;
    write
        .finish(session, &format!("backend {path}"), "removed", revision, &Deleted { name: path, revision })
        .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_update_names_what_was_given() {
        let mut input = Input::default();
        let settings = BackendSettings {
            address: Some("[::1]:80".to_owned()),
            weight: Some(0),
            backup: Some(false),
            max_connections: Some(0),
        };
        let change = settings.change(&mut input);
        assert_eq!(change.paths, ["address", "weight", "backup", "max_connections"]);
        assert_eq!((change.backend.address.as_str(), change.backend.weight), ("[::1]:80", Some(0)));

        let weight = BackendSettings { address: None, weight: Some(5), backup: None, max_connections: None };
        assert_eq!(weight.change(&mut input).paths, ["weight"]);
    }

    #[test]
    fn draining_changes_the_admin_state_alone() {
        let change = admin_change(v1::AdminState::Draining, "draining");
        assert_eq!(change.paths, ["admin_state"]);
        assert_eq!(change.backend.admin_state(), v1::AdminState::Draining);
    }
}
