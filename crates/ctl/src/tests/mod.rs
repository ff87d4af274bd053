//! The whole command against members that say what a test tells them to, over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod endpoints;
mod errors;
pub(crate) mod fake;
mod happening;
mod lists;
mod metadata;
pub(crate) mod sample;
mod streams;
mod vips;
mod waits;

use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use fake::Member;

use crate::output::Terminal;
use crate::run_on;

/// A writer whose content a test reads afterwards.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command left behind.
struct Done {
    code: u8,
    out: String,
    err: String,
}

fn trestle(endpoints: &[String], args: &[&str]) -> Done {
    let (out, err) = (Buffer::default(), Buffer::default());
    let terminal = Terminal::new(out.clone(), err.clone());
    let endpoints = endpoints.join(",");
    let all: Vec<std::ffi::OsString> =
        ["trestle", "--endpoint", &endpoints].iter().chain(args).map(Into::into).collect();
    let exit = run_on(all, terminal);
    let code = (0..=255).find(|code| ExitCode::from(*code) == exit).unwrap();
    Done { code, out: out.text(), err: err.text() }
}

fn at(member: &Member) -> Vec<String> {
    vec![member.address.to_string()]
}

/// An address where nobody listens.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
