//! The gRPC check: one call of `grpc.health.v1.Health/Check`, over TLS if the check says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use h2::client::SendRequest;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::{Method, Request, StatusCode};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use trestle_model::GrpcCheck;

use super::check_error::CheckError;
use super::fault::{self, shown};
use super::limit::CheckDeadline;
use super::refusal::RefusalNote;
use super::stream::{self, CheckStream};
use super::target::{CheckTarget, named_by_host};
use super::tls::TlsPlan;
use crate::observe::check_result::CheckResult;

/// Most bytes that are read of an answer. A usual one has 7.
const ANSWER_MAX: usize = 4096;

/// How long closing the connection in order may take.
const GOODBYE: Duration = Duration::from_millis(50);

/// The prefix of a message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// The messages of the gRPC health checking protocol, grpc/health/v1/health.proto.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// How the backends of one pool are asked over gRPC.
#[derive(Debug)]
pub(super) struct GrpcPlan {
    tls: Option<TlsPlan>,
    /// The authority of requests; `None` for the backend's own name or address.
    authority: Option<Authority>,
    service: Option<Arc<str>>,
    /// The message that is sent, with its prefix.
    question: Bytes,
}

impl GrpcPlan {
    /// Prepares calls.
    ///
    /// # Errors
    /// Why no call can be made with these settings.
    pub(super) fn new(check: &GrpcCheck, directory: &Arc<Path>) -> Result<Self, String> {
        let name = check.authority.as_deref().and_then(named_by_host);
        let tls = check.tls.as_ref().map(|tls| TlsPlan::new(tls, name, &[b"h2"], directory)).transpose()?;
        let server_name = check.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let authority = match &check.authority {
            Some(authority) => Some(
                authority
                    .parse()
                    .map_err(|_| format!("gRPC: authority {authority:?} is not a host name or address"))?,
            ),
            None => server_name.and_then(|name| name.parse().ok()),
        };
        let service = check.service.as_deref().unwrap_or_default().to_owned();
        let message = HealthCheckRequest { service }.encode_to_vec();
        let length = u32::try_from(message.len()).map_err(|_| "gRPC: the service's name is too long")?;
        let question = [&[0], &length.to_be_bytes()[..], &message].concat().into();
        Ok(Self { tls, authority, service: check.service.clone(), question })
    }

    /// Makes the call and judges the answer.
    ///
    /// # Errors
    /// What is wrong with the backend, or what this member lacks.
    pub(super) async fn check(
        &self,
        stream: &mut CheckStream,
        target: &CheckTarget,
        limit: CheckDeadline,
    ) -> Result<CheckResult, CheckError> {
        match &self.tls {
            None => Ok(limit.bound("gRPC", Box::pin(self.call(stream, target))).await?),
            Some(tls) => {
                let mut stream = limit.bound("TLS", tls.handshake(stream, target)).await?;
                let result = limit.bound("gRPC", Box::pin(self.call(&mut stream, target))).await;
                stream::finish(&mut stream).await;
                Ok(result?)
            }
        }
    }

