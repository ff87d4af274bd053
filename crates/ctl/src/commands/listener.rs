//! `trestle listener`.

use clap::Subcommand;
use prost_types::FieldMask;
use trestle_api::v1;

use super::field_mask::FieldMaskBuilder;
use super::listener_settings::{Emptied, ListenerSettings};
use super::{PAGE_SIZE, consistency, next_page};
use crate::args::{CreateArgs, ReadArgs, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::pages;
use crate::session::{Repeat, Session, listeners};
use crate::view::ListenerView;
use crate::wait::bound;
use crate::write::{Created, Deleted, Write, warn};

/// Told in place of an empty list.
const NO_LISTENERS: &str =
    "no listeners; make one with \"trestle listener create NAME --bind ADDR:PORT --pool POOL\"";

/// What to do with listeners.
#[derive(Debug, Subcommand)]
pub(crate) enum ListenerCommand {
    /// Create a listener on every member
    #[command(alias = "add")]
    Create {
        /// Name of the new listener
        name: String,
        /// Address to accept connections on, or a virtual IP's name for it, as in 0.0.0.0:6443, 0.0.0.0:30000-32767 or
        /// api:443; several with commas or by repeating the option, with at most 8192 ports
        #[arg(long, value_name = "ADDR:PORT[-PORT]", required = true, value_delimiter = ',')]
        bind: Vec<String>,
        /// Pool that connections go to that no route takes
        #[arg(long)]
        pool: String,
        #[command(flatten)]
        settings: Box<ListenerSettings>,
        #[command(flatten)]
        write: CreateArgs,
    },
    /// List the listeners, with where they are bound
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Show a listener, with where each member has it bound
    #[command(alias = "show")]
    Get {
        /// The listener
        name: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Change the settings that are given, and no others; a list that is given replaces the one before
    #[command(alias = "set")]
    Update {
        /// The listener
        name: String,
        /// Addresses to accept connections on, or virtual IPs' names, instead of those it has
        #[arg(long, value_name = "ADDR:PORT[-PORT]", value_delimiter = ',')]
        bind: Vec<String>,
        /// Pool that connections go to that no route takes
        #[arg(long)]
        pool: Option<String>,
        #[command(flatten)]
        settings: Box<ListenerSettings>,
        #[command(flatten)]
        emptied: Emptied,
        /// Refuse if the listener is not as it was with this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Delete a listener; established connections go on until they end
    #[command(visible_alias = "rm", alias = "remove")]
    Delete {
        /// The listener
        name: String,
        /// Refuse if the listener is not as it was with this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
}

impl ListenerCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create { name, bind, pool, settings, write } => {
                let mut input = Input::default();
                let (listener, _) = change(&bind, Some(&pool), &settings, &Emptied::default(), &mut input);
                create(session, &name, listener, input, &write).await
            }
            Self::List(read) => list(session, &read).await,
            Self::Get { name, read } => get(session, &name, &read).await,
            Self::Update { name, bind, pool, settings, emptied, etag, write } => {
                let mut input = Input::default();
                let (mut listener, paths) = change(&bind, pool.as_deref(), &settings, &emptied, &mut input);
                listener.etag = etag.unwrap_or_default();
                update(session, &name, listener, paths, input, &write).await
            }
            Self::Delete { name, etag, write } => {
                delete(session, &name, etag.unwrap_or_default(), &write).await
            }
        }
    }
}

/// What is given, and the paths of it.
fn change(
    bind: &[String],
    pool: Option<&str>,
    settings: &ListenerSettings,
    emptied: &Emptied,
    input: &mut Input,
) -> (v1::Listener, Vec<String>) {
    let mut mask = FieldMaskBuilder::default();
    let binds = (!bind.is_empty()).then(|| input.binds("--bind", bind));
    let pool = pool.map(|pool| input.pool("--pool", pool));
    let mut listener = v1::Listener {
        binds: mask.set("binds", binds).unwrap_or_default(),
        pool: mask.set("pool", pool).unwrap_or_default(),
        ..v1::Listener::default()
    };
    settings.set(emptied, &mut listener, &mut mask, input);
    (listener, mask.paths)
}

async fn create(
    session: &mut Session<'_>,
    name: &str,
    listener: v1::Listener,
    mut input: Input,
    write: &CreateArgs,
) -> Result<(), Error> {
    input.listener("NAME", name);
    let write = Write::create(write, &mut input)?;
    input.finish()?;
    let request = v1::CreateListenerRequest {
        listener_id: name.to_owned(),
        listener: Some(listener),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
        if_absent: write.if_absent,
    };
    let make = async |channel| Created::read(listeners(channel).create_listener(request.clone()).await);
    let Created { resource, existing } = session.call(write.repeat(), make).await?;
    let view = ListenerView::from(resource);
    warn(session, &view.warnings);
    let what = format!("listener {name}");
    write.finish_created(session, &what, "created", existing, (view.revision, &view)).await?;
    if write.waits() { bound(session, name).await } else { Ok(()) }
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let consistency = consistency(read);
        let request =
            v1::ListListenersRequest { page_size: PAGE_SIZE, page_token: page_token.clone(), consistency };
        let make = async |channel| listeners(channel).list_listeners(request.clone()).await;
        let answer = session.call(Repeat::Read, make).await?;
        found.extend(answer.listeners);
        match next_page(&page_token, answer.next_page_token)? {
            Some(next) => page_token = next,
            None => {
                session.note_freshness(answer.read.as_ref());
                break;
            }
        }
    }
    let health = health(session, String::new()).await;
    let views = ListenerView::join(found, health);
    let width = session.terminal.width();
    session.print_list(&views, NO_LISTENERS, || ListenerView::table(&views, width))
}

