//! `trestle listener`.

use clap::{Args, Subcommand};
use tonic::transport::Channel;
use trestle_api::v1;

use super::consistency;
use super::field_mask::FieldMaskBuilder;
use super::listener_settings::{Emptied, ListenerSettings};
use super::resource::{
    self, Answer, ApiName, CreateCommand, DeleteCommand, GetCommand, GivenChange, ResourceKind, SettingsArgs,
    UpdateCommand, calls,
};
use crate::args::ReadArgs;
use crate::error::Error;
use crate::input::Input;
use crate::pages;
use crate::session::{Session, listeners};
use crate::view::ListenerView;
use crate::wait::bound;

/// Told in place of an empty list.
const NO_LISTENERS: &str =
    "no listeners; make one with \"trestle listener create NAME --bind ADDR:PORT --pool POOL\"";

/// What to do with listeners.
#[derive(Debug, Subcommand)]
pub(crate) enum ListenerCommand {
    /// Create a listener on every member
    #[command(alias = "add")]
    Create(Box<CreateCommand<v1::Listener, NewListener>>),
    /// List the listeners, with where they are bound
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Show a listener, with where each member has it bound
    #[command(alias = "show")]
    Get(GetCommand<v1::Listener>),
    /// Change the settings that are given, and no others; a list that is given replaces the one before
    #[command(alias = "set")]
    Update(Box<UpdateCommand<v1::Listener, ListenerUpdate>>),
    /// Delete a listener; established connections go on until they end
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(DeleteCommand<v1::Listener>),
}

/// Settings of a new listener.
#[derive(Debug, Args)]
pub(crate) struct NewListener {
    /// Address to accept connections on, or a virtual IP's name for it, as in 0.0.0.0:6443, 0.0.0.0:30000-32767 or
    /// api:443; several with commas or by repeating the option, with at most 8192 ports
    #[arg(long, value_name = "ADDR:PORT[-PORT]", required = true, value_delimiter = ',')]
    bind: Vec<String>,
    /// Pool that connections go to that no route takes
    #[arg(long)]
    pool: String,
    #[command(flatten)]
    settings: ListenerSettings,
}

/// Settings of a listener that an update may change.
#[derive(Debug, Args)]
pub(crate) struct ListenerUpdate {
    /// Addresses to accept connections on, or virtual IPs' names, instead of those it has
    #[arg(long, value_name = "ADDR:PORT[-PORT]", value_delimiter = ',')]
    bind: Vec<String>,
    /// Pool that connections go to that no route takes
    #[arg(long)]
    pool: Option<String>,
    #[command(flatten)]
    settings: ListenerSettings,
    #[command(flatten)]
    emptied: Emptied,
}

impl SettingsArgs<v1::Listener> for NewListener {
    fn change(&self, input: &mut Input) -> GivenChange<v1::Listener> {
        change(&self.bind, Some(&self.pool), &self.settings, &Emptied::default(), input)
    }
}

impl SettingsArgs<v1::Listener> for ListenerUpdate {
    fn change(&self, input: &mut Input) -> GivenChange<v1::Listener> {
        change(&self.bind, self.pool.as_deref(), &self.settings, &self.emptied, input)
    }
}

impl ListenerCommand {
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

impl ResourceKind for v1::Listener {
    const NEW: &'static str = "Name of the new listener";
    type View = ListenerView;

    fn parse(name: &str, input: &mut Input) -> ApiName {
        ApiName { id: name.to_owned(), name: input.listener("NAME", name), ..ApiName::default() }
    }

    async fn show(self, session: &mut Session<'_>) -> Result<(), Error> {
        let health = health(session, &self.name).await;
        for view in ListenerView::join(vec![self], health) {
            session.print(&view, || view.description())?;
        }
        Ok(())
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    async fn settle(session: &mut Session<'_>, name: &str) -> Result<(), Error> {
        bound(session, name).await
    }

    calls!(listeners: create_listener, get_listener, list_listeners, update_listener, delete_listener);
}

/// What is given, and the paths of it.
fn change(
    bind: &[String],
    pool: Option<&str>,
    settings: &ListenerSettings,
    emptied: &Emptied,
    input: &mut Input,
) -> GivenChange<v1::Listener> {
    let mut mask = FieldMaskBuilder::default();
    let binds = (!bind.is_empty()).then(|| input.binds("--bind", bind));
    let pool = pool.map(|pool| input.pool("--pool", pool));
    let mut resource = v1::Listener {
        binds: mask.set("binds", binds).unwrap_or_default(),
        pool: mask.set("pool", pool).unwrap_or_default(),
        ..v1::Listener::default()
    };
    settings.set(emptied, &mut resource, &mut mask, input);
    GivenChange { resource, paths: mask.paths, ..GivenChange::default() }
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (found, info) = resource::list::<v1::Listener>(session, "", consistency(read)).await?;
    session.note_freshness(info.as_ref());
    let health = health(session, "").await;
    let views = ListenerView::join(found, health);
    let width = session.terminal.width();
    session.print_list(&views, NO_LISTENERS, || ListenerView::table(&views, width))
}

/// Where members have a listener, or all of them, bound. The configuration is worth showing without it.
async fn health(session: &mut Session<'_>, name: &str) -> Option<v1::ListenerHealth> {
    session.call_for_extra("readiness", async |channel| pages::listener_health(channel, name).await).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_update_names_what_was_given() {
        let mut input = Input::default();
        let mut given = |bind: &[&str], pool| {
            let bind: Vec<String> = bind.iter().map(|&bind| bind.to_owned()).collect();
            change(&bind, pool, &ListenerSettings::default(), &Emptied::default(), &mut input)
        };
        let GivenChange { resource: listener, paths, .. } = given(&[":80", "[::]:80-90"], None);
        assert_eq!(paths, ["binds"]);
        assert_eq!(listener.binds, ["0.0.0.0:80", "[::]:80-90"]);
        let GivenChange { resource: listener, paths, .. } = given(&[], Some("web"));
        assert_eq!(paths, ["pool"]);
        assert_eq!(listener.pool, "pools/web");
        input.finish().unwrap();
    }
}
