//! One request over HTTP/1.0, for what asks the own member or a sample: no more than a status and a short body matter.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer that is read.
const ANSWER_MAX: u64 = 64 * 1024;

/// Gets `path` on a connection of its own: the status, and the body as far as it is text.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(256);
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    read(&String::from_utf8_lossy(&answer))
}

fn read(answer: &str) -> Result<(u16, String), Error> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "the answer was cut short"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::new(ErrorKind::InvalidData, "the answer is not HTTP"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_have_a_status_and_a_body() {
        assert_eq!(read("HTTP/1.0 503 Not\r\nA: b\r\n\r\nwhy\n").unwrap(), (503, "why\n".to_owned()));
        assert_eq!(read("HTTP/1.0 200 OK\r\n").unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read("ready\r\n\r\n").unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
