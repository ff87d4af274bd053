//! What can go wrong, and how it is told.

mod document;

use std::time::Duration;

use tonic::Code;
use tonic::Status;
use tonic_types::StatusExt;
use trestle_model::Invalid;

pub(crate) use self::document::{ErrorDocument, usage_document};
use crate::duration::duration_text;
use crate::endpoint::Outside;
use crate::exit::Exit;

/// Reasons of refusals because what was to be made is there already: a resource, a configuration where one is restored, a
/// cluster where one is founded.
const EXISTS: [&str; 3] = [trestle_api::status::EXISTS, "CONFIGURED", "IN_CLUSTER"];

const NO_LEADER_ADVICE: &str =
    "see \"trestle status\" for the members that answer: more than half of the voters must";

const FOUNDING_ADVICE: &str = "a cluster is founded on its first member's own machine: \"sudo trestle cluster bootstrap\" there \
                               takes the member's admin socket; one in which nobody proves anything, for a lab, takes \
                               insecure = true in the member's file";

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Arguments that break a rule, all of them.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// An update without anything to update.
    #[error("nothing to change was given: name at least one setting, see \"trestle {0} update --help\"")]
    NothingToChange(&'static str),
    /// A closing of connections that names none, or names them in two ways.
    #[error("{0}")]
    CloseSelection(&'static str),
    /// A member refused.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// A member does not found a cluster for somebody who proves nothing.
    #[error("{}", .0.message())]
    FoundingRefused(Box<Status>),
    /// No endpoint answered that it was done; a write may have been done all the same if a connection broke.
    #[error("no endpoint could be used")]
    NoAnswer {
        /// Each endpoint with what went wrong there.
        failures: Vec<Failure>,
        /// How long it was tried, when it was tried more than once.
        tried_for: Option<Duration>,
        /// The request's id, for a write that may be repeated.
        request_id: Option<String>,
    },
    /// A member took the call and did not answer.
    #[error("{endpoint}: {reason}")]
    Unknown {
        /// The member.
        endpoint: String,
        /// What happened.
        reason: String,
        /// How to go on.
        advice: String,
    },
    /// The write is accepted, but some reachable members do not act on it yet.
    #[error(
        "revision {revision} is accepted but not yet in force on {}; see \"trestle status\"", .members.join(", ")
    )]
    NotInForce {
        /// The revision.
        revision: u64,
        /// The members.
        members: Vec<String>,
    },
    /// The listener is not bound on some members that can be reached.
    #[error("listener {listener} is not bound on {}; see \"trestle listener get {listener}\"", .members.join(", "))]
    NotBound {
        /// The listener.
        listener: String,
        /// The members.
        members: Vec<String>,
    },
    /// The member does not serve virtual IPs that were moved to it.
    #[error("{holder} leads and does not serve all virtual IPs: {}; see \"trestle vip list\"", .missing.join("; "))]
    NotServing {
        /// The member.
        holder: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// The drain that was waited for is over, because somebody said so.
    #[error("{0} is not draining any more: it was enabled, disabled or removed meanwhile")]
    DrainEnded(String),
    /// No connection is left on the members that answer, and others may have some.
    #[error(
        "no connection is left on {name} as far as members answer, and {} may have some; see \"trestle status\"",
        .members.join(", ")
    )]
    SilentInDrain {
        /// What is drained.
        name: String,
        /// The members that do not answer.
        members: Vec<String>,
    },
    /// The deadline of a member's drain is over, and it still takes connections.
    #[error(
        "{member} still takes connections {} after its drain began, which is its deadline: it leads, and nobody takes over \
         ({why}); it goes on draining, and \"trestle member enable {member}\" ends that",
        duration_text(*.deadline)
    )]
    NotHandedOver {
        /// The member.
        member: String,
        /// The drain's deadline.
        deadline: Duration,
        /// What keeps the others.
        why: String,
    },
    /// Ctrl-C; with what is left in force.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// Some members did not answer, and may or may not have closed connections.
    #[error("{} did not answer, and may or may not have closed connections; see \"trestle status\"", .0.join(", "))]
    NotClosed(Vec<String>),
    /// No member knows a leader.
    #[error("no member knows a leader")]
    NoLeader(Vec<Failure>),
    /// An answer that breaks the contract of the API.
    #[error("{0}; the member's version may not fit this program's, compare with \"trestle status\"")]
    BadAnswer(String),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// A file could not be read or written.
    #[error("cannot {action} {file}: {cause}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Its path.
        file: String,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// The output could not be put into the format.
    #[error("cannot put the output into the format: {0}; try another one with --output")]
    Encode(String),
    /// The operating system gave no random bytes.
    #[error("cannot draw a random request id: {0}; name one with --request-id")]
    Random(getrandom::Error),
    /// A key or a request for a certificate could not be made.
    #[error("{0}")]
    Key(String),
    /// The program could not be set up.
    #[error("cannot start the client: {0}")]
    Runtime(std::io::Error),
}

