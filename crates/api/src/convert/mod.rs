//! Conversions between the admin API's messages and the model. Parsing collects every mistake of a request before it
//! fails; rendering cannot fail.

mod backend;
mod check;
mod configuration;
mod connection;
mod field;
mod listener;
mod member;
mod name;
mod pool;
mod report;
mod vip;
mod watch;

pub use backend::{backend, create_backend, delete_backend, update_backend};
pub use configuration::{configuration, configuration_parts, merge_configuration, restore_configuration};
pub use connection::{
    CloseRequest, Closing, ConnectionFilter, connection_name, parse_close_connections, parse_close_gradually,
    parse_connection_filter,
};
pub use listener::{create_listener, delete_listener, listener, update_listener};
pub use member::{drain_member, enable_member, member, parse_add_member, update_member};
pub use name::{
    backend_name, listener_name, member_name, parse_backend_name, parse_listener_name, parse_member_name,
    parse_pool_name, parse_vip_name, pool_name, vip_name,
};
pub use pool::{create_pool, delete_pool, pool, update_pool};
pub use report::{cluster_event, connection, listener_view, member_status, member_view, vip_view};
pub use vip::{create_vip, delete_vip, time_of_millis, update_vip, vip, vip_event};
pub use watch::{current_event, event, resource_change};

use prost::Message;
use sha2::{Digest, Sha256};
use trestle_model::{Command, Invalid, Proposal, Request, RequestId, Revision, Violations};

/// A parsed write: what to propose, or only to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// What to propose.
    pub proposal: Proposal,
    /// True when the caller only wants to know what would happen.
    pub validate_only: bool,
}

impl Write {
    /// Recognises the write by `request`, where what was parsed is a copy of it in which names are resolved: the same
    /// request shall get the same answer whatever they stand for by then.
    #[must_use]
    pub fn recognised_by<R: Message + prost::Name>(mut self, request: &R) -> Self {
        if let Some(known) = &mut self.proposal.request {
            known.fingerprint = fingerprint(request);
        }
        self
    }
}

/// Renders a duration.
pub fn duration(duration: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        // Durations here are bounded by days or by a process's uptime.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Renders an etag: the revision in decimal, which callers treat as opaque.
fn etag(revision: Revision) -> String {
    revision.to_string()
}

/// Parses an etag; empty means any revision.
fn parse_etag(field: &str, etag: &str, v: &mut Violations) -> Option<Revision> {
    if etag.is_empty() {
        return None;
    }
    let parsed = etag.parse().map_err(|_| "must be an etag as an earlier answer gave it".to_owned());
    v.take(field, etag, parsed)
}

/// Finishes a write: the request's id, the fingerprint that recognises it, and all mistakes found so far.
fn finish<R: Message + prost::Name>(
    request: &R,
    request_id: &str,
    validate_only: bool,
    command: Option<Command>,
    mut v: Violations,
) -> Result<Write, Invalid> {
    let id = match request_id {
        "" => None,
        id => v.take("request_id", id, RequestId::parse(id)),
    };
    v.into_result()?;
    let Some(command) = command else {
        // Parsers give no command only together with a violation.
        return Err(Invalid(vec![trestle_model::Violation::new("request", "", "must be complete")]));
    };
    let request = id.map(|id| Request { id, fingerprint: fingerprint(request) });
    Ok(Write { proposal: Proposal { origin: None, request, command }, validate_only })
}

/// Recognises a request that comes again: the first 8 bytes of the SHA-256 of its type and content.
fn fingerprint<R: Message + prost::Name>(request: &R) -> u64 {
    let mut hash = Sha256::new();
    hash.update(R::full_name().as_bytes());
    hash.update(request.encode_to_vec());
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
