//! `trestle context`.

use clap::Subcommand;
use serde::Serialize;
use trestle_identity::time_text;

use crate::context::{Contexts, default_path};
use crate::error::Error;
use crate::session::Session;
use crate::table;

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts of ~/.config/trestle/config.toml
    List,
    /// Use a context where no other is named by --context or TRESTLE_CONTEXT
    Use {
        /// Its name
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
}

/// A context as it is listed; nothing of its key.
#[derive(Debug, Serialize)]
struct ContextView {
    name: String,
    current: bool,
    user: String,
    cluster: String,
    endpoints: Vec<String>,
    expire_time: Option<String>,
    problem: Option<String>,
}

impl ContextCommand {
    pub(super) fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let path = default_path()?;
        match self {
            Self::List => list(session, &Contexts::read(&path)?),
            Self::Use { name } => {
                Contexts::change(&path, |contexts| {
                    contexts.named("CONTEXT", &name)?;
                    contexts.current = Some(name.clone());
                    Ok(())
                })?;
                let told =
                    [("current", name.clone())].into_iter().collect::<std::collections::BTreeMap<_, _>>();
                session.print(&told, || format!("context {name} is used from now on\n"))
            }
        }
    }
}

fn list(session: &mut Session<'_>, contexts: &Contexts) -> Result<(), Error> {
    let views: Vec<ContextView> = contexts
        .contexts
        .iter()
        .map(|(name, context)| {
            let identity = context.identity(name);
            let known = identity.as_ref().ok();
            ContextView {
                name: name.clone(),
                current: contexts.current.as_ref() == Some(name),
                user: known.map(|identity| identity.user().to_string()).unwrap_or_default(),
                cluster: known.map(|identity| identity.cluster().to_string()).unwrap_or_default(),
                endpoints: context.endpoints.clone(),
                expire_time: known
                    .and_then(|identity| identity.facts())
                    .map(|facts| time_text(facts.not_after)),
                problem: identity.err().map(|error| error.to_string()),
            }
        })
        .collect();
    session.print_list(&views, "no contexts; an admin makes one with \"trestle user create\"", || {
        let row = |view: &ContextView| {
            [
                if view.current { "*".to_owned() } else { String::new() },
                view.name.clone(),
                view.user.clone(),
                view.endpoints.join(","),
                view.problem.clone().or_else(|| view.expire_time.clone()).unwrap_or_default(),
            ]
        };
        table::table(["CURRENT", "NAME", "USER", "ENDPOINTS", "EXPIRES"], views.iter().map(row))
    })
}
