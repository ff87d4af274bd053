//! The one table from errors to gRPC statuses. Codes follow AIP-193; each status carries `ErrorInfo` with a reason in
//! capitals, and `BadRequest` with every field that breaks a rule.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};
use trestle_model::{Invalid, Kind, Refusal, ResourceName, Revision, Violation};

/// Domain of every `ErrorInfo`.
pub const DOMAIN: &str = "trestle";

/// Metadata key that names the leader's admin address on a failure that the leader would not have had.
pub const LEADER_KEY: &str = "trestle-leader";

/// Failures that are no refusals by the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The member belongs to no cluster.
    #[error(
        "this member belongs to no cluster yet; create one with \"trestle cluster bootstrap\" as root on its machine, or let it join \
         one with \"trestled join\" there and a token of \"trestle token create\"; into a cluster without identities \"trestle member \
         add HOST:PORT\" takes it"
    )]
    NoCluster,
    /// The member was removed from its cluster.
    #[error(
        "this member was removed from its cluster; to bring it back as a new member, whose old data is moved aside, join it with \
         \"trestled join\" and a token of \"trestle token create\", or in a cluster without identities run \"trestle member add \
         HOST:PORT\" on another member"
    )]
    Removed,
    /// The member that calls was removed, by what the one that answers has applied.
    #[error("member {member} was removed from the cluster, by an entry of the log up to {applied}")]
    CallerRemoved {
        /// Its id.
        member: u64,
        /// Index of the last entry that the answering member has applied.
        applied: u64,
    },
    /// The member is of before a recovery of its cluster.
    #[error(
        "the cluster was made anew from one member (recovery {newest}), and this member is of before (recovery {known}): it takes \
         no part any more; stop it, wipe its data directory, and let it join anew: with \
         \"trestled join\" and a token of \"trestle token create\", or in a cluster without identities with \"trestle member add HOST:PORT\""
    )]
    Recovered {
        /// The recovery that the member is of; 0 for none.
        known: u64,
        /// The newest one.
        newest: u64,
    },
    /// The cluster was recovered twice, and the members are of one each.
    #[error(
        "the cluster was made anew from two members, each of which goes on by itself (recovery {number}), and {who} is of the \
         other one: decide which of the two stays, stop all members of the other, wipe their data directories, and let \
         them join anew: with \"trestled join\" and a token of \"trestle token create\", or in a cluster without identities with \
         \"trestle member add HOST:PORT\""
    )]
    RecoveredTwice {
        /// The number of both recoveries.
        number: u64,
        /// Who is of the other one, from the point of view of whoever reads this.
        who: String,
    },
    /// The member belongs to a cluster already.
    #[error(
        "this member belongs to cluster {0} already; start it with an empty data directory to use it elsewhere"
    )]
    InCluster(String),
    /// No leader is known, or it cannot be reached, or it has lost its quorum. Nothing was changed.
    #[error("no leader with a quorum can be reached: {0}; nothing was changed, try again")]
    NoLeader(String),
    /// The request may or may not take effect.
    #[error(
        "the outcome is unknown: {0}; repeat the request with the same request id, or read before you repeat it"
    )]
    Unknown(String),
    /// A watch asked for changes that are no longer kept.
    #[error(
        "changes before revision {oldest} are no longer kept, and {asked} was asked for; list, then watch from the \
         revision of the list plus one"
    )]
    Compacted {
        /// First revision that the watch asked for.
        asked: u64,
        /// Oldest revision that is kept.
        oldest: u64,
    },
    /// A watcher did not keep up.
    #[error("the watch fell behind by too many changes; watch again from revision {0}")]
    Lagged(u64),
    /// A membership change was refused.
    #[error("{0}")]
    Membership(String),
    /// A request is larger than what the log takes.
    #[error(
        "the request takes {size} bytes, and the most that the log takes is {max}; give fewer or shorter settings, or split it up"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// The member's program is too old, in words after its name.
    #[error("this member abstains; {0}")]
    Outdated(String),
    /// The caller may not do that: who it is, and what to do.
    #[error("{0}")]
    Denied(String),
    /// Who calls is not believed, in words.
    #[error("{0}")]
    Unauthenticated(String),
    /// A change of authority was refused, in words.
    #[error("{0}")]
    Authority(String),
    /// The cluster has no authority that could sign certificates.
    #[error(
        "this cluster has no authority that signs certificates, because it was founded by a version that makes none: \"trestle ca rotate\" makes one"
    )]
    NoAuthority,
    /// The members accept plain connections only.
    #[error(
        "the members of this cluster accept plain connections only, over which no token is sent: have them accept TLS with \
         \"trestle cluster secure --prepare\", or take the new member in with \"trestle member add HOST:PORT\""
    )]
    PlainOnly,
    /// Nobody signs, in words. Nothing was changed.
    #[error("no certificate was signed: {0}; nothing was changed")]
    NotSigned(String),
    /// The member is about to stop.
    #[error("this member is shutting down; ask another")]
    ShuttingDown,
    /// Something that should not happen.
    #[error("internal failure: {0}; see the member's log")]
    Internal(String),
}

