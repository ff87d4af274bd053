//! What holds for every answer to an HTTP check, whatever is in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use trestle_fuzz::{FuzzTarget, fuzz, gist};

use super::*;

const WANTED: &[u8] = b"ready";

/// A server whose answer comes in pieces, whatever it is asked, and that closes then.
struct Server<'a> {
    answer: &'a [u8],
    /// Length of the pieces, in turn.
    pieces: [usize; 3],
    turn: usize,
}

impl AsyncRead for Server<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.pieces[self.turn % 3].min(buf.remaining()).min(self.answer.len());
        self.turn += 1;
        let (piece, rest) = self.answer.split_at(len);
        buf.put_slice(piece);
        self.answer = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn plan(body_contains: Option<&[u8]>) -> HttpPlan {
    let text = body_contains.map(|text| std::str::from_utf8(text).unwrap().into());
    let check = HttpCheck { body_contains: text, ..HttpCheck::default() };
    HttpPlan::new(&check, &Path::new("/nowhere").into()).unwrap()
}

fn verdict(plan: &HttpPlan, answer: &[u8], pieces: [usize; 3]) -> Result<u16, String> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    let target = CheckTarget { address: "192.0.2.1:80".parse().unwrap(), name: None };
    let mut server = Server { answer, pieces, turn: 0 };
    let checked = RUNTIME.with(|runtime| runtime.block_on(plan.exchange(&mut server, &target)));
    checked.map_err(|error| match error {
        CheckError::Backend(words) => words,
        CheckError::Own(shortage) => panic!("an answer is no shortage of this member: {shortage:?}"),
    })
}

fn has(answer: &[u8], text: &[u8]) -> bool {
    answer.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text))
}

fn outcome(answer: &[u8]) -> [Result<u16, String>; 2] {
    [None, Some(WANTED)].map(|wanted| {
        let plan = plan(wanted);
        let whole = verdict(&plan, answer, [usize::MAX; 3]);
        for pieces in [[1; 3], [3, 1, 40]] {
            // hyper's words for what is wrong may depend on where an answer is cut.
            assert_eq!(verdict(&plan, answer, pieces).ok(), whole.clone().ok(), "in pieces of {pieces:?}");
        }
        match &whole {
            Ok(status) => {
                assert!((200..=299).contains(status), "{status}");
                assert!(has(answer, b"HTTP/1.") && has(answer, status.to_string().as_bytes()));
                // What a chunk's head cuts in two is not there in one piece.
                let there = wanted.is_none_or(|text| has(answer, text) || has(answer, b"chunked"));
                assert!(there, "the body was said to have the text");
            }
            Err(words) => assert!(words.starts_with("HTTP") && words.len() < 200, "{words}"),
        }
        whole.map_err(|words| gist(&words))
    })
}

#[test]
fn fuzz_http_answer() {
    let answers: [&[u8]; 12] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nI'm ready",
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\nConnection: close\r\n\r\nready\n",
        b"HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-cache\r\n\r\n<html><body>not ready</body></html>",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2;x=y\r\ndy\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: /ready\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\nContent-Length: 2\n\nno",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"\x15\x03\x01\0\x02\x02\x16",
        b"220 mail ESMTP\r\n",
    ];
    let words: &[&[u8]] = &[
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: keep-alive\r\n",
        b"ready",
        b"0\r\n\r\n",
        b"ffffffffffffffff",
        b"\0",
    ];
    let seeds = answers.iter().map(|answer| answer.to_vec()).collect();
    let inputs = FuzzTarget { name: "http_answer", seeds, words, len_max: 1500, repair: None };
    let summary = fuzz(&inputs, outcome);
    assert!(summary.outcomes > 20, "{summary:?}");
}
