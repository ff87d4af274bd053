//! One request, one answer, as a client sees it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Longer than any wait that a balancer may impose on a client that is served.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Head, as it was received.
    pub head: String,
    /// Body.
    pub body: String,
}

/// Gets `path` over HTTP/1.0 on a connection of its own.
///
/// # Errors
/// What went wrong, in words: no connection, reset, silence, or an answer that is not HTTP or not whole.
pub fn get(address: SocketAddr, path: &str) -> Result<Page, String> {
    let said = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(said("connect"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(said("socket"))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(said("send"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(said("receive"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("cut short: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no HTTP status in {head:?}"))?;
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    for (_, length) in length {
        if length.trim().parse() != Ok(body.len()) {
            return Err(format!("{} of {} bytes of the body", body.len(), length.trim()));
        }
    }
    Ok(Page { status, head: head.to_owned(), body: body.to_owned() })
}

/// Gets `/` and answers the body of a 200.
///
/// # Errors
/// As [`get`], and any other status.
pub fn fetch_http(address: SocketAddr) -> Result<String, String> {
    let page = get(address, "/")?;
    if page.status == 200 { Ok(page.body.trim().to_owned()) } else { Err(format!("status {}", page.status)) }
}

/// Gets `/` over TLS with curl, as a user would try it, and answers the body.
///
/// # Errors
/// What curl said.
pub fn fetch_tls(address: SocketAddr) -> Result<String, String> {
    let mut curl = Command::new("curl");
    curl.args(["--insecure", "--silent", "--show-error", "--fail", "--max-time", "10"]);
    let output =
        curl.arg(format!("https://{address}/")).output().map_err(|error| format!("curl: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
