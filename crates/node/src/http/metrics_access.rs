//! Who may fetch `/metrics`: it names pools, backends and addresses, which a stranger in the network need not know.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use trestle_identity::read_private;
use trestle_model::{Secret, TransportSecurity};

/// The scheme of the token (RFC 6750 section 2.1). Schemes have no case (RFC 9110 section 11.1).
const BEARER: &str = "bearer";

/// What a member's file says of it.
#[derive(Debug, Clone)]
pub(super) struct MetricsAccess {
    /// The file with the token, which is read anew for each request that shows one.
    pub(super) token_file: Option<PathBuf>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MetricsRefusal {
    /// There is no token for others than this machine.
    NoToken,
    /// It shows no token, or another one.
    WrongToken,
    /// The token cannot be read, for this reason.
    Unreadable(String),
}

impl IntoResponse for MetricsRefusal {
    fn into_response(self) -> Response {
        match self {
            Self::NoToken => (
                StatusCode::FORBIDDEN,
                "this cluster takes no plain connections, and /metrics is for this machine alone until its file names a \
                 metrics_token_file\n",
            )
                .into_response(),
            Self::WrongToken => (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, "Bearer")],
                "the token of metrics_token_file must be shown: Authorization: Bearer TOKEN\n",
            )
                .into_response(),
            Self::Unreadable(why) => {
                tracing::warn!("metrics_token_file cannot be used: {why}");
                (StatusCode::INTERNAL_SERVER_ERROR, "metrics_token_file cannot be used; this member's log says why\n")
                    .into_response()
            }
        }
    }
}

fn shown(headers: &HeaderMap) -> Option<Secret<String>> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| Secret::new(token.trim().to_owned()))
}

/// Whether two tokens are the same. It takes as long for any that differ: what is compared are hashes.
fn same(one: &Secret<String>, other: &Secret<String>) -> bool {
    let hash = |token: &Secret<String>| Sha256::digest(token.expose().as_bytes());
    hash(one) == hash(other)
}

impl MetricsAccess {
    fn token(&self, file: &std::path::Path) -> Result<Secret<String>, MetricsRefusal> {
        let in_words = |why: String| MetricsRefusal::Unreadable(format!("{}: {why}", file.display()));
        let text = read_private(file).map_err(|error| in_words(error.to_string()))?;
        let token = text.ok_or_else(|| in_words("there is no such file".to_owned()))?.trim().to_owned();
        if token.is_empty() { Err(in_words("it is empty".to_owned())) } else { Ok(Secret::new(token)) }
    }

    /// Whether a request from there may have them. One from this machine always may.
    pub(super) fn check(
        &self,
        from: Option<SocketAddr>,
        headers: &HeaderMap,
        transport: TransportSecurity,
    ) -> Result<(), MetricsRefusal> {
        if from.is_some_and(|from| from.ip().to_canonical().is_loopback()) {
            return Ok(());
        }
        let Some(file) = &self.token_file else {
            return match transport {
                TransportSecurity::Require => Err(MetricsRefusal::NoToken),
                TransportSecurity::Off | TransportSecurity::Accept => Ok(()),
            };
        };
        let shown = shown(headers).ok_or(MetricsRefusal::WrongToken)?;
        if same(&shown, &self.token(file)?) { Ok(()) } else { Err(MetricsRefusal::WrongToken) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bearer(value: &str) -> HeaderMap {
        [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn others_than_this_machine_need_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let access = MetricsAccess { token_file: Some(file.clone()) };
        let far = Some("10.0.0.9:4000".parse().unwrap());
        let near = ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"].map(|text| Some(text.parse().unwrap()));
        let ask = |from, headers: &HeaderMap| access.check(from, headers, TransportSecurity::Off);
        assert!(matches!(ask(far, &bearer("Bearer x")), Err(MetricsRefusal::Unreadable(_))));
        std::fs::write(&file, "s3cret\n").unwrap();
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
            assert_eq!(ask(far, &bearer(good)), Ok(()), "{good}");
        }
        for bad in ["Bearer s3cre", "Bearer s3cret2", "Bearer", "Basic s3cret", "s3cret", "Bearer "] {
            assert_eq!(ask(far, &bearer(bad)), Err(MetricsRefusal::WrongToken), "{bad}");
        }
        assert_eq!(ask(far, &HeaderMap::new()), Err(MetricsRefusal::WrongToken));
        assert_eq!(ask(None, &HeaderMap::new()), Err(MetricsRefusal::WrongToken));
        near.into_iter().for_each(|from| assert_eq!(ask(from, &HeaderMap::new()), Ok(()), "{from:?}"));
        // An empty token would let in whoever shows nothing.
        std::fs::write(&file, " \n").unwrap();
        assert!(matches!(ask(far, &bearer("Bearer ")), Err(MetricsRefusal::Unreadable(_))));
    }

    #[test]
    fn without_a_token_a_cluster_that_requires_tls_shows_them_to_this_machine_alone() {
        let access = MetricsAccess { token_file: None };
        let far = Some("10.0.0.9:4000".parse().unwrap());
        let ask = |from, transport| access.check(from, &HeaderMap::new(), transport);
        assert_eq!(ask(far, TransportSecurity::Require), Err(MetricsRefusal::NoToken));
        assert_eq!(ask(Some("127.0.0.2:1".parse().unwrap()), TransportSecurity::Require), Ok(()));
        for open in [TransportSecurity::Off, TransportSecurity::Accept] {
            assert_eq!(ask(far, open), Ok(()));
        }
    }
}
