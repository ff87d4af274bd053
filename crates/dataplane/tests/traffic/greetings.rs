//! PROXY headers and TLS hellos: what comes first on a connection, and where it leads.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use trestle_dataplane::{CloseReason, ConnectionState};
use trestle_engine::proxy::{self, ParsedHeader, Tlvs};
use trestle_model::{Cidr, NamePattern, OnSilence, PoolSpec, Route, SendProxy};

use crate::harness::*;
use crate::patch::{ListenerPatch, PoolPatch};

/// The hello that a client sends for this name and these protocols.
fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn network(text: &str) -> Vec<Cidr> {
    vec![Cidr::parse(text).unwrap()]
}

fn route(names: &[&str], alpn: &[&str], pool: &str) -> Route {
    Route {
        server_names: names.iter().map(|name| NamePattern::parse(name).unwrap()).collect(),
        alpn: alpn.iter().map(|name| Arc::from(*name)).collect(),
        pool: pool_name(pool),
    }
}

/// Says `words` after connecting, and returns the name of the server that was reached and as many bytes that it sent
/// back as it was sent of `echoed`.
async fn say(front: SocketAddr, words: &[&[u8]], echoed: &[u8]) -> std::io::Result<String> {
    soon("an answer", async {
        let mut stream = TcpStream::connect(front).await?;
        stream.set_nodelay(true)?;
        for word in words {
            stream.write_all(word).await?;
        }
        let mut name = [0];
        stream.read_exact(&mut name).await?;
        let mut back = vec![0; echoed.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, echoed);
        stream.shutdown().await?;
        assert_eq!(stream.read(&mut [0]).await?, 0);
        Ok(char::from(name[0]).to_string())
    })
    .await
}

/// A plane with the servers a, b, and c, each in a pool of its own name, and the listener l to c.
async fn three() -> (Plane, [Server; 3], SocketAddr) {
    let servers = [Server::start("a").await, Server::start("b").await, Server::start("c").await];
    let mut plane = Plane::start();
    for (name, server) in ["a", "b", "c"].into_iter().zip(&servers) {
        plane.pool(name, unchecked(), &[(name, at(server.address))]).await;
    }
    let front = plane.listener("l", "c").await;
    (plane, servers, front)
}

async fn with_routes() -> (Plane, [Server; 3], SocketAddr) {
    let (mut plane, servers, front) = three().await;
    let routes = vec![route(&["*.example.com"], &[], "a"), route(&["api.example.com"], &["h2"], "b")];
    plane.update_listener("l", ListenerPatch { routes: Some(routes), ..ListenerPatch::default() }).await;
    (plane, servers, front)
}

#[tokio::test]
async fn tls_goes_where_its_name_and_protocol_lead() {
    let (plane, _servers, front) = with_routes().await;
    for (name, alpn, server) in [
        ("www.example.com", &["h2"][..], "a"),
        ("API.example.com", &["http/1.1", "h2"], "b"),
        ("api.example.com", &[], "a"),
        ("a.b.example.com", &["h2"], "c"),
        ("192.0.2.1", &["h2"], "c"),
    ] {
        let hello = hello(name, alpn);
        assert_eq!(say(front, &[&hello], &hello).await.unwrap(), server, "{name} {alpn:?}");
        // With data right behind it.
        let more = [&hello[..], b"more"].concat();
        assert_eq!(say(front, &[&more], &more).await.unwrap(), server, "{name} {alpn:?}");
    }
    plane.until_closed("l", CloseReason::ClientClosed, 10).await;
    let counts = plane.listener_counts("l");
    assert!(counts.bytes_in > 0 && counts.bytes_out == counts.bytes_in + 10, "{counts:?}");
}

#[tokio::test]
async fn a_hello_in_single_bytes_is_read_and_its_name_is_listed() {
    let (plane, _servers, front) = with_routes().await;
    let hello = hello("www.example.com", &["h2"]);
    let mut stream = TcpStream::connect(front).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in &hello[..hello.len() - 1] {
        stream.write_all(&[*byte]).await.unwrap();
    }
    until("it is listed", || !plane.plane.connections().is_empty()).await;
    let listed = &plane.plane.connections()[0];
    assert_eq!((listed.state, &listed.pool), (ConnectionState::Opening, &None), "not led anywhere yet");
    stream.write_all(&hello[hello.len() - 1..]).await.unwrap();
    let mut name = [0];
    soon("the server's name", stream.read_exact(&mut name)).await.unwrap();
    assert_eq!(&name, b"a");
    let listed = &plane.plane.connections()[0];
    assert_eq!(listed.server_name.as_deref(), Some("www.example.com"));
    assert_eq!(listed.pool, Some(pool_name("a")));
}

