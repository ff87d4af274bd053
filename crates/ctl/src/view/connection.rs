//! Connections of clients.

use serde::Serialize;
use trestle_api::v1;

use super::span::{self, Span};
use super::{or_dash, short_name};
use crate::table;

/// A connection.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionView {
    name: String,
    client_address: String,
    listener: String,
    local_address: String,
    pool: Option<String>,
    backend: Option<String>,
    backend_address: Option<String>,
    server_name: Option<String>,
    state: &'static str,
    /// When the client came.
    since: Option<String>,
    #[serde(flatten, serialize_with = "span::age")]
    age: Option<Span>,
    #[serde(flatten, serialize_with = "span::connect_time")]
    connect_time: Option<Span>,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<v1::Connection> for ConnectionView {
    fn from(connection: v1::Connection) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let age = Span::seconds(connection.age.as_ref());
        Self {
            name: short_name(&connection.name),
            state: match connection.state() {
                v1::ConnectionState::Opening => "opening",
                v1::ConnectionState::Waiting => "waiting",
                v1::ConnectionState::Relaying => "relaying",
                v1::ConnectionState::Unspecified => "",
            },
            client_address: connection.client_address,
            listener: short_name(&connection.listener),
            local_address: connection.local_address,
            pool: some(short_name(&connection.pool)),
            backend: some(short_name(&connection.backend)),
            backend_address: some(connection.backend_address),
            server_name: some(connection.server_name),
            since: age.and_then(Span::ago),
            age,
            connect_time: Span::micros(connection.connect_time.as_ref()),
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
        }
    }
}

impl ConnectionView {
    /// One line for each connection.
    pub(crate) fn table(connections: &[Self]) -> String {
        let row = |c: &Self| {
            [
                c.name.clone(),
                c.client_address.clone(),
                c.listener.clone(),
                or_dash(c.backend.as_ref().or(c.pool.as_ref())),
                c.state.to_owned(),
                or_dash(c.age.as_ref()),
                c.bytes_in.to_string(),
                c.bytes_out.to_string(),
            ]
        };
        table::table(
            ["NAME", "CLIENT", "LISTENER", "BACKEND", "STATE", "AGE", "BYTES-IN", "BYTES-OUT"],
            connections.iter().map(row),
        )
    }
}

/// What was closed, or would be.
#[derive(Debug, Serialize)]
pub(crate) struct ClosedView {
    closed: Vec<ClosedOn>,
    unreachable: Vec<String>,
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct ClosedOn {
    member: String,
    count: u64,
}

impl ClosedView {
    pub(crate) fn new(answer: v1::CloseConnectionsResponse, dry_run: bool) -> Self {
        let members = answer.members.into_iter();
        let on = |closed: v1::ClosedConnections| ClosedOn {
            member: short_name(&closed.member),
            count: closed.count,
        };
        Self {
            closed: members.map(on).collect(),
            unreachable: answer.unreachable_members.iter().map(|member| short_name(member)).collect(),
            dry_run,
        }
    }

    /// Members that did not answer.
    pub(crate) fn unreachable(&self) -> &[String] {
        &self.unreachable
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.closed.iter().map(|closed| closed.count).sum()
    }

    /// As in "closed 3 connections on m1, 1 on m2".
    pub(crate) fn text(&self) -> String {
        let verb = if self.dry_run { "would close" } else { "closed" };
        let some: Vec<_> = self.closed.iter().filter(|closed| closed.count > 0).collect();
        let each = some.iter().enumerate().map(|(place, closed)| match (place, closed.count) {
            (0, 1) => format!("1 connection on {}", closed.member),
            (0, count) => format!("{count} connections on {}", closed.member),
            (_, count) => format!("{count} on {}", closed.member),
        });
        let each: Vec<_> = each.collect();
        if each.is_empty() {
            format!("{verb} no connection\n")
        } else {
            format!("{verb} {}\n", each.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_who_goes_where() {
        let relaying = v1::Connection {
            name: "members/m1/connections/17".to_owned(),
            client_address: "10.0.0.9:40000".to_owned(),
            listener: "listeners/front".to_owned(),
            local_address: "10.0.0.1:80".to_owned(),
            pool: "pools/web".to_owned(),
            backend: "pools/web/backends/a".to_owned(),
            backend_address: "10.0.1.1:8080".to_owned(),
            state: v1::ConnectionState::Relaying.into(),
            age: Some(prost_types::Duration { seconds: 90, nanos: 500_000_000 }),
            connect_time: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            bytes_in: 7,
            bytes_out: 1_000,
            server_name: String::new(),
        };
        let waiting = v1::Connection {
            backend: String::new(),
            backend_address: String::new(),
            connect_time: None,
            state: v1::ConnectionState::Waiting.into(),
            ..relaying.clone()
        };
        assert_eq!(
            ConnectionView::table(&[relaying.into(), waiting.into()]),
            "NAME    CLIENT           LISTENER   BACKEND   STATE      AGE     BYTES-IN   BYTES-OUT\n\
             m1/17   10.0.0.9:40000   front      web/a     relaying   1m30s   7          1000\n\
             m1/17   10.0.0.9:40000   front      web       waiting    1m30s   7          1000\n"
        );
    }

    #[test]
    fn what_was_closed_is_told_by_member() {
        let text = |counts: &[u64], dry_run| {
            let on = |(number, count): (usize, &u64)| v1::ClosedConnections {
                member: format!("members/m{}", number + 1),
                count: *count,
            };
            let members = counts.iter().enumerate().map(on).collect();
            ClosedView::new(v1::CloseConnectionsResponse { members, ..Default::default() }, dry_run).text()
        };
        assert_eq!(text(&[3, 0, 1], false), "closed 3 connections on m1, 1 on m3\n");
        assert_eq!(text(&[0, 1], false), "closed 1 connection on m2\n");
        assert_eq!(text(&[0, 0], false), "closed no connection\n");
        assert_eq!(text(&[2], true), "would close 2 connections on m1\n");
    }
}