/// Reason of a status of a member that belongs to no cluster.
pub const NO_CLUSTER: &str = "NO_CLUSTER";
/// Reason of a status of a member that is of before its cluster was made anew.
pub const CLUSTER_RECOVERED: &str = "CLUSTER_RECOVERED";
/// The status of a creation of what is there already, with other settings: those that are `found` to differ.
pub fn differs(kind: Kind, name: &str, revision: Revision, found: &[Violation]) -> Status {
    let mut details = ErrorDetails::with_error_info(EXISTS, DOMAIN, HashMap::new());
    details.set_bad_request(violations(found));
    let message = format!(
        "{kind} \"{name}\" exists already (revision {revision}), with other settings; update it, or choose another name"
    );
    Status::with_error_details(Code::AlreadyExists, message, details)
}

/// Reason of a status that is about what is there already under the name of what was to be created.
pub const EXISTS: &str = "ALREADY_EXISTS";
/// Metadata key of an answer to a creation: what was asked for was there already, and nothing was changed.
pub const EXISTING_KEY: &str = "trestle-existing";
/// Reason of a status that is about the member that answers.
pub const MEMBER_REMOVED: &str = "MEMBER_REMOVED";
/// Reason of a status that is about the member that called.
pub const CALLER_REMOVED: &str = "CALLER_REMOVED";
/// Reason of a status of what not all members' programs know; its metadata names those members.
pub const FEATURE_LEVEL: &str = "FEATURE_LEVEL";
/// Reason of a status about a member whose program is too old for what the cluster has agreed on.
pub const MEMBER_OUTDATED: &str = "MEMBER_OUTDATED";
/// Metadata key of the index up to which the answering member has applied the log.
pub const APPLIED_KEY: &str = "applied_index";

fn with_reason(code: Code, reason: &str, message: String) -> Status {
    with_metadata(code, reason, message, HashMap::new())
}

fn with_metadata(code: Code, reason: &str, message: String, metadata: HashMap<String, String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// The status of a refused command.
pub fn refusal(refusal: &Refusal) -> Status {
    let (code, reason) = code(refusal);
    match refusal {
        Refusal::Invalid(found) => invalid(found),
        Refusal::Batch(failed) => {
            let part = |(name, refusal): &(ResourceName, Refusal)| match refusal {
                Refusal::Invalid(Invalid(found)) => found
                    .iter()
                    .map(|v| Violation { field: format!("{name}: {}", v.field), ..v.clone() })
                    .collect(),
                other => vec![Violation::new(name.to_string(), "", other.to_string())],
            };
            let parts: Vec<Violation> = failed.iter().flat_map(part).collect();
            let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
            details.set_bad_request(violations(&parts));
            Status::with_error_details(code, refusal.to_string(), details)
        }
        Refusal::FeatureLevel { needed, level, members } => {
            let metadata = [
                ("feature_level", level.to_string()),
                ("needed", needed.to_string()),
                ("members", members.join(",")),
            ];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
            with_metadata(code, reason, refusal.to_string(), metadata)
        }
        other => with_reason(code, reason, other.to_string()),
    }
}

/// The code and the reason of a refusal; of a batch those of its first part that failed.
fn code(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::Batch(failed) => {
            failed.first().map_or((Code::Internal, "INTERNAL"), |(_, first)| code(first))
        }
        Refusal::Invalid(_) => (Code::InvalidArgument, INVALID_VALUE),
        Refusal::NotFound { .. } => (Code::NotFound, "NOT_FOUND"),
        Refusal::Exists { .. } => (Code::AlreadyExists, EXISTS),
        Refusal::Moved { .. } => (Code::Aborted, "ETAG_MISMATCH"),
        Refusal::InUse { kind: Kind::Pool, .. } => (Code::FailedPrecondition, "POOL_IN_USE"),
        Refusal::InUse { .. } => (Code::FailedPrecondition, "IN_USE"),
        Refusal::NoTenure { .. } => (Code::FailedPrecondition, "NO_TENURE"),
        Refusal::BindTaken { .. } => (Code::AlreadyExists, "ADDRESS_IN_USE"),
        Refusal::Full { .. } | Refusal::TooManyPorts { .. } => (Code::ResourceExhausted, "LIMIT_REACHED"),
        Refusal::RequestIdReused(_) => (Code::InvalidArgument, "REQUEST_ID_REUSED"),
        Refusal::Configured { .. } => (Code::AlreadyExists, "CONFIGURED"),
        Refusal::StagingLost => (Code::Aborted, "STAGING_LOST"),
        Refusal::Founded => (Code::FailedPrecondition, "CLUSTER_FOUNDED"),
        Refusal::FeatureLevel { .. } => (Code::FailedPrecondition, FEATURE_LEVEL),
        Refusal::Token { .. } => (Code::PermissionDenied, "TOKEN_REFUSED"),
        Refusal::Outdated { .. } => (Code::FailedPrecondition, MEMBER_OUTDATED),
    }
}

