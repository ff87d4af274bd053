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

/// How long a server that may speak first has for that before the check speaks, a quarter of the check's time at most. Who
/// speaks before an SMTP server's greeting is logged as a spammer would be; a server that waits for its client is asked
/// this much later.
const GREETING: Duration = Duration::from_millis(100);

/// What the backends of one pool are told, and what they shall answer.
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

    /// Sends, and reads until the answer is there, step by step.
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
            // A backend that closes early may have said why; what is read tells more than that it cannot be written to.
            let sent = async {
                Ok::<_, String>(stream.write_all(&step.send).await.is_ok() && stream.flush().await.is_ok())
            };
            limit.bound("sending", sent).await?;
            come = expect(stream, limit, come, &step.expect).await?;
        }
        Ok(CheckResult::Expected)
    }
}

/// What the server says by itself within a moment.
async fn greeting(stream: &mut (impl AsyncRead + Unpin), limit: CheckDeadline) -> Vec<u8> {
    let mut greeting = Vec::with_capacity(1024);
    let read = timeout(GREETING.min(limit.length() / 4), stream.read_buf(&mut greeting));
    // The end and every error are found again when the answer is read.
    let _ = limit.reach(read).await;
    greeting
}

/// Looks for `wanted` in what has `come` and comes; returns what came after it.
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
    // Not what came instead: a check must be no way to read what any host answers.
    Err(match search.seen().len() {
        0 => format!("{ending}, wanted {wanted}"),
        seen => format!("answer does not contain {wanted} ({seen} bytes came)"),
    })
}
