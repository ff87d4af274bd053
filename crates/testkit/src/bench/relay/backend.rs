//! The server behind the proxies: does what the first byte of a connection asks for.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request, one answer, and the end.
pub(super) const SHORT: u8 = b's';
/// Requests of [`MESSAGE`] bytes, each answered with as many.
pub(super) const ECHO: u8 = b'e';
/// Bytes without end.
pub(super) const BULK: u8 = b'b';

/// Size of a short request.
pub(super) const REQUEST: usize = 100;
/// Size of the answer to a short request.
pub(super) const ANSWER: usize = 300;
/// Size of a request or answer of an echo.
pub(super) const MESSAGE: usize = 1024;
/// Size of a write or read of bulk.
pub(super) const CHUNK: usize = 256 * 1024;

/// Serves until this process ends.
pub(crate) async fn serve(address: SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener: TcpListener = socket.listen(4096).unwrap();
    loop {
        // Fails when a client gave up while it waited.
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Its end may be any: clients leave when they have enough.
        tokio::spawn(async move { answer(stream).await });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    let read = stream.read(&mut message).await?;
    match message[0] {
        _ if read == 0 => {}
        SHORT => {
            stream.read_exact(&mut message[read..REQUEST]).await?;
            stream.write_all(&[b'a'; ANSWER]).await?;
        }
        ECHO => {
            let mut begun = read;
            loop {
                stream.read_exact(&mut message[begun..]).await?;
                stream.write_all(&message).await?;
                begun = 0;
            }
        }
        BULK => {
            let chunk = vec![b'b'; CHUNK];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        other => panic!("a request begins with {other}"),
    }
    Ok(())
}