    async fn call<S>(&self, stream: &mut S, target: &CheckTarget) -> Result<CheckResult, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (stream, refusal) = RefusalNote::new(stream);
        let result = self.converse(stream, target).await;
        result.map_err(|why| refusal.get().cloned().unwrap_or(why))
    }

    async fn converse<S>(&self, stream: S, target: &CheckTarget) -> Result<CheckResult, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut settings = h2::client::Builder::new();
        // Pushed responses cost memory (RFC 9113 §8.4). A server that pushes all the same breaks the protocol.
        settings.enable_push(false).max_header_list_size(16 * 1024);
        let opened = settings.handshake(stream).await;
        let (sender, connection) = opened.map_err(|error| fault::http2(&error))?;
        let answer = self.ask(sender, target);
        tokio::pin!(connection, answer);
        // Both run in this task, so that nothing remains of a check that is given up.
        tokio::select! {
            biased;
            answer = &mut answer => {
                // The call is over, so this sends GOAWAY and finishes sending.
                let _ = timeout(GOODBYE, &mut connection).await;
                answer
            }
            // The end of the connection is the cause of what the call reports.
            ended = &mut connection => match ended {
                Err(error) => Err(fault::http2(&error)),
                Ok(()) => answer.await,
            },
        }
    }

    fn request(&self, target: &CheckTarget) -> Result<Request<()>, String> {
        let wrong = |error: hyper::http::Error| format!("gRPC: no request can be made: {error}");
        let scheme = if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder()
            .scheme(scheme)
            .path_and_query(PathAndQuery::from_static("/grpc.health.v1.Health/Check"));
        let uri = match &self.authority {
            Some(name) => uri.authority(name.clone()),
            None => uri.authority(target.authority(self.tls.is_some())),
        };
        Request::builder()
            .method(Method::POST)
            .uri(uri.build().map_err(wrong)?)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(TE, HeaderValue::from_static("trailers"))
            .header(USER_AGENT, HeaderValue::from_static("trestle-check"))
            .body(())
            .map_err(wrong)
    }

    async fn ask(&self, sender: SendRequest<Bytes>, target: &CheckTarget) -> Result<CheckResult, String> {
        let request = self.request(target)?;
        let broken = |error: h2::Error| fault::http2(&error);
        let mut sender = sender.ready().await.map_err(broken)?;
        let (answer, mut body) = sender.send_request(request, false).map_err(broken)?;
        // A server may answer and end the call before it has read the request.
        let _ = body.send_data(self.question.clone(), true);
        let (head, mut body) = answer.await.map_err(broken)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("gRPC: HTTP {}, wanted 200", head.status.as_u16()));
        }
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            if message.len() + data.len() > ANSWER_MAX {
                return Err(format!("gRPC: the answer has over {ANSWER_MAX} bytes"));
            }
            message.extend_from_slice(&data);
            // This fails only when the connection is gone, and the next read says so.
            let _ = body.flow_control().release_capacity(data.len());
        }
        // A call that fails at once has its trailers in the head.
        let trailers = match head.headers.contains_key("grpc-status") {
            true => head.headers,
            false => body.trailers().await.map_err(broken)?.unwrap_or_default(),
        };
        self.judge(&trailers, &message)
    }

    fn judge(&self, trailers: &HeaderMap, message: &[u8]) -> Result<CheckResult, String> {
        let code = trailers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
        match (code, &self.service) {
            (Some(0), service) => match (serving(message)?, service) {
                (ServingStatus::Serving, _) => Ok(CheckResult::Serving),
                (ServingStatus::NotServing, _) => Err("gRPC: NOT_SERVING, wanted SERVING".to_owned()),
                (ServingStatus::ServiceUnknown, Some(service)) => Err(unknown(service)),
                _ => Err("gRPC: UNKNOWN, wanted SERVING".to_owned()),
            },
            (Some(5), Some(service)) => Err(unknown(service)),
            (Some(code), _) => {
                let name = STATUSES.get(code).map_or_else(|| code.to_string(), |name| (*name).to_owned());
                let said = trailers.get("grpc-message").map(|said| format!(": {}", shown(said.as_bytes())));
                Err(format!("gRPC: status {name}{}", said.unwrap_or_default()))
            }
            (None, _) => Err("gRPC: the answer is not gRPC".to_owned()),
        }
    }
}

/// Names of the statuses, by number (gRPC, "Status codes and their use in gRPC").
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn unknown(service: &str) -> String {
    format!("gRPC: service {service:?} is unknown")
}

fn serving(message: &[u8]) -> Result<ServingStatus, String> {
    let wrong = || "gRPC: the answer cannot be read".to_owned();
    let (prefix, message) = message.split_at_checked(PREFIX).ok_or_else(wrong)?;
    let length = u32::try_from(message.len()).map_err(|_| wrong())?;
    // The request names no compression, so the answer may not be compressed.
    if prefix != [&[0], &length.to_be_bytes()[..]].concat() {
        return Err(wrong());
    }
    Ok(HealthCheckResponse::decode(message).map_err(|_| wrong())?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(ServingStatus::Serving));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Ok(ServingStatus::NotServing));
        // A field with its default value is left out, and unknown fields are skipped.
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Ok(ServingStatus::Unknown));
        assert_eq!(serving(&[0, 0, 0, 0, 4, 16, 7, 8, 1]), Ok(ServingStatus::Serving));
        for wrong in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 3, 8, 1], &[0, 0, 0, 0, 1, 8]]
        {
            assert!(serving(wrong).is_err(), "{wrong:?}");
        }
    }
}
