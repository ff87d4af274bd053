//! The HTTP check: one request, over TLS if the check says so, and a judgement of the answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::ext::on_informational;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use trestle_model::{HttpCheck, Secret, StatusRange};

use super::check_error::CheckError;
use super::fault;
use super::files::FromFiles;
use super::limit::CheckDeadline;
use super::search::Search;
use super::stream::{self, AskFirst, CheckStream};
use super::target::{CheckTarget, named_by_host};
use super::tls::TlsPlan;
use crate::observe::check_result::CheckResult;

/// Most bytes that the head of an answer may have.
const HEAD_MAX: usize = 16 * 1024;

/// Most interim answers (1xx) before the final one. A server sends one or two: 100 or 103.
const INTERIM_MAX: usize = 8;

/// How the backends of one pool are asked over HTTP.
#[derive(Debug)]
pub(super) struct HttpPlan {
    tls: Option<TlsPlan>,
    /// The request. It has no Host field where Host is the backend's own name or address.
    request: Request<Empty<Bytes>>,
    /// Value of the Authorization field.
    token: Option<FromFiles<HeaderValue>>,
    expect: Vec<StatusRange>,
    body_contains: Option<Arc<str>>,
}

impl HttpPlan {
    /// Prepares requests.
    ///
    /// # Errors
    /// Why no request can be made with these settings.
    pub(super) fn new(check: &HttpCheck, directory: &Arc<Path>) -> Result<Self, String> {
        let tls = match &check.tls {
            None => None,
            Some(tls) => {
                let name = check.host.as_deref().and_then(named_by_host);
                Some(TlsPlan::new(tls, name, &[b"http/1.1"], directory)?)
            }
        };
        let mut request =
            Request::builder().method(check.method.as_str()).uri(&*check.path).header(CONNECTION, "close");
        if let Some(host) = &check.host {
            request = request.header(HOST, &**host);
        }
        for (name, value) in &check.headers {
            request = request.header(&**name, &**value);
        }
        let mut request = request
            .body(Empty::new())
            .map_err(|error| format!("HTTP: no request can be made with path {:?}: {error}", check.path))?;
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static("trestle-check"));
        // Any body contains the empty text.
        let body_contains = check.body_contains.clone().filter(|text| !text.is_empty());
        let token = check.token_file.as_ref().map(|file| {
            FromFiles::new([(TOKEN, file.clone())], directory.clone(), |contents| {
                contents.first().ok_or_else(String::new).and_then(authorization)
            })
        });
        Ok(Self { tls, request, token, expect: check.expect.clone(), body_contains })
    }

    /// Sends the request and judges the answer.
    ///
    /// # Errors
    /// What is wrong with the backend, or what this member lacks.
    pub(super) async fn check(
        &self,
        stream: &mut CheckStream,
        target: &CheckTarget,
        limit: CheckDeadline,
    ) -> Result<CheckResult, CheckError> {
        let status = match &self.tls {
            None => {
                let status = limit.bound("HTTP", self.exchange(&mut *stream, target)).await;
                stream::await_close(stream).await;
                status
            }
            Some(tls) => {
                let mut stream = limit.bound("TLS", tls.handshake(stream, target)).await?;
                let status = limit.bound("HTTP", self.exchange(&mut stream, target)).await;
                stream::await_close(&mut stream).await;
                stream::finish(&mut stream).await;
                status
            }
        };
        status.map(CheckResult::Answered)
    }

    /// Sends the request on `stream` and judges the answer. Redirects are not followed.
    async fn exchange<S>(&self, stream: &mut S, target: &CheckTarget) -> Result<u16, CheckError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut settings = http1::Builder::new();
        settings.max_buf_size(HEAD_MAX);
        let interim = Arc::new(AtomicUsize::new(0));
        let timed = interim.clone();
        let stream = AskFirst::new(stream, move || timed.load(Ordering::Relaxed) <= INTERIM_MAX);
        let (sender, connection) =
            settings.handshake(TokioIo::new(stream)).await.map_err(|error| fault::http(&error))?;
        let answer = self.ask(sender, target, interim.clone());
        tokio::pin!(connection, answer);
        // Both run in this task, so that nothing remains of a check that is given up.
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The errors of the connection come with the answer.
            _ = &mut connection => answer.await,
        };
        match interim.load(Ordering::Relaxed) {
            0..=INTERIM_MAX => answer,
            _ => Err(format!("HTTP: sent more than {INTERIM_MAX} interim answers (1xx)").into()),
        }
    }

    /// Sends the request, and counts the interim answers before the final one.
    async fn ask(
        &self,
        mut sender: SendRequest<Empty<Bytes>>,
        target: &CheckTarget,
        interim: Arc<AtomicUsize>,
    ) -> Result<u16, CheckError> {
        let mut request = self.request.clone();
        on_informational(&mut request, move |_| {
            interim.fetch_add(1, Ordering::Relaxed);
        });
        if let (false, Ok(host)) = (
            request.headers().contains_key(HOST),
            HeaderValue::try_from(target.authority(self.tls.is_some())),
        ) {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.get().await?);
        }
        let answer = sender.send_request(request).await.map_err(|error| fault::http(&error))?;
        let status = answer.status().as_u16();
        if !self.expect.iter().any(|range| range.contains(status)) {
            let wanted: Vec<String> = self.expect.iter().map(ToString::to_string).collect();
            return Err(format!("HTTP {status}, wanted {}", wanted.join(", ")).into());
        }
        match &self.body_contains {
            Some(text) if !contains(answer.into_body(), text.as_bytes()).await? => {
                Err(format!("HTTP {status}, body does not contain {text:?}").into())
            }
            _ => Ok(status),
        }
    }
}

const TOKEN: &str = "HTTP: token";

/// The Authorization field made from a file: a token (RFC 6750 §2.1), or a scheme and credentials (RFC 9110 §11.4).
fn authorization(contents: &Secret<Vec<u8>>) -> Result<HeaderValue, String> {
    let text = contents.expose().trim_ascii();
    let wrong =
        || format!("{TOKEN}: the file must hold one line of printable ASCII, a token or SCHEME CREDENTIALS");
    if text.is_empty() || !text.iter().all(|b| (0x20..0x7f).contains(b)) {
        return Err(wrong());
    }
    let scheme: &[u8] = if text.contains(&b' ') { b"" } else { b"Bearer " };
    let mut value = HeaderValue::from_bytes(&[scheme, text].concat()).map_err(|_| wrong())?;
    // Marked as sensitive, so that hyper and http do not print it.
    value.set_sensitive(true);
    Ok(value)
}

/// Whether the searched part of a body contains `text`. Reads no further than needed.
async fn contains(mut body: Incoming, text: &[u8]) -> Result<bool, String> {
    let mut search = Search::new(text);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| fault::http(&error))?;
        if let Some(found) = frame.data_ref().and_then(|data| search.feed(data)) {
            return Ok(found);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod fuzz;
