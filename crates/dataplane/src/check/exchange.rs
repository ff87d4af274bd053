//! The send/expect check, for protocols that have none of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use trestle_model::{ExchangeCheck, ExchangeStep};

use super::check_error::CheckError;
use super::fault::{self, shown};
use super::limit::CheckDeadline;
use super::search::Search;
use super::stream::{self, CheckStream};
use super::target::CheckTarget;
use super::tls::TlsPlan;
use crate::observe::check_result::CheckResult;

/// How long the check waits for a server that may speak first, at most a quarter of the check's time. An SMTP server logs a
/// client that speaks before its greeting as a spammer. A server that waits for its client is asked this much later.
const GREETING: Duration = Duration::from_millis(100);

/// What the backends of one pool are sent, and what they must answer.
#[derive(Debug)]
pub(super) struct ExchangePlan {
    tls: Option<TlsPlan>,
    /// At least one.
    steps: Vec<ExchangeStep>,
}

impl ExchangePlan {
    /// Prepares checks.
    ///
    /// # Errors
    /// Why no handshake can be made with these settings.
    pub(super) fn new(check: &ExchangeCheck, directory: &Arc<Path>) -> Result<Self, String> {
        let first = ExchangeStep { send: check.send.clone(), expect: check.expect.clone() };
        let steps: Vec<_> = std::iter::once(first).chain(check.then.iter().cloned()).collect();
        if steps.iter().any(|step| step.expect.is_empty()) {
            return Err("nothing is expected of the answer".to_owned());
        }
        let tls = check.tls.as_ref().map(|tls| TlsPlan::new(tls, None, &[], directory)).transpose()?;
        Ok(Self { tls, steps })
    }

    /// Does one step after the other: sends, and reads until the expected answer has come.
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
            None => Ok(self.exchange(stream, limit).await?),
            Some(tls) => {
                let mut stream = limit.bound("TLS", tls.handshake(stream, target)).await?;
                let result = self.exchange(&mut stream, limit).await;
                stream::finish(&mut stream).await;
                Ok(result?)
            }
        }
    }

    async fn exchange<S>(&self, stream: &mut S, limit: CheckDeadline) -> Result<CheckResult, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let speaks = self.steps.first().is_some_and(|first| !first.send.is_empty());
        let mut come = if speaks { greeting(stream, limit).await } else { Vec::new() };
        for step in &self.steps {
            // A backend that closes early may have said why. What can be read tells more than the failed write.
            let sent = async {
                Ok::<_, String>(stream.write_all(&step.send).await.is_ok() && stream.flush().await.is_ok())
            };
            limit.bound("sending", sent).await?;
            come = expect(stream, limit, come, &step.expect).await?;
        }
        Ok(CheckResult::Expected)
    }
}

/// Reads what the server says by itself within a moment.
async fn greeting(stream: &mut (impl AsyncRead + Unpin), limit: CheckDeadline) -> Vec<u8> {
    let mut greeting = Vec::with_capacity(1024);
    let read = timeout(GREETING.min(limit.length() / 4), stream.read_buf(&mut greeting));
    // Reading the answer finds the end and every error again.
    let _ = limit.reach(read).await;
    greeting
}

/// Looks for `wanted` in what has `come` and in what comes next. Returns what follows it.
async fn expect(
    stream: &mut (impl AsyncRead + Unpin),
    limit: CheckDeadline,
    come: Vec<u8>,
    wanted: &[u8],
) -> Result<Vec<u8>, String> {
    let mut search = Search::new(wanted);
    let mut chunk = [0; 2048];
    let mut data = come.as_slice();
    let ending = loop {
        match search.feed(data) {
            None => {}
            Some(true) => return Ok(search.rest().to_vec()),
            Some(false) => break String::new(),
        }
        let read = limit.reach(stream.read(&mut chunk)).await;
        data = match &read {
            None => break limit.exceeded("no answer"),
            Some(Ok(0)) => break "connection closed without an answer".to_owned(),
            Some(Ok(read)) => chunk.get(..*read).unwrap_or_default(),
            Some(Err(error)) => {
                if let Some(words) = fault::refused(error) {
                    return Err(words);
                }
                break "connection reset without an answer".to_owned();
            }
        };
    };
    let wanted = shown(wanted);
    // The error does not show what came instead: nobody may use a check to read what some host answers.
    Err(match search.seen().len() {
        0 => format!("{ending}, wanted {wanted}"),
        seen => format!("answer does not contain {wanted} ({seen} bytes came)"),
    })
}