async fn get(session: &mut Session<'_>, name: &str, read: &ReadArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let name = input.listener("NAME", name);
    input.finish()?;
    let request = v1::GetListenerRequest { name: name.clone(), consistency: consistency(read) };
    let make = async |channel| listeners(channel).get_listener(request.clone()).await;
    let listener = session.call(Repeat::Read, make).await?;
    let health = health(session, name).await;
    for view in ListenerView::join(vec![listener], health) {
        session.print(&view, || view.description())?;
    }
    Ok(())
}

/// Where members have a listener, or all of them, bound. The configuration is worth showing without it.
async fn health(session: &mut Session<'_>, name: String) -> Option<v1::ListenerHealth> {
    let make = async |channel| pages::listener_health(channel, &name).await;
    session.call_for_extra("readiness", make).await
}

async fn update(
    session: &mut Session<'_>,
    name: &str,
    listener: v1::Listener,
    paths: Vec<String>,
    mut input: Input,
    write: &WriteArgs,
) -> Result<(), Error> {
    let resource = input.listener("NAME", name);
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    if paths.is_empty() {
        return Err(Error::NothingToChange("trestle listener update"));
    }
    let request = v1::UpdateListenerRequest {
        listener: Some(v1::Listener { name: resource, ..listener }),
        update_mask: Some(FieldMask { paths }),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| listeners(channel).update_listener(request.clone()).await;
    let view = ListenerView::from(session.call(write.repeat(), make).await?);
    warn(session, &view.warnings);
    write.finish(session, &format!("listener {name}"), "updated", view.revision, &view).await?;
    if write.waits() { bound(session, name).await } else { Ok(()) }
}

async fn delete(session: &mut Session<'_>, name: &str, etag: String, write: &WriteArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.listener("NAME", name);
    let write = Write::new(write, &mut input)?;
    input.finish()?;
    let request = v1::DeleteListenerRequest {
        name: resource,
        etag,
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| listeners(channel).delete_listener(request.clone()).await;
    let revision = session.call(write.repeat(), make).await?.revision;
    write.finish(session, &format!("listener {name}"), "deleted", revision, &Deleted { name, revision }).await
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
        let (listener, paths) = given(&[":80", "[::]:80-90"], None);
        assert_eq!(paths, ["binds"]);
        assert_eq!(listener.binds, ["0.0.0.0:80", "[::]:80-90"]);
        let (listener, paths) = given(&[], Some("web"));
        assert_eq!(paths, ["pool"]);
        assert_eq!(listener.pool, "pools/web");
        input.finish().unwrap();
    }
}
