//! `trestle backend`.

use clap::{ArgAction, Args, Subcommand};
use tonic::transport::Channel;
use trestle_api::v1;

use super::consistency;
use super::field_mask::FieldMaskBuilder;
use super::resource::{
    self, Answer, ApiName, CreateCommand, DeleteCommand, GetCommand, GivenChange, ResourceKind, SettingsArgs,
    UpdateCommand, calls,
};
use crate::args::{ReadArgs, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::pages;
use crate::session::{Session, pools};
use crate::view::{BackendState, BackendView};
use crate::wait::{Drain, drained, tell_what_is_left};
use crate::write::{Write, for_people};

/// Stands for all pools in a question about health.
const ALL_POOLS: &str = "pools/-";

/// What to do with backends.
#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Add a backend to a pool
    #[command(alias = "create")]
    Add(CreateCommand<v1::Backend, NewBackend>),
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
    Get(GetCommand<v1::Backend>),
    /// Change the settings that are given, and no others
    #[command(alias = "set")]
    Update(UpdateCommand<v1::Backend, BackendSettings>),
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
    Remove(DeleteCommand<v1::Backend>),
}

/// Settings of a new backend.
#[derive(Debug, Args)]
pub(crate) struct NewBackend {
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
}

/// Settings of a backend that an update may change.
#[derive(Debug, Args)]
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

impl BackendCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        match self {
            Self::Add(add) => add.run(session).await,
            Self::List { pool, read } => list(session, pool.as_deref(), &read).await,
            Self::Get(get) => get.run(session).await,
            Self::Update(update) => update.run(session).await,
            Self::Drain { path, deadline, write } => {
                let mut change = switch(v1::AdminState::Draining);
                change.resource.drain_timeout = deadline.map(|text| input.duration("--deadline", &text));
                switch_to(session, (&path, "draining"), change, input, &write).await
            }
            Self::Enable { path, write } => {
                let change = switch(v1::AdminState::Enabled);
                switch_to(session, (&path, "enabled"), change, input, &write).await
            }
            Self::Disable { path, write } => {
                let change = switch(v1::AdminState::Disabled);
                switch_to(session, (&path, "disabled"), change, input, &write).await
            }
            Self::Remove(remove) => remove.run(session).await,
        }
    }
}

impl ResourceKind for v1::Backend {
    const NAMED: &'static str = "POOL/NAME";
    const NEW: &'static str = "Pool and name of the new backend, as in web/a";
    const CREATED: &'static str = "added";
    const DELETED: &'static str = "removed";
    type View = BackendView;

    fn parse(name: &str, input: &mut Input) -> ApiName {
        let named = input.backend(name);
        ApiName { parent: named.parent(), name: named.resource(), id: named.backend }
    }

    async fn show(self, session: &mut Session<'_>) -> Result<(), Error> {
        let pool = self.name.split("/backends/").next().unwrap_or_default();
        let health = health(session, pool).await;
        for state in BackendState::join(vec![self], health) {
            session.print(&state, || state.description())?;
        }
        Ok(())
    }

    calls!(pools: create_backend, get_backend, list_backends, update_backend, delete_backend);
}

impl SettingsArgs<v1::Backend> for NewBackend {
    fn change(&self, input: &mut Input) -> GivenChange<v1::Backend> {
        let resource = v1::Backend {
            address: input.address("ADDRESS", &self.address),
            weight: self.weight,
            backup: self.backup,
            max_connections: self.max_connections.unwrap_or_default(),
            ..v1::Backend::default()
        };
        GivenChange { resource, ..GivenChange::default() }
    }
}

impl SettingsArgs<v1::Backend> for BackendSettings {
    fn change(&self, input: &mut Input) -> GivenChange<v1::Backend> {
        let mut mask = FieldMaskBuilder::default();
        let address = self.address.as_ref().map(|text| input.address("--address", text));
        let resource = v1::Backend {
            address: mask.set("address", address).unwrap_or_default(),
            weight: mask.set("weight", self.weight),
            backup: mask.set("backup", self.backup).unwrap_or_default(),
            max_connections: mask.set("max_connections", self.max_connections).unwrap_or_default(),
            ..v1::Backend::default()
        };
        GivenChange { resource, paths: mask.paths, ..GivenChange::default() }
    }
}

/// A change of nothing but what the operator wants of the backend. The drain's deadline belongs to it.
fn switch(state: v1::AdminState) -> GivenChange<v1::Backend> {
    let resource = v1::Backend { admin_state: state.into(), ..v1::Backend::default() };
    GivenChange { resource, paths: vec!["admin_state".to_owned()], ..GivenChange::default() }
}

/// Switches a backend, and tells what was `done`. A drain is waited for until no connection is left.
async fn switch_to(
    session: &mut Session<'_>,
    (path, done): (&str, &str),
    mut change: GivenChange<v1::Backend>,
    mut input: Input,
    write: &WriteArgs,
) -> Result<(), Error> {
    let named = input.backend(path);
    change.resource.name = named.resource();
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    let drains = change.resource.admin_state() == v1::AdminState::Draining;
    let view = BackendView::from(resource::update(session, change, &write).await?);
    let what = format!("backend {path}");
    if drains {
        write.tell(session, &what, done, view.revision, &view)?;
        let drain = Drain::Backend { pool: named.pool, backend: named.backend };
        if write.waits() {
            return drained(session, &drain, view.revision).await;
        }
        if for_people(session) && !write.dry_run {
            tell_what_is_left(session, &drain).await;
        }
        return Ok(());
    }
    write.finish(session, &what, done, view.revision, &view).await
}

async fn list(session: &mut Session<'_>, pool: Option<&str>, read: &ReadArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let parent = pool.map(|name| input.pool("POOL", name));
    input.finish()?;
    let (mut backends, mut info) = (Vec::new(), None);
    let parents = match &parent {
        Some(parent) => vec![parent.clone()],
        None => {
            let (pools, fresh) = resource::list::<v1::Pool>(session, "", consistency(read)).await?;
            info = fresh;
            pools.into_iter().map(|pool| pool.name).collect()
        }
    };
    for parent in parents {
        let (found, fresh) = resource::list::<v1::Backend>(session, &parent, consistency(read)).await?;
        backends.extend(found);
        info = fresh.or(info);
    }
    session.note_freshness(info.as_ref());
    let none = format!(
        "no backends; add one with \"trestle backend add {}/NAME ADDR:PORT\"",
        pool.unwrap_or("POOL")
    );
    let health = health(session, parent.as_deref().unwrap_or(ALL_POOLS)).await;
    let joined = BackendState::join(backends, health);
    session.print_list(&joined, &none, || BackendState::table(&joined))
}

/// What the members see of a pool's backends, or of all. The configuration is worth showing without it, so a refusal is only told.
pub(super) async fn health(session: &mut Session<'_>, pool: &str) -> Option<v1::PoolHealth> {
    session.call_for_extra("health", async |channel| pages::pool_health(channel, pool).await).await
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
        assert_eq!((change.resource.address.as_str(), change.resource.weight), ("[::1]:80", Some(0)));

        let weight = BackendSettings { address: None, weight: Some(5), backup: None, max_connections: None };
        assert_eq!(weight.change(&mut input).paths, ["weight"]);
    }

    #[test]
    fn draining_changes_the_admin_state_alone() {
        let change = switch(v1::AdminState::Draining);
        assert_eq!(change.paths, ["admin_state"]);
        assert_eq!(change.resource.admin_state(), v1::AdminState::Draining);
    }
}
