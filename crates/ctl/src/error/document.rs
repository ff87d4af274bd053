//! Errors as documents, for programs that asked for JSON or YAML.

use clap::error::{ContextKind, ContextValue};
use serde::Serialize;
use tonic::Code;
use tonic_types::StatusExt;
use trestle_model::Violation;

use super::{Error, Failure, NO_LEADER_ADVICE, advice, nobody, reason, where_listed};
use crate::exit::Exit;

/// What stands under "error". Every key is always there.
#[derive(Debug, Serialize)]
struct ErrorView {
    /// A word in capitals for what went wrong: the API's reason, or this program's own.
    code: String,
    /// As the process ends.
    exit_code: u8,
    /// In words, in one line.
    message: String,
    /// Every value that breaks a rule, or differs from what is there.
    violations: Vec<ViolationView>,
    /// Each endpoint that could not be used.
    endpoints: Vec<EndpointView>,
    /// Members that it is about.
    members: Vec<String>,
    /// Name of the write that was sent, to repeat it with; null where none was.
    request_id: Option<String>,
    /// What to do next; null where nothing is known.
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct ViolationView {
    /// The option, argument or field of the API.
    field: String,
    /// Null where none was given.
    value: Option<String>,
    rule: String,
}

#[derive(Debug, Serialize)]
struct EndpointView {
    endpoint: String,
    reason: String,
    answered: bool,
}

/// The document.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorDocument {
    error: ErrorView,
}

impl From<&Violation> for ViolationView {
    fn from(violation: &Violation) -> Self {
        let Violation { field, value, rule } = violation;
        Self { field: field.clone(), value: Some(value.clone()), rule: rule.clone() }
    }
}

impl From<&Failure> for EndpointView {
    fn from(failure: &Failure) -> Self {
        let Failure { endpoint, reason, answered, .. } = failure.clone();
        Self { endpoint, reason, answered }
    }
}

/// A rule as members tell it, `"VALUE": RULE`.
fn told(field: String, description: &str) -> ViolationView {
    // Quotes in the value are escaped.
    let end =
        |rest: &str| rest.match_indices("\": ").map(|(at, _)| at).find(|at| !rest[..*at].ends_with('\\'));
    let quoted = description.strip_prefix('"').and_then(|rest| rest.split_at_checked(end(rest)?));
    match quoted {
        Some((value, rule)) => {
            let rule = rule.trim_start_matches("\": ").to_owned();
            ViolationView { field, value: Some(value.to_owned()), rule }
        }
        None => ViolationView { field, value: None, rule: description.to_owned() },
    }
}

impl Error {
    /// The error as a document; `request_id` names the write that was sent, if one was.
    pub(crate) fn document(&self, request_id: Option<String>) -> ErrorDocument {
        let mut view = ErrorView {
            code: self.word(),
            exit_code: self.exit().code(),
            message: self.to_string(),
            violations: Vec::new(),
            endpoints: Vec::new(),
            members: Vec::new(),
            request_id,
            advice: None,
        };
        match self {
            Self::Invalid(found) => view.violations = found.0.iter().map(Into::into).collect(),
            Self::Refused(status) | Self::FoundingRefused(status) => {
                let found =
                    status.get_details_bad_request().map(|all| all.field_violations).unwrap_or_default();
                view.violations = found.into_iter().map(|v| told(v.field, &v.description)).collect();
                if view.message.is_empty() {
                    view.message = status.code().description().to_owned();
                }
                if status.code() == Code::NotFound {
                    view.advice = where_listed(status.message());
                }
                if status.code() == Code::Unimplemented {
                    view.advice = Some("the member's program may be older than this one".to_owned());
                }
            }
            Self::NoAnswer { failures, request_id, .. } => {
                view.message = nobody(failures).to_owned();
                view.endpoints = failures.iter().map(Into::into).collect();
                view.advice = Some(advice(failures, request_id.as_deref()).join("; "));
            }
            Self::Unknown { endpoint, reason, advice } => {
                let failure =
                    EndpointView { endpoint: endpoint.clone(), reason: reason.clone(), answered: true };
                view.endpoints = vec![failure];
                view.advice = Some(advice.clone()).filter(|advice| !advice.is_empty());
            }
            Self::NoLeader(failures) => {
                view.endpoints = failures.iter().map(Into::into).collect();
                view.advice = Some(NO_LEADER_ADVICE.to_owned());
            }
            Self::NotInForce { members, .. }
            | Self::NotBound { members, .. }
            | Self::SilentInDrain { members, .. }
            | Self::NotClosed(members) => view.members.clone_from(members),
            _ => {}
        }
        ErrorDocument { error: view }
    }

    /// The word for it.
    fn word(&self) -> String {
        let word = match self {
            Self::Invalid(_) => "INVALID_VALUE",
            Self::NothingToChange(_) => "NOTHING_TO_CHANGE",
            Self::CloseSelection(_) => "CLOSE_SELECTION",
            Self::Refused(status) | Self::FoundingRefused(status) => return reason(status),
            Self::NoAnswer { .. } => "NO_ANSWER",
            Self::Unknown { .. } => "OUTCOME_UNKNOWN",
            Self::NotInForce { .. } => "NOT_IN_FORCE",
            Self::NotClosed(_) | Self::SilentInDrain { .. } => "MEMBERS_UNREACHABLE",
            Self::NotBound { .. } => "NOT_BOUND",
            Self::NotServing { .. } => "NOT_SERVING",
            Self::DrainEnded(_) => "DRAIN_ENDED",
            Self::NotHandedOver { .. } => "NOT_HANDED_OVER",
            Self::Interrupted(_) => "INTERRUPTED",
            Self::NoLeader(_) => "NO_LEADER",
            Self::BadAnswer(_) => "BAD_ANSWER",
            Self::Output(_) | Self::File { .. } => "IO",
            Self::Encode(_) => "ENCODING",
            Self::Random(_) | Self::Key(_) | Self::Runtime(_) => "SYSTEM",
        };
        word.to_owned()
    }
}

fn texts(value: &ContextValue) -> Vec<String> {
    match value {
        ContextValue::String(text) => vec![text.clone()],
        ContextValue::Strings(all) => all.clone(),
        _ => Vec::new(),
    }
}

/// A mistake in the form of the command line, which clap found.
pub(crate) fn usage_document(refused: &clap::Error, hint: Option<&str>) -> ErrorDocument {
    let text = refused.render().to_string();
    let (said, usage) = text.split_once("\n\nUsage: ").unwrap_or((&text, ""));
    let message = said.trim().trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let context = |kind| refused.get(kind).map(texts).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).into_iter().next();
    let rule = match context(ContextKind::ValidValue).as_slice() {
        [] => message.clone(),
        valid => format!("must be one of: {}", valid.join(", ")),
    };
    let named = context(ContextKind::InvalidArg).into_iter();
    let named = named.chain(context(ContextKind::InvalidSubcommand));
    let violations =
        named.map(|field| ViolationView { field, value: value.clone(), rule: rule.clone() }).collect();
    let usage = usage.lines().next().unwrap_or_default().trim();
    ErrorDocument {
        error: ErrorView {
            code: "USAGE".to_owned(),
            exit_code: Exit::Usage.code(),
            message,
            violations,
            endpoints: Vec::new(),
            members: Vec::new(),
            request_id: None,
            advice: hint
                .map(str::to_owned)
                .or_else(|| (!usage.is_empty()).then(|| format!("usage: {usage}"))),
        },
    }
}