#[tokio::test]
async fn what_is_not_tls_goes_to_the_listeners_pool_at_once() {
    let (_plane, _servers, front) = with_routes().await;
    for words in [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", &[0], &[0x16, 2, 0, 0, 0]] {
        assert_eq!(say(front, &[words], words).await.unwrap(), "c", "{words:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_host_name_goes_to_the_listeners_pool() {
    let (plane, _servers, front) = with_routes().await;
    for name in ["[::1]", "www.example.com:443", "*.example.com", "münchen.example"] {
        // A client that is careful sends no such name, so it takes the place of one as long.
        let placeholder = "a".repeat(name.len());
        let mut hello = hello(&placeholder, &[]);
        let at = hello.windows(name.len()).position(|bytes| bytes == placeholder.as_bytes()).unwrap();
        hello[at..at + name.len()].copy_from_slice(name.as_bytes());
        let mut stream = TcpStream::connect(front).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut server = [0];
        soon("a name", stream.read_exact(&mut server)).await.unwrap();
        assert_eq!(&server, b"c", "{name}");
        let listed = plane.plane.connections();
        assert!(
            listed.iter().any(|c| c.server_name.as_deref() == Some(name)),
            "{name} is not named: {listed:?}"
        );
    }
}

#[tokio::test]
async fn hellos_that_are_broken_or_late_are_reset() {
    let (plane, _servers, front) = with_routes().await;
    // A handshake message that is no hello, and an alert in its middle.
    for words in [&[0x16, 3, 1, 0, 4, 2, 0, 0, 0][..], &[0x16, 3, 1, 0, 2, 1, 0, 0x15, 3, 1, 0, 2, 1, 0]] {
        let error = say(front, &[words], &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{words:?}");
    }
    plane.until_closed("l", CloseReason::BadHello, 2).await;
    let hello = hello("www.example.com", &[]);
    // Cut by its end.
    let mut cut = TcpStream::connect(front).await.unwrap();
    cut.write_all(&hello[..100]).await.unwrap();
    cut.shutdown().await.unwrap();
    plane.until_closed("l", CloseReason::BadHello, 3).await;
    // Nothing at all but an end, as a check by connecting does.
    drop(TcpStream::connect(front).await.unwrap());
    plane.until_closed("l", CloseReason::ClientClosed, 1).await;
    // Late: one that says nothing, and one that stops in the middle.
    let silent = TcpStream::connect(front).await.unwrap();
    let mut slow = TcpStream::connect(front).await.unwrap();
    slow.write_all(&hello[..100]).await.unwrap();
    plane.until_closed("l", CloseReason::BadHello, 5).await;
    for stream in [silent, slow] {
        let mut client = Client { stream, server: String::new() };
        assert_eq!(client.end().await, Some(ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_reset_or_hears_the_server_of_the_listeners_pool() {
    let (mut plane, _servers, front) = with_routes().await;
    let short = || ListenerPatch {
        first_bytes_timeout: Some(Duration::from_millis(200)),
        ..ListenerPatch::default()
    };
    plane.update_listener("l", short()).await;
    let end = async |stream| Client { stream, server: String::new() }.end().await;
    let silent = TcpStream::connect(front).await.unwrap();
    let before_default = tokio::time::timeout(trestle_model::defaults::FIRST_BYTES_TIMEOUT, end(silent));
    assert_eq!(before_default.await, Ok(Some(ErrorKind::ConnectionReset)));
    plane.until_closed("l", CloseReason::BadHello, 1).await;

    plane.update_listener("l", ListenerPatch { on_silence: Some(OnSilence::Pool), ..short() }).await;
    // The server speaks first, and the client after it.
    let mut client = Client::connect(front).await.unwrap();
    assert_eq!(client.server, "c");
    assert!(client.works().await);
    let hello = hello("www.example.com", &[]);
    assert_eq!(say(front, &[&hello], &hello).await.unwrap(), "a");
    let mut slow = TcpStream::connect(front).await.unwrap();
    slow.write_all(&hello[..100]).await.unwrap();
    assert_eq!(end(slow).await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::BadHello, 2).await;

    // A header that must come is not replaced by silence.
    let behind = ListenerPatch { accept_proxy_from: Some(network("0.0.0.0/0")), ..short() };
    plane.update_listener("l", behind).await;
    let silent = TcpStream::connect(front).await.unwrap();
    assert_eq!(end(silent).await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::BadHeader, 1).await;
    let mut proxy = TcpStream::connect(front).await.unwrap();
    proxy.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    let mut name = [0];
    soon("the server's name", proxy.read_exact(&mut name)).await.unwrap();
    assert_eq!(&name, b"c");
}

/// A server that reads a PROXY header, and says the client's address, what it dialled, and what follows.
async fn telling() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<(proxy::Header, Vec<u8>)>) {
    let listener = TcpListener::bind((ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            let ParsedHeader::Done { header, len } = proxy::parse(&bytes).unwrap() else {
                panic!("{bytes:?}")
            };
            tell.send((header, bytes[len..].to_vec())).unwrap();
        }
    });
    (address, told)
}

#[tokio::test]
async fn backends_are_told_the_clients_address() {
    let (address, mut told) = telling().await;
    let mut plane = Plane::start();
    plane.pool("p", unchecked(), &[("a", at(address))]).await;
    let front = plane.listener("l", "p").await;
    for (n, version) in
        [(SendProxy::V1, proxy::Version::V1), (SendProxy::V2, proxy::Version::V2)].iter().enumerate()
    {
        let patch = PoolPatch { send_proxy: Some(version.0), ..PoolPatch::default() };
        plane.update_pool("p", patch).await;
        let mut client = TcpStream::connect(front).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let (header, rest) = soon("a header", told.recv()).await.unwrap();
        assert_eq!((header.version, &rest[..]), (version.1, &b"hello"[..]));
        let addresses = header.addresses.unwrap();
        assert_eq!((addresses.source, addresses.destination), (client.local_addr().unwrap(), front));
        plane.until_closed("l", CloseReason::ClientClosed, n as u64 + 1).await;
        assert_eq!(plane.listener_counts("l").bytes_in, 5 * (n as u64 + 1), "the header is not the client's");
    }
}

#[tokio::test]
async fn a_header_reaches_a_backend_whose_client_says_nothing() {
    let listener = TcpListener::bind((ip(), 0)).await.unwrap();
    let mut plane = Plane::start();
    let spec = PoolSpec { send_proxy: SendProxy::V1, ..unchecked() };
    plane.pool("p", spec, &[("a", at(listener.local_addr().unwrap()))]).await;
    let front = plane.listener("l", "p").await;
    let client = TcpStream::connect(front).await.unwrap();
    let (mut backend, _) = soon("a connection", listener.accept()).await.unwrap();
    let expected = proxy::format_v1(client.local_addr().unwrap(), front);
    let mut header = vec![0; expected.len()];
    soon("a header", backend.read_exact(&mut header)).await.unwrap();
    assert_eq!(header, expected);
}

const SOURCE: &str = "203.0.113.7:1234";
const DIALLED: &str = "192.0.2.1:443";

/// The TLVs of an authority (0x02) and one of the range for experiments.
fn tlvs() -> Tlvs {
    Tlvs::parse(&[2, 0, 3, b'a', b'.', b'b', 0xf0, 0, 1, 7]).unwrap()
}

#[tokio::test]
async fn headers_of_a_trusted_proxy_are_taken_and_passed_on() {
    let (address, mut told) = telling().await;
    let mut plane = Plane::start();
    let spec = PoolSpec { send_proxy: SendProxy::V2, ..unchecked() };
    plane.pool("p", spec, &[("a", at(address))]).await;
    let front = plane.listener("l", "p").await;
    let accept_proxy_from = Some(network("127.0.0.0/8"));
    plane.update_listener("l", ListenerPatch { accept_proxy_from, ..ListenerPatch::default() }).await;
    let (source, dialled) = (SOURCE.parse().unwrap(), DIALLED.parse().unwrap());
    let v2 = proxy::format_v2(source, dialled, &tlvs());
    let v1 = proxy::format_v1(source, dialled);
    for (n, (header, tlvs)) in [(v2, tlvs()), (v1, Tlvs::default())].into_iter().enumerate() {
        let mut client = TcpStream::connect(front).await.unwrap();
        client.set_nodelay(true).unwrap();
        // The header in pieces, and its end together with what follows.
        for byte in &header[..header.len() - 1] {
            client.write_all(&[*byte]).await.unwrap();
        }
        let last = [&header[header.len() - 1..], b"hello"].concat();
        client.write_all(&last).await.unwrap();
        until("it is listed with the client's address", || {
            plane.plane.connections().iter().any(|c| c.client == source)
        })
        .await;
        client.shutdown().await.unwrap();
        let (header, rest) = soon("a header", told.recv()).await.unwrap();
        let addresses = header.addresses.unwrap();
        assert_eq!((addresses.source, addresses.destination, &rest[..]), (source, dialled, &b"hello"[..]));
        assert_eq!(header.tlvs, tlvs);
        plane.until_closed("l", CloseReason::ClientClosed, n as u64 + 1).await;
        assert_eq!(plane.listener_counts("l").bytes_in, 5 * (n as u64 + 1));
    }
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_counts_with_its_own_address() {
    let (address, mut told) = telling().await;
    let mut plane = Plane::start();
    let spec = PoolSpec { send_proxy: SendProxy::V1, ..unchecked() };
    plane.pool("p", spec, &[("a", at(address))]).await;
    let front = plane.listener("l", "p").await;
    let accept_proxy_from = Some(network("127.0.0.0/8"));
    plane.update_listener("l", ListenerPatch { accept_proxy_from, ..ListenerPatch::default() }).await;
    let local = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20, 0, 0, 0]].concat();
    for header in [&local[..], b"PROXY UNKNOWN\r\n"] {
        let mut client = TcpStream::connect(front).await.unwrap();
        // A client that ends after the header alone wants nothing.
        client.write_all(&[header, b"x"].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        let (header, rest) = soon("a header", told.recv()).await.unwrap();
        let addresses = header.addresses.unwrap();
        assert_eq!((addresses.source, addresses.destination), (client.local_addr().unwrap(), front));
        assert_eq!(rest, b"x");
    }
}

#[tokio::test]
async fn what_comes_without_its_header_is_reset_and_from_elsewhere_needs_none() {
    let (mut plane, _servers, front) = three().await;
    let trusted = ip();
    let patch =
        ListenerPatch { accept_proxy_from: Some(network(&trusted.to_string())), ..Default::default() };
    plane.update_listener("l", patch).await;
    let from = async |ip: IpAddr, words: &[u8]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        let mut stream = socket.connect(front).await.unwrap();
        stream.write_all(words).await.unwrap();
        Client { stream, server: String::new() }
    };
    let broken: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
        &[0x16, 3, 1],
    ];
    for (n, words) in broken.into_iter().enumerate() {
        assert_eq!(from(trusted, words).await.end().await, Some(ErrorKind::ConnectionReset), "{words:?}");
        plane.until_closed("l", CloseReason::BadHeader, n as u64 + 1).await;
    }
    // One that never ends its line is late.
    let mut late = from(trusted, b"PROXY TCP4 ").await;
    assert_eq!(late.end().await, Some(ErrorKind::ConnectionReset));
    plane.until_closed("l", CloseReason::BadHeader, 5).await;
    // A header from elsewhere is what the client says, as anything else.
    let mut other = from(ip(), b"PROXY UNKNOWN\r\n").await;
    let mut back = [0; 16];
    soon("an echo", other.stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"cPROXY UNKNOWN\r\n");
}

#[tokio::test]
async fn a_header_and_a_hello_come_together() {
    let (mut plane, _servers, front) = with_routes().await;
    let accept_proxy_from = Some(network("127.0.0.0/8"));
    let deny = Some(network("203.0.113.0/24"));
    plane.update_listener("l", ListenerPatch { accept_proxy_from, deny, ..ListenerPatch::default() }).await;
    let hello = hello("www.example.com", &[]);
    let header =
        |source: &str| proxy::format_v2(source.parse().unwrap(), DIALLED.parse().unwrap(), &Tlvs::default());
    let together = [&header("198.51.100.1:1")[..], &hello].concat();
    assert_eq!(say(front, &[&together], &hello).await.unwrap(), "a");
    // Networks go by the address in the header.
    let error = say(front, &[&header(SOURCE), &hello], &[]).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    plane.until_closed("l", CloseReason::Denied, 1).await;
}

#[tokio::test]
async fn a_client_that_is_listened_to_can_be_closed() {
    let (plane, _servers, front) = with_routes().await;
    let stream = TcpStream::connect(front).await.unwrap();
    until("it is listed", || plane.plane.connections().len() == 1).await;
    assert_eq!(plane.plane.close_connections(&[plane.plane.connections()[0].id]), 1);
    let mut client = Client { stream, server: String::new() };
    let end = tokio::time::timeout(Duration::from_secs(4), client.end()).await;
    assert_eq!(end.unwrap(), Some(ErrorKind::ConnectionReset), "before its time for the hello is over");
    plane.until_closed("l", CloseReason::ClosedByOperator, 1).await;
}
