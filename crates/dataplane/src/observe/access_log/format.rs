//! The two forms of a line.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::{AccessLog, AccessLogFormat, EndedConnection};

/// What a line says; the order is that of the columns of the text form.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: String,
    listener: &'a str,
    local: String,
    pool: Option<&'a str>,
    backend: Option<&'a str>,
    backend_address: Option<String>,
    server_name: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    connect_ms: Option<f64>,
    duration_ms: f64,
    retries: u8,
    reason: &'a str,
    member: &'a str,
}

/// Says that lines are missing.
#[derive(Serialize)]
struct Dropped<'a> {
    time: String,
    dropped: u64,
    member: &'a str,
}

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The time of day, to tell it of moments that workers noted without asking for it.
pub(super) struct Clock {
    day: SystemTime,
    instant: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { day: SystemTime::now(), instant: Instant::now() }
    }

    /// RFC 3339, in UTC, with milliseconds.
    fn stamp(&self, at: Instant) -> String {
        let ago = self.instant.saturating_duration_since(at);
        let ahead = at.saturating_duration_since(self.instant);
        let day = self.day.checked_sub(ago).and_then(|day| day.checked_add(ahead)).unwrap_or(self.day);
        humantime::format_rfc3339_millis(day).to_string()
    }

    /// Adds the line of a connection to `out`.
    pub(super) fn line(&self, settings: &AccessLog, ended: &EndedConnection, out: &mut Vec<u8>) {
        let connection = ended.connection.read();
        let line = Line {
            time: self.stamp(ended.at),
            client: connection.client.to_string(),
            listener: connection.listener.as_str(),
            local: connection.local.to_string(),
            pool: connection.pool.as_ref().map(|pool| pool.as_str()),
            backend: connection.backend.as_ref().map(|backend| backend.as_str()),
            backend_address: connection.backend_address.map(|address| address.to_string()),
            server_name: connection.server_name.as_deref(),
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
            connect_ms: connection.connect_time.map(millis),
            duration_ms: millis(ended.at.saturating_duration_since(connection.opened)),
            retries: ended.connection.retries(),
            reason: ended.reason.as_str(),
            member: settings.member.as_str(),
        };
        match settings.format {
            AccessLogFormat::Json => json(&line, out),
            AccessLogFormat::Text => text(&line, out),
        }
    }

    /// Adds a line that says how many are missing before it.
    pub(super) fn dropped(&self, settings: &AccessLog, count: u64, out: &mut Vec<u8>) {
        let (time, member) = (self.stamp(self.instant), settings.member.as_str());
        match settings.format {
            AccessLogFormat::Json => json(&Dropped { time, dropped: count, member }, out),
            // Writing to memory does not fail.
            AccessLogFormat::Text => {
                let _ = writeln!(out, "# {time} {member}: {count} lines were dropped before this one");
            }
        }
    }
}

fn json(line: &impl Serialize, out: &mut Vec<u8>) {
    // Fails for maps with keys that are no text, of which there are none here.
    let _ = serde_json::to_writer(&mut *out, line);
    out.push(b'\n');
}

fn text(line: &Line<'_>, out: &mut Vec<u8>) {
    let mut columns = String::with_capacity(256);
    let mut column = |value: Option<&dyn Display>| {
        let _ = match value {
            Some(value) => write!(columns, "{value} "),
            None => write!(columns, "- "),
        };
    };
    fn some<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
        value.as_ref().map(|value| value as &dyn Display)
    }
    column(Some(&line.time));
    column(Some(&line.client));
    column(Some(&line.listener));
    column(Some(&line.local));
    column(some(&line.pool));
    column(some(&line.backend));
    column(some(&line.backend_address));
    // The only word that a client chooses. It may be empty, which a column must not be.
    let word = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    let name = line.server_name.map(|name| if name.is_empty() { "\"\"" } else { name });
    column(some(&name.map(|name| name.chars().map(word).collect::<String>())));
    column(Some(&line.bytes_in));
    column(Some(&line.bytes_out));
    column(some(&line.connect_ms));
    column(Some(&line.duration_ms));
    column(Some(&line.retries));
    column(Some(&line.reason));
    column(Some(&line.member));
    out.extend_from_slice(columns.trim_end().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample<'a>() -> Line<'a> {
        Line {
            time: humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH).to_string(),
            client: "[2001:db8::1]:4000".to_owned(),
            listener: "front",
            local: "192.0.2.1:80".to_owned(),
            pool: Some("web"),
            backend: None,
            backend_address: None,
            server_name: Some("a.example"),
            bytes_in: 7,
            bytes_out: 0,
            connect_ms: None,
            duration_ms: millis(Duration::from_nanos(1_234_567)),
            retries: 2,
            reason: "connect_failed",
            member: "m1",
        }
    }

    #[test]
    fn columns_have_a_fixed_order() {
        let mut out = Vec::new();
        text(&sample(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000Z [2001:db8::1]:4000 front 192.0.2.1:80 web - - a.example 7 0 - 1.234 2 connect_failed m1\n"
        );
    }

    #[test]
    fn a_client_cannot_write_columns_or_lines() {
        let name = "a b\n# \"ü";
        let line = Line { server_name: Some(name), ..sample() };
        let mut out = Vec::new();
        text(&line, &mut out);
        let shown = String::from_utf8(out).unwrap();
        assert_eq!((shown.lines().count(), shown.split(' ').count()), (1, 15), "{shown}");
        assert!(shown.contains(" a?b?#?\"? 7 "), "{shown}");
        let mut out = Vec::new();
        text(&Line { server_name: Some(""), ..sample() }, &mut out);
        assert!(String::from_utf8(out).unwrap().contains(" - - \"\" 7 "));
        let mut out = Vec::new();
        json(&line, &mut out);
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(object["server_name"], name);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn objects_have_every_key() {
        let mut out = Vec::new();
        json(&sample(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"client\":\"[2001:db8::1]:4000\",\"listener\":\"front\",\
             \"local\":\"192.0.2.1:80\",\"pool\":\"web\",\"backend\":null,\"backend_address\":null,\"server_name\":\"a.example\",\"bytes_in\":7,\
             \"bytes_out\":0,\"connect_ms\":null,\"duration_ms\":1.234,\"retries\":2,\"reason\":\"connect_failed\",\
             \"member\":\"m1\"}\n"
        );
    }

    #[test]
    fn moments_on_both_sides_of_the_clocks_own_are_told() {
        let clock = Clock { day: SystemTime::UNIX_EPOCH + Duration::from_secs(60), instant: Instant::now() };
        let second = Duration::from_secs(1);
        assert_eq!(clock.stamp(clock.instant + second), "1970-01-01T00:01:01.000Z");
        assert_eq!(clock.stamp(clock.instant.checked_sub(second).unwrap()), "1970-01-01T00:00:59.000Z");
    }
}