/// What went wrong at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The endpoint, HOST:PORT.
    pub(crate) endpoint: String,
    /// In words.
    pub(crate) reason: String,
    /// True when a member took the call, and false when none was reached.
    pub(crate) answered: bool,
    /// Set when it answers and the cluster is not managed there; the words are in `reason` too.
    pub(crate) outside: Option<Outside>,
}

impl Failure {
    /// The endpoint with what went wrong there, in one line.
    pub(crate) fn line(&self) -> String {
        match self.outside {
            Some(what) => format!("{} {what}", self.endpoint),
            None => format!("{}: {}", self.endpoint, self.reason),
        }
    }
}

impl Error {
    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Invalid(_) | Self::NothingToChange(_) | Self::CloseSelection(_) => Exit::Usage,
            Self::Refused(status) if EXISTS.contains(&reason(status).as_str()) => Exit::Exists,
            _ => Exit::Failed,
        }
    }

    /// What is to be told, in one line.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::NoAnswer { failures, .. } => {
                let each: Vec<_> = failures.iter().map(Failure::line).collect();
                format!("{}: {}", nobody(failures), each.join("; "))
            }
            other => other.to_string(),
        }
    }

    /// All that is to be told, line by line, without a line break at the end.
    pub(crate) fn render(&self) -> String {
        match self {
            Self::Invalid(found) => lines(found.0.iter().map(ToString::to_string)),
            Self::Refused(status) => refused(status),
            Self::FoundingRefused(status) => format!("{}\n  {FOUNDING_ADVICE}", refused(status)),
            Self::NoAnswer { failures, tried_for, request_id } => {
                no_answer(failures, *tried_for, request_id.as_deref())
            }
            Self::NoLeader(failures) => listed(&self.to_string(), failures, NO_LEADER_ADVICE),
            Self::Unknown { advice, .. } => format!("error: {self}\n  {advice}"),
            other => format!("error: {other}"),
        }
    }
}

/// The word for why a member refused: its own, or that of gRPC.
fn reason(status: &Status) -> String {
    if let Some(info) = status.get_details_error_info().filter(|info| !info.reason.is_empty()) {
        return info.reason;
    }
    let name = format!("{:?}", status.code());
    let word = |c: char| if c.is_uppercase() { format!("_{c}") } else { c.to_ascii_uppercase().to_string() };
    name.chars().map(word).collect::<String>().trim_start_matches('_').to_owned()
}

/// What shows the resources of a kind, for a refusal because one does not exist: `pool "web" does not exist`.
fn where_listed(message: &str) -> Option<String> {
    let (kind, name) = message.strip_suffix(" does not exist")?.split_once(' ')?;
    let of_pool = match (kind, name.trim_matches('"').split_once('/')) {
        ("backend", Some((pool, _))) => format!(" {pool}"),
        ("pool" | "listener" | "member" | "vip" | "user", _) => String::new(),
        _ => return None,
    };
    Some(format!("\"trestle {kind} list{of_pool}\" shows those that do"))
}

