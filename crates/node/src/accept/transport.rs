//! What lies between an accepted socket and the protocol above it: nothing today. TLS and the identity of its client belong here,
//! where the deadlines of the port hold already. The calling side's is `trestle_api::transport`.

use super::MonitoredIo;

/// What the connections of a port begin with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerTransport {
    /// The protocol itself, without encryption.
    Plain,
}

impl ServerTransport {
    /// Makes the stream that the protocol is spoken on.
    ///
    /// # Errors
    /// In the words of the log, what the client did wrong.
    #[expect(clippy::unused_async, reason = "a handshake waits for the client")]
    pub(crate) async fn establish<Io>(self, io: MonitoredIo<Io>) -> Result<MonitoredIo<Io>, &'static str> {
        match self {
            Self::Plain => Ok(io),
        }
    }
}
