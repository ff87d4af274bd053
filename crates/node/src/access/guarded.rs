//! Settings of health checks that only an admin changes: what a check sends as free text, and which files of the members it
//! reads.
//!
//! An operator may aim a check at any backend. Free text would let it speak any protocol to any host that a member reaches, in
//! the member's name; a file, send one host what another one trusts.

use trestle_model::{CheckKind, ClientIdentity, ClusterState, Document, ExchangeStep, TlsCheck};

/// A setting, as field masks name it, and its value.
#[derive(Debug, PartialEq, Eq)]
enum Guarded<'a> {
    Exchange(&'a [u8], &'a [u8], &'a [ExchangeStep]),
    Headers(&'a [(std::sync::Arc<str>, std::sync::Arc<str>)]),
    TokenFile(&'a str),
    Identity(&'a ClientIdentity),
}

impl Guarded<'_> {
    const fn field(&self) -> &'static str {
        match self {
            Self::Exchange(..) => "pool.health_check.exchange",
            Self::Headers(_) => "pool.health_check.http.headers",
            Self::TokenFile(_) => "pool.health_check.http.token_file",
            Self::Identity(_) => "pool.health_check.tls.client_certificate_file",
        }
    }
}

fn identity(tls: Option<&TlsCheck>) -> Option<Guarded<'_>> {
    tls?.identity.as_ref().map(Guarded::Identity)
}

/// The guarded settings of a check that are set.
fn guarded(check: &CheckKind) -> Vec<Guarded<'_>> {
    match check {
        CheckKind::Tcp | CheckKind::None => Vec::new(),
        CheckKind::Tls(tls) => identity(Some(tls)).into_iter().collect(),
        CheckKind::Grpc(grpc) => identity(grpc.tls.as_ref()).into_iter().collect(),
        CheckKind::Exchange(exchange) => {
            let text = Guarded::Exchange(&exchange.send, &exchange.expect, &exchange.then);
            [text].into_iter().chain(identity(exchange.tls.as_ref())).collect()
        }
        CheckKind::Http(http) => {
            let headers = Some(Guarded::Headers(&http.headers)).filter(|_| !http.headers.is_empty());
            let token = http.token_file.as_deref().map(Guarded::TokenFile);
            headers.into_iter().chain(token).chain(identity(http.tls.as_ref())).collect()
        }
    }
}

/// The guarded settings that a document would set, change or take away, as field masks name them.
pub(super) fn changed(document: &Document, state: &ClusterState) -> Vec<&'static str> {
    let Document::Pool(name, spec) = document else { return Vec::new() };
    let before = state.pools.get(name).map(|entry| guarded(&entry.pool.spec.health.kind));
    let (before, after) = (before.unwrap_or_default(), guarded(&spec.health.kind));
    let new = after.iter().filter(|setting| !before.contains(setting));
    let gone = before.iter().filter(|setting| !after.iter().any(|now| now.field() == setting.field()));
    new.chain(gone).map(Guarded::field).collect()
}