/// Reason of a status of values that break rules.
const INVALID_VALUE: &str = "INVALID_VALUE";

/// Most mistakes that one status lists. Details travel in trailers, which gRPC clients bound at 8 KiB.
const VIOLATIONS_MAX: usize = 10;

fn violations(found: &[Violation]) -> Vec<FieldViolation> {
    let violation =
        |v: &Violation| FieldViolation::new(v.field.clone(), format!("\"{}\": {}", v.value, v.rule));
    found.iter().take(VIOLATIONS_MAX).map(violation).collect()
}

/// The status of an input with mistakes.
pub fn invalid(invalid: &Invalid) -> Status {
    let mut details = ErrorDetails::with_error_info(INVALID_VALUE, DOMAIN, HashMap::new());
    let shown: Vec<_> = invalid.0.iter().take(VIOLATIONS_MAX).cloned().collect();
    details.set_bad_request(violations(&shown));
    let mut message = Invalid(shown).to_string();
    if invalid.0.len() > VIOLATIONS_MAX {
        message.push_str(&format!("; and {} more", invalid.0.len() - VIOLATIONS_MAX));
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Why a call failed, by the reason of its status: what callers decide by. Other failures have reasons too, which nobody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The member belongs to no cluster.
    NoCluster,
    /// The member that answers was removed.
    MemberRemoved,
    /// The member that called was removed.
    CallerRemoved,
    /// One of both is of before a recovery of the cluster.
    ClusterRecovered,
    /// Both are of different recoveries.
    ClusterRecoveredTwice,
    /// There is no leader with a quorum.
    NoLeader,
    /// It may have taken effect.
    OutcomeUnknown,
    /// The member is about to stop.
    ShuttingDown,
    /// Any other reason of this program.
    Other,
}

impl Reason {
    const NAMES: [(Self, &str); 8] = [
        (Self::NoCluster, NO_CLUSTER),
        (Self::MemberRemoved, MEMBER_REMOVED),
        (Self::CallerRemoved, CALLER_REMOVED),
        (Self::ClusterRecovered, CLUSTER_RECOVERED),
        (Self::ClusterRecoveredTwice, "CLUSTER_RECOVERED_TWICE"),
        (Self::NoLeader, "NO_LEADER"),
        (Self::OutcomeUnknown, "OUTCOME_UNKNOWN"),
        (Self::ShuttingDown, "SHUTTING_DOWN"),
    ];

    /// The reason in a status that this program made; `None` for one that it did not make, such as of a broken connection.
    pub fn of(status: &Status) -> Option<Self> {
        let reason = status.get_details_error_info()?.reason;
        let known = Self::NAMES.iter().find(|(_, name)| *name == reason);
        Some(known.map_or(Self::Other, |(reason, _)| *reason))
    }

    fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(reason, _)| *reason == self).map_or("INTERNAL", |(_, name)| name)
    }

    /// Whether it says for certain of a proposal that it was not made.
    pub fn nothing_was_proposed(self) -> bool {
        matches!(self, Self::NoCluster | Self::NoLeader | Self::ShuttingDown)
    }
}

