//! `trestle context`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Subcommand;
use serde::Serialize;
use trestle_identity::{
    CertificateRequest, CertificateSubject, PrivateKey, ShownChain, SigningError, SpiffeId, VerificationTime,
    from_pem, time_text, verify_issued,
};
use trestle_model::{Invalid, Violation};

use crate::context::{Context, Contexts, default_path};
use crate::error::Error;
use crate::input::text_of;
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
    /// Print what an authority outside of the cluster is to sign for a context, a PKCS #10 request in PEM
    Request {
        /// Its name; with a slash, a file of contexts, of which the current one is taken [default: the current context]
        #[arg(value_name = "NAME|FILE")]
        context: Option<String>,
    },
    /// Put the certificate into a context that an authority outside of the cluster has signed for it
    Install {
        /// The certificate in PEM, and behind it those between it and the authority; - for standard input
        #[arg(value_name = "FILE")]
        file: String,
        /// The context, as for "context request"
        #[arg(value_name = "NAME|FILE")]
        context: Option<String>,
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
        match self {
            Self::List => list(session, &Contexts::read(&default_path()?)?),
            Self::Request { context } => request(session, context.as_deref()),
            Self::Install { file, context } => install(session, text_of(&file)?, context.as_deref()),
            Self::Use { name } => {
                Contexts::change(&default_path()?, |contexts| {
                    contexts.named("CONTEXT", &name)?;
                    contexts.current = Some(name.clone());
                    Ok(())
                })?;
                let told = [("current", name.clone())].into_iter().collect::<BTreeMap<_, _>>();
                session.print(&told, || format!("context {name} is used from now on\n"))
            }
        }
    }
}

fn invalid(name: &str, rule: impl Into<String>) -> Error {
    Invalid(vec![Violation::new("context", name, rule)]).into()
}

/// Whom a context is of, by what it was made with or else by its certificate.
fn subject(context: &Context, name: &str) -> Result<SpiffeId, Error> {
    match &context.signed_for {
        Some(text) => {
            SpiffeId::parse(text).map_err(|rule| invalid(name, format!("is for \"{text}\", which {rule}")))
        }
        None => {
            let identity = context.identity(name)?;
            let subject = CertificateSubject::User(identity.user().clone());
            Ok(SpiffeId { cluster: identity.cluster().clone(), subject })
        }
    }
}

fn request(session: &mut Session<'_>, meant: Option<&str>) -> Result<(), Error> {
    let (path, name) = Contexts::find(meant)?;
    let contexts = Contexts::read(&path)?;
    let context = contexts.named("CONTEXT", &name)?;
    let failed = |error: SigningError| Error::Key(error.to_string());
    let key = PrivateKey::from_pem(context.key.expose()).map_err(failed)?;
    let made = CertificateRequest::named(&key, &subject(context, &name)?, &[]).map_err(failed)?;
    let view = BTreeMap::from([("certificate_request", made)]);
    session.print(&view, || view["certificate_request"].clone())
}

/// A context whose certificate is in place.
#[derive(Debug, Serialize)]
struct InstalledView {
    context: String,
    expire_time: String,
}

fn install(session: &mut Session<'_>, certificate: String, meant: Option<&str>) -> Result<(), Error> {
    let (path, name) = Contexts::find(meant)?;
    let view = Contexts::change(&path, |contexts| {
        let context = contexts.named("CONTEXT", &name)?;
        let wanted = subject(context, &name)?;
        let new = Context {
            certificate,
            signed_for: Some(wanted.to_string()),
            renewal_failed: None,
            ..context.clone()
        };
        // Its key and name first: of another certificate nothing else is worth a word.
        new.identity(&name)?;
        let not_after = checked(&new, &wanted).map_err(|rule| invalid(&name, rule))?;
        contexts.contexts.insert(name.clone(), new);
        Ok(InstalledView { context: name.clone(), expire_time: time_text(not_after) })
    })?;
    session.print(&view, || {
        format!("the certificate of context {} is in place, until {}\n", view.context, view.expire_time)
    })
}

/// The end of the context's certificate, if members believe it.
fn checked(context: &Context, wanted: &SpiffeId) -> Result<SystemTime, String> {
    let authorities = from_pem(&context.ca).map_err(|rule| format!("ca {rule}"))?;
    let chain = from_pem(&context.certificate).map_err(|rule| format!("certificate {rule}"))?;
    let Some((leaf, others)) = chain.split_first() else { return Err("has no certificate".to_owned()) };
    let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
    let now = VerificationTime::by_clock(SystemTime::now());
    let facts = verify_issued(wanted, &authorities, ShownChain { leaf, others: &others }, now);
    facts
        .map(|facts| facts.not_after)
        .map_err(|refusal| format!("would not be believed by members: {refusal}"))
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
