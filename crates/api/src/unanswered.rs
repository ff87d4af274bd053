//! Why a call got no answer, in words for an operator.

use std::error::Error;
use std::io;

use tonic::{Code, Status};

/// Most of these mean that bytes came which are no HTTP/2.
const OTHER_PROTOCOL: &str =
    "what answers there does not speak gRPC: it is another program's port, or an HTTP or TLS one";
const CLOSED: &str = "the connection was closed from there: a member that stops does that, and so does another program's port, or an \
                      HTTP or TLS one";
const SILENT: &str =
    "its connection has gone silent: the process is frozen, or its machine is off or cut off";
const CONNECT_TIMED_OUT: &str =
    "no connection in time: its machine is off, or it or the way to it is cut off";

/// Why a call failed: what the other side said, or else what happened to the connection. A transport's errors name its layers
/// ("transport error", "http2 error"); what happened is the innermost of them.
pub fn why(status: &Status) -> String {
    // Statuses that the transport makes up carry their cause; those that another process sent do not.
    match (status.source(), status.code()) {
        (Some(cause), _) => of_transport(cause),
        (None, Code::Unimplemented) => {
            "another gRPC server answers there, or another port of a member, such as its admin API".to_owned()
        }
        (None, _) => status.message().to_owned(),
    }
}

/// That nothing came within a time.
pub fn none_within(limit: std::time::Duration) -> String {
    format!("no answer within {} s: its process is frozen, or it is cut off or overloaded", limit.as_secs())
}

/// The same of an error of the transport itself.
pub fn of_transport(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return of_io(error);
    }
    // Errors of hyper and h2, whose kinds are private.
    match cause.to_string() {
        text if text.contains("timed out") => SILENT.to_owned(),
        text if text.contains("closed") || text.contains("canceled") => CLOSED.to_owned(),
        text if text.contains("frame") || text.contains("protocol error") => OTHER_PROTOCOL.to_owned(),
        text => text,
    }
}

fn of_io(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        // Of a UNIX socket.
        Kind::NotFound => "there is no such socket".to_owned(),
        Kind::PermissionDenied => "you may not connect to it: only its owner and group may".to_owned(),
        Kind::TimedOut => CONNECT_TIMED_OUT.to_owned(),
        kind @ (Kind::HostUnreachable | Kind::NetworkUnreachable) => {
            format!("{kind}: its machine is off, or there is no way to it")
        }
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            CLOSED.to_owned()
        }
        _ => match error.to_string().strip_prefix("failed to lookup address information: ") {
            // getaddrinfo(3), which has no kinds.
            Some(why) => format!("its name was not found: {why}"),
            None => error.to_string(),
        },
    }
}
