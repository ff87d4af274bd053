//! What comes first on a connection: the PROXY header of a proxy before this one, and the TLS ClientHello that routes go by.

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};
use trestle_engine::client_hello::{self, Hello};
use trestle_engine::proxy::{self, Header, Tlvs};
use trestle_model::{ListenerSpec, OnSilence};

use crate::observe::close_reason::CloseReason;
use crate::relay::socket::Socket;

/// Bytes that are read beyond those that are needed, so that one read mostly does.
const CHUNK: usize = 4096;

/// What was read of a connection before its backend was selected.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    /// The client's bytes, which are the backend's.
    pub(super) bytes: Vec<u8>,
    /// What a PROXY header said beside addresses.
    pub(super) tlvs: Tlvs,
    /// What the client dialled, if a PROXY header said so.
    pub(super) dialled: Option<SocketAddr>,
}

/// Reads the first bytes of a client, within the time that its listener sets.
pub(super) struct PreambleReader<'a> {
    client: &'a mut Socket,
    bytes: Vec<u8>,
    deadline: Instant,
    on_silence: OnSilence,
}

impl<'a> PreambleReader<'a> {
    pub(super) fn new(client: &'a mut Socket, spec: &ListenerSpec) -> Self {
        let deadline = Instant::now() + spec.first_bytes_timeout;
        Self { client, bytes: Vec::new(), deadline, on_silence: spec.on_silence }
    }

    /// The bytes after all that was asked for.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The PROXY header that the connection must begin with.
    ///
    /// # Errors
    /// `BadHeader` when it is missing, malformed or late; otherwise how the client went away.
    pub(super) async fn header(&mut self) -> Result<Header, CloseReason> {
        loop {
            match proxy::parse(&self.bytes) {
                Ok(proxy::ParsedHeader::Done { header, len }) => {
                    self.bytes.drain(..len);
                    return Ok(header);
                }
                Ok(proxy::ParsedHeader::Incomplete { need }) => {
                    self.read(need, CloseReason::BadHeader).await?
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was reset because of its PROXY header");
                    return Err(CloseReason::BadHeader);
                }
            }
        }
    }

    /// The ClientHello of a TLS client; `None` as soon as it is clear that the client speaks something else, or waits for the
    /// server to speak first.
    ///
    /// # Errors
    /// `BadHello` when it is malformed or late, or nothing comes and that is to be reset; otherwise how the client went away.
    pub(super) async fn hello(&mut self) -> Result<Option<Hello>, CloseReason> {
        loop {
            match client_hello::parse(&self.bytes) {
                Ok(client_hello::ParsedHello::Hello(hello)) => return Ok(Some(hello)),
                Ok(client_hello::ParsedHello::NotTls) => return Ok(None),
                Ok(client_hello::ParsedHello::Incomplete { need }) => {
                    match self.read(need, CloseReason::BadHello).await {
                        // The time is up without a byte.
                        Err(CloseReason::BadHello)
                            if self.bytes.is_empty() && self.on_silence == OnSilence::Pool =>
                        {
                            return Ok(None);
                        }
                        read => read?,
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was reset because of its hello");
                    return Err(CloseReason::BadHello);
                }
            }
        }
    }

    /// Reads until there are `need` bytes. `bad` is the reason when they are late, or the client ends in their middle.
    async fn read(&mut self, need: usize, bad: CloseReason) -> Result<(), CloseReason> {
        while self.bytes.len() < need {
            let had = self.bytes.len();
            self.bytes.resize(need.max(had + CHUNK), 0);
            let room = self.bytes.get_mut(had..).unwrap_or_default();
            let read = timeout_at(self.deadline, self.client.read(room)).await;
            let count = read.as_ref().ok().and_then(|read| read.as_ref().ok()).copied().unwrap_or(0);
            self.bytes.truncate(had + count);
            match read {
                Ok(Ok(0)) if had == 0 => return Err(CloseReason::ClientClosed),
                Ok(Ok(0)) | Err(_) => return Err(bad),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(CloseReason::ClientReset),
            }
            // One byte can show that no more of the same will come.
            if had == 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}
