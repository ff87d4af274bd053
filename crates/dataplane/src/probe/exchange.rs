//! The send/expect check, for protocols that have none of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use trestle_model::ExchangeCheck;

use super::fault::{self, shown};
use super::plan::Limit;
use super::search::Search;
use super::tls::TlsPlan;
use crate::table::CheckResult;

/// What the backends of one pool are told, and what they shall answer.
#[derive(Debug)]
pub(super) struct ExchangePlan {
    tls: Option<TlsPlan>,
    send: Arc<[u8]>,
    expect: Arc<[u8]>,
}

impl ExchangePlan {
    /// Prepares checks.
    ///
    /// # Errors
    /// Why no handshake can be made with these settings.
    pub(super) fn new(check: &ExchangeCheck) -> Result<Self, String> {
        if check.expect.is_empty() {
            return Err("nothing is expected of the answer".to_owned());
        }
        let tls = check.tls.as_ref().map(|tls| TlsPlan::new(tls, &[])).transpose()?;
        Ok(Self { tls, send: check.send.clone(), expect: check.expect.clone() })
    }

    /// Sends, and reads until the answer is there.
    ///
    /// # Errors
    /// What is wrong with the backend.
    pub(super) async fn check(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        limit: Limit,
    ) -> Result<CheckResult, String> {
        match &self.tls {
            None => self.exchange(stream, limit).await,
            Some(tls) => {
                let stream = limit.bound("TLS", tls.handshake(stream, address)).await?;
                self.exchange(stream, limit).await
            }
        }
    }

    async fn exchange<S>(&self, mut stream: S, limit: Limit) -> Result<CheckResult, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let wanted = shown(&self.expect);
        let mut search = Search::new(&self.expect);
        // A backend that closes early may have said why; what is read tells more than that it cannot be written to.
        let sent = async { Ok(stream.write_all(&self.send).await.is_ok() && stream.flush().await.is_ok()) };
        limit.bound("sending", sent).await?;
        let mut chunk = [0; 2048];
        let ending = loop {
            let read = limit.reach(stream.read(&mut chunk)).await;
            let data = match &read {
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
            match search.feed(data) {
                None => {}
                Some(true) => return Ok(CheckResult::Expected),
                Some(false) => break String::new(),
            }
        };
        Err(match search.seen() {
            [] => format!("{ending}, wanted {wanted}"),
            seen => format!("answer does not contain {wanted} (got {})", shown(seen.trim_ascii_end())),
        })
    }
}