/// The index up to which the answering member has applied the log, in a status that says that the caller was removed.
pub fn caller_removed(status: &Status) -> Option<u64> {
    let info = status.get_details_error_info().filter(|info| info.reason == CALLER_REMOVED)?;
    info.metadata.get(APPLIED_KEY)?.parse().ok()
}

/// Whether a status says that the member that answers has a program that is too old for what it was sent.
pub fn is_outdated(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == MEMBER_OUTDATED)
}

/// The status of any other failure.
pub fn failure(failure: &Failure) -> Status {
    let (code, reason) = match failure {
        Failure::NoCluster => (Code::FailedPrecondition, NO_CLUSTER),
        Failure::Removed => (Code::FailedPrecondition, MEMBER_REMOVED),
        Failure::CallerRemoved { applied, .. } => {
            let metadata = HashMap::from([(APPLIED_KEY.to_owned(), applied.to_string())]);
            return with_metadata(Code::FailedPrecondition, CALLER_REMOVED, failure.to_string(), metadata);
        }
        Failure::Recovered { .. } => (Code::FailedPrecondition, CLUSTER_RECOVERED),
        Failure::RecoveredTwice { .. } => (Code::FailedPrecondition, Reason::ClusterRecoveredTwice.as_str()),
        Failure::InCluster(_) => (Code::FailedPrecondition, "IN_CLUSTER"),
        Failure::NoLeader(_) => (Code::Unavailable, Reason::NoLeader.as_str()),
        Failure::Unknown(_) => (Code::DeadlineExceeded, Reason::OutcomeUnknown.as_str()),
        Failure::Compacted { .. } => (Code::OutOfRange, "COMPACTED"),
        Failure::Lagged(_) => (Code::DataLoss, "WATCH_LAGGED"),
        Failure::Membership(_) => (Code::FailedPrecondition, "MEMBERSHIP"),
        Failure::TooLarge { .. } => (Code::InvalidArgument, "REQUEST_TOO_LARGE"),
        Failure::Outdated(_) => (Code::FailedPrecondition, MEMBER_OUTDATED),
        Failure::Denied(_) => (Code::PermissionDenied, "PERMISSION_DENIED"),
        Failure::Unauthenticated(_) => (Code::Unauthenticated, "UNAUTHENTICATED"),
        Failure::Authority(_) => (Code::FailedPrecondition, "AUTHORITY"),
        Failure::NoAuthority => (Code::FailedPrecondition, "NO_AUTHORITY"),
        Failure::PlainOnly => (Code::FailedPrecondition, "PLAIN_ONLY"),
        Failure::NotSigned(_) => (Code::Unavailable, "NOT_SIGNED"),
        Failure::ShuttingDown => (Code::Unavailable, Reason::ShuttingDown.as_str()),
        Failure::Internal(_) => (Code::Internal, "INTERNAL"),
    };
    with_reason(code, reason, failure.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_mistake_is_listed() {
        let status = invalid(&Invalid(vec![
            Violation::new("pool_id", "a/b", "must be a name"),
            Violation::new("pool.connect_timeout", "0s", "must be 10ms to 60s"),
        ]));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let fields: Vec<_> =
            details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["pool_id", "pool.connect_timeout"]);
        assert_eq!(details.error_info().unwrap().reason, "INVALID_VALUE");
    }

    #[test]
    fn what_holds_a_feature_back_is_named_for_programs_too() {
        let members = vec!["m2".to_owned(), "m3".to_owned()];
        let status = refusal(&Refusal::FeatureLevel { needed: 3, level: 1, members });
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["members"].as_str()), (FEATURE_LEVEL, "m2,m3"));
        assert_eq!(
            status.message(),
            "this needs feature level 3, and the cluster is at 1: members \"m2\", \"m3\" run programs that do not know it; upgrade \
             m2 and m3, then try again"
        );
    }

    #[test]
    fn a_stale_etag_aborts() {
        let moved = Refusal::Moved {
            kind: trestle_model::Kind::Pool,
            name: "web".to_owned(),
            expected: 3,
            actual: 7,
        };
        assert_eq!(refusal(&moved).code(), Code::Aborted);
    }
}
