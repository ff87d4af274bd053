//! What a check found, and its words.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::shortage::Shortage;

/// The result of a check, in words when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// None has ended yet.
    Awaited,
    /// The pool has no check.
    Off,
    /// The backend accepted a connection.
    Connected,
    /// It did a TLS handshake, and its certificate is as wanted.
    Secured,
    /// It answered over HTTP as wanted, with this status.
    Answered(u16),
    /// It answered over gRPC that it is serving.
    Serving,
    /// Its answer contains what is expected.
    Expected,
    /// It refused or reset the connection.
    Refused,
    /// No answer in the time given.
    TimedOut(Duration),
    /// No route to it, or a router or the host's network answered so.
    Unreachable,
    /// Another error of the operating system, by number.
    Failed(i32),
    /// It is connected but does not do what the check wants, or the check cannot be done as configured; in words.
    Wrong(Arc<str>),
    /// Its name's address is not known, for this reason.
    Unresolved(Arc<str>),
    /// No check could be made, for want of something on this machine; that says nothing of the backend.
    NotMade(Shortage),
}

impl CheckResult {
    /// In words, with the address that was checked where that is not plain.
    pub fn at(&self, ip: Option<IpAddr>) -> String {
        let is_of_check = !matches!(self, Self::Awaited | Self::Off | Self::Unresolved(_));
        match ip.filter(|_| is_of_check) {
            Some(ip) => format!("{ip}: {self}"),
            None => self.to_string(),
        }
    }

    /// Whether the check succeeded.
    pub fn is_success(&self) -> bool {
        use CheckResult::{Answered, Connected, Expected, Secured, Serving};
        matches!(self, Connected | Secured | Answered(_) | Serving | Expected)
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited => f.write_str("not checked yet"),
            Self::Off => f.write_str("the pool has no health check"),
            Self::Connected => f.write_str("connected"),
            Self::Secured => f.write_str("TLS handshake done"),
            Self::Answered(status) => write!(f, "HTTP {status}"),
            Self::Serving => f.write_str("gRPC: SERVING"),
            Self::Expected => f.write_str("answer as expected"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut(timeout) => write!(f, "timed out after {timeout:?}"),
            Self::Unreachable => f.write_str("no route to host"),
            Self::Failed(code) => std::io::Error::from_raw_os_error(*code).fmt(f),
            Self::Wrong(words) | Self::Unresolved(words) => f.write_str(words),
            Self::NotMade(shortage) => write!(f, "not checked: {shortage}"),
        }
    }
}
