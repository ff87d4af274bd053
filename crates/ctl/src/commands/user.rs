//! `trestle user`.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use trestle_api::v1;
use trestle_model::{Role, UserName};

use super::choice::choice;
use super::new_user::{ContextDocument, KeptUser, NewUser, UserView, how_to_sign, how_to_use, users};
use super::reading::{PAGE_SIZE, consistency, next_page};
use crate::args::ReadArgs;
use crate::duration::DURATION_RULE;
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session};
use crate::table;

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user, and make the context that it calls the cluster with; its key is made here and never leaves this machine
    Create {
        /// Its name, unique in the cluster
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may do
        #[arg(long, value_name = "ROLE", value_parser = choice::<Role>())]
        role: Role,
        #[command(flatten)]
        made: MadeArgs,
    },
    /// List users
    List {
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Give a user a new key and certificate; what it had is refused from then on
    Rotate {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        made: MadeArgs,
    },
    /// Delete a user: it is refused from then on, and what it has open ends
    #[command(alias = "remove")]
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// What is made for a user.
#[derive(Debug, Args)]
pub(crate) struct MadeArgs {
    /// File of contexts to add it to, which only you may read, as ~/.config/trestle/config.toml; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: String,
    /// How long the certificate is valid, 1m to 3650d
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = lifetime)]
    ttl: Duration,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| DURATION_RULE.to_owned())
}

impl MadeArgs {
    fn begin(&self, name: &str) -> Result<NewUser, Error> {
        let file = Some(self.out.as_str()).filter(|out| *out != "-").map(Path::new);
        NewUser::begin(("NAME", name), file, self.ttl)
    }
}

/// Tells what was made.
fn tell(session: &mut Session<'_>, done: &str, kept: KeptUser) -> Result<(), Error> {
    match kept {
        KeptUser::ForOutput { user, contexts } => {
            session.terminal.note(format_args!(
                "user {} {done}; keep what follows where nobody else reads it",
                user.name
            ));
            if let Some(name) = contexts.unsigned() {
                session.terminal.note(how_to_sign(name, Path::new("FILE")));
            }
            session.print(&ContextDocument::of(&contexts), || contexts.render().expose().clone())
        }
        KeptUser::InFile { made, another_is_current } => {
            session.print(&made, || {
                let (name, role) = (&made.user.name, made.user.role);
                format!("user {name} {done} as {role}; context {} is in {}\n", made.context, made.file)
            })?;
            if made.awaits_certificate {
                session.terminal.note(how_to_sign(&made.context, Path::new(&made.file)));
            }
            if another_is_current {
                session.terminal.note(how_to_use(&made.context));
            }
            Ok(())
        }
    }
}

impl UserCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create { name, role, made } => {
                let new = made.begin(&name)?;
                let answer = new.create(session, role).await?;
                tell(session, "created", new.keep(answer)?)
            }
            Self::Rotate { name, made } => {
                let new = made.begin(&name)?;
                let answer = new.rotate(session).await?;
                tell(session, "rotated", new.keep(answer)?)
            }
            Self::List { read } => list(session, &read).await,
            Self::Delete { name } => delete(session, &name).await,
        }
    }
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    let freshness = loop {
        let request = v1::ListUsersRequest {
            page_size: PAGE_SIZE,
            page_token: page_token.clone(),
            consistency: consistency(read),
        };
        let make = async |channel| users(channel).list_users(request.clone()).await;
        let answer = session.call(Repeat::Read, make).await?;
        found.extend(answer.users.into_iter().map(UserView::from));
        match next_page(&page_token, answer.next_page_token)? {
            Some(next) => page_token = next,
            None => break answer.read,
        }
    };
    session.print_list(&found, "no users", || {
        let row = |user: &UserView| {
            let expires: Vec<_> = user.keys.iter().filter_map(|key| key.expire_time.clone()).collect();
            [user.name.clone(), user.role.to_owned(), expires.join(","), user.revision.to_string()]
        };
        table::table(["NAME", "ROLE", "EXPIRES", "REVISION"], found.iter().map(row))
    })?;
    session.note_freshness(freshness.as_ref());
    Ok(())
}

async fn delete(session: &mut Session<'_>, name: &str) -> Result<(), Error> {
    let mut input = Input::default();
    input.valid("NAME", name, UserName::parse(name));
    let request_id = input.request_id(None)?;
    input.finish()?;
    let request = v1::DeleteUserRequest { name: format!("users/{name}"), request_id: request_id.clone() };
    let make = async |channel| users(channel).delete_user(request.clone()).await;
    let answer = session.call(Repeat::Write(&request_id), make).await?;
    let told = std::collections::BTreeMap::from([("revision", answer.revision)]);
    session.print(&told, || format!("user {name} deleted (revision {})\n", answer.revision))
}
