//! Connections to other members for questions that are not Raft's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::Channel;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::transport::{ChannelOptions, KeepAlive, PeerDial, Transport};
use trestle_model::HostPort;

/// A connection that lived through a partition would stay dead without pings.
const OPTIONS: ChannelOptions = ChannelOptions {
    connect_timeout: Some(Duration::from_secs(1)),
    keep_alive: Some(KeepAlive {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(2),
        while_idle: false,
    }),
    window: None,
};

/// A report on 20 000 backends with their histories stays below this; gRPC's own bound is 4 MiB.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// One connection for each peer address, opened when it is first used and again when it broke.
#[derive(Debug)]
pub(crate) struct PeerClients {
    dial: Arc<dyn PeerDial>,
    /// Each with whether it was to be made by TLS.
    channels: Mutex<BTreeMap<HostPort, (Channel, bool)>>,
}

impl PeerClients {
    /// Connects as `dial` says.
    pub(crate) fn new(dial: Arc<dyn PeerDial>) -> Self {
        Self { dial, channels: Mutex::default() }
    }

    /// A channel to a peer address.
    ///
    /// # Errors
    /// When the address is no URI authority; addresses that were parsed are.
    pub(crate) fn channel(&self, address: &HostPort) -> Result<Channel, tonic::Status> {
        let secure = self.dial.is_secure(address.as_str());
        // Nothing between lock and unlock can leave the map half changed.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((channel, _)) = channels.get(address).filter(|(_, known)| *known == secure) {
            return Ok(channel.clone());
        }
        let dialer = Transport::member(self.dial.clone())
            .dialer(address.as_str(), &OPTIONS)
            .map_err(|error| tonic::Status::internal(format!("peer address {address}: {error}")))?;
        let channel = dialer.connect_lazy();
        channels.insert(address.clone(), (channel.clone(), secure));
        Ok(channel)
    }

    /// A client for a peer address.
    ///
    /// # Errors
    /// As [`PeerClients::channel`].
    pub(crate) fn peer(&self, address: &HostPort) -> Result<PeerServiceClient<Channel>, tonic::Status> {
        Ok(PeerServiceClient::new(self.channel(address)?).max_decoding_message_size(ANSWER_MAX))
    }

    /// Drops connections to addresses that no member has any longer.
    pub(crate) fn keep(&self, wanted: impl Fn(&HostPort) -> bool) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|address, _| wanted(address));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use trestle_api::transport::PlainDial;
    use trestle_api::{peer, unanswered};

    use super::*;

    /// The address of a server that does this with each connection.
    fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
        address
    }

    /// Reads what a client begins with, and says this.
    fn says(words: &'static [u8]) -> String {
        server(move |mut stream| {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(words);
            // Read to the end, so that closing resets nothing.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        })
    }

    async fn why(address: &str) -> String {
        let clients = PeerClients::new(Arc::new(PlainDial));
        let mut client = clients.peer(&HostPort::parse(address).unwrap()).unwrap();
        let asked = client.report(peer::ReportRequest::default());
        let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
        unanswered::why(&answer.unwrap().unwrap_err())
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_in_words() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(why(&closed).await, "connection refused: nothing listens there");
        assert!(why("nowhere.invalid:7481").await.starts_with("its name was not found: "));
        let other =
            "what answers there does not speak gRPC: it is another program's port, or an HTTP or TLS one";
        // An alert: an HTTP/2 preface is no ClientHello.
        assert_eq!(why(&says(&[0x15, 3, 3, 0, 2, 2, 10])).await, other);
        assert_eq!(why(&says(b"SSH-2.0-OpenSSH_9.2\r\n")).await, other);
        let http = why(&says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")).await;
        let closes = why(&server(drop)).await;
        assert!(closes.starts_with("the connection was closed from there: "), "{closes}");
        assert!(http == closes || http == other, "{http}");
        // Kept, and never read: as of a process that is stopped. The kernel accepts for it.
        let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = why(&frozen.local_addr().unwrap().to_string()).await;
        assert!(silent.starts_with("its connection has gone silent: the process is frozen"), "{silent}");
    }
}