fn lines(texts: impl Iterator<Item = String>) -> String {
    texts.map(|text| format!("error: {text}")).collect::<Vec<_>>().join("\n")
}

/// The server's message, or one line for each value that it refused: its message repeats those in one long line.
fn refused(status: &Status) -> String {
    let violations = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
    if violations.is_empty() {
        return match (status.code(), status.message()) {
            (Code::NotFound, message) if !message.is_empty() => match where_listed(message) {
                Some(advice) => format!("error: {message}\n  {advice}"),
                None => format!("error: {message}"),
            },
            (Code::Unimplemented, _) => {
                "error: this member does not know the command; its program may be older than this one"
                    .to_owned()
            }
            (code, "") => format!("error: {}", code.description()),
            (_, message) => format!("error: {message}"),
        };
    }
    let said = violations.iter().all(|v| status.message().contains(&v.description));
    let heading = (!said).then(|| status.message().to_owned());
    lines(heading.into_iter().chain(violations.iter().map(|v| format!("{} {}", v.field, v.description))))
}

fn outside_all(failures: &[Failure]) -> bool {
    failures.iter().all(|failure| failure.outside.is_some())
}

/// What helps where no endpoint belongs to a cluster. One is only to be founded where all are known to have none: beside another
/// one that nobody can see from here it would be a second one.
fn where_the_cluster_is(failures: &[Failure]) -> &'static str {
    if failures.iter().all(|failure| failure.outside == Some(Outside::NoCluster)) {
        "found a cluster with \"trestle cluster bootstrap\", or let the members join one with \"trestled join\" and a token of \
         \"trestle token create\""
    } else if failures.iter().any(|failure| failure.outside.is_some_and(Outside::has_no_cluster)) {
        "to let a member join the cluster run \"trestle token create\" on a member of that cluster, and \"trestled join\" where it \
         runs; without identities, \"trestle member add HOST:PORT\""
    } else {
        "name the admin address of a member of the cluster with --endpoint or TRESTLE_ENDPOINT"
    }
}

fn nobody(failures: &[Failure]) -> &'static str {
    if !failures.is_empty() && outside_all(failures) {
        return "no endpoint is the admin port of a member of the cluster";
    }
    if failures.iter().any(|f| f.answered) { "no member could do it" } else { "no member answers" }
}

/// What went wrong, at each endpoint, and what to do.
fn listed(what: &str, failures: &[Failure], advice: &str) -> String {
    let each: String = failures.iter().map(|failure| format!("\n  {}", failure.line())).collect();
    format!("error: {what}{each}\n  {advice}")
}

fn no_answer(failures: &[Failure], tried_for: Option<Duration>, request_id: Option<&str>) -> String {
    let what = nobody(failures);
    let time = tried_for.map(|t| format!(" (tried for {})", duration_text(t))).unwrap_or_default();
    listed(&format!("{what}{time}"), failures, &advice(failures, request_id).join("\n  "))
}

/// What to do when no endpoint could be used.
fn advice(failures: &[Failure], request_id: Option<&str>) -> Vec<String> {
    let answered = failures.iter().any(|f| f.answered);
    let next = match (answered, request_id) {
        _ if outside_all(failures) => where_the_cluster_is(failures),
        (false, _) => {
            "check that trestled runs there and that --endpoint or TRESTLE_ENDPOINT names its admin address"
        }
        (true, Some(_)) => "see \"trestle status\" for the members that answer",
        (true, None) => "see \"trestle status\"; reads take --local to show what one member knows",
    };
    let again = |id| format!("repeat the command with --request-id {id}, which applies it at most once");
    [Some(next.to_owned()), request_id.map(again)].into_iter().flatten().collect()
}
