//! Connections of all members.

use std::sync::Arc;

use futures_util::future::join_all;
use tonic::{Request, Response, Status};
use trestle_api::convert::{self, ConnectionFilter};
use trestle_api::v1::connection_service_server::ConnectionService;
use trestle_api::{peer, status, v1};
use trestle_model::{Invalid, Kind, Member, MemberId, MemberName, Refusal, Violation, Violations};

use super::paging::page_size;
use super::{Admin, closing};
use crate::peers::REPORT_TIMEOUT;

/// Where a page begins: after this connection of this member.
#[derive(Debug, Clone, Copy, Default)]
struct PageStart {
    member: u64,
    connection: u64,
}

impl PageStart {
    fn parse(token: &str) -> Option<Self> {
        if token.is_empty() {
            return Some(Self::default());
        }
        let (member, connection) = token.split_once('.')?;
        Some(Self { member: member.parse().ok()?, connection: connection.parse().ok()? })
    }

    /// What a member is to list: the number that it begins after, and how many.
    fn of(self, member: MemberId, size: usize) -> (u64, usize) {
        match member.0.cmp(&self.member) {
            std::cmp::Ordering::Less => (u64::MAX, 0),
            std::cmp::Ordering::Equal => (self.connection, size),
            std::cmp::Ordering::Greater => (0, size),
        }
    }
}

/// Puts one page together from what each member lists, in the order of members.
fn assemble(
    answers: Vec<(Arc<Member>, peer::ListConnectionsResponse)>,
    size: usize,
) -> v1::ListConnectionsResponse {
    let mut page = v1::ListConnectionsResponse::default();
    let mut last = None;
    let mut left_out = 0;
    for (member, answer) in answers {
        page.total_size += answer.total;
        let taken = answer.connections.len().min(size - page.connections.len());
        left_out += answer.remaining.saturating_sub(taken as u64);
        for connection in answer.connections.into_iter().take(taken) {
            last = Some(format!("{}.{}", member.id.0, connection.number));
            page.connections.push(convert::connection(&member.spec.name, connection));
        }
    }
    page.next_page_token = last.filter(|_| left_out > 0).unwrap_or_default();
    page
}

fn invalid(found: &Invalid) -> Status {
    status::invalid(found)
}

impl Admin {
    /// The members that are concerned, in the order of their ids.
    pub(super) fn selected_members(&self, only: Option<&MemberName>) -> Result<Vec<Arc<Member>>, Status> {
        self.require_membership()?;
        let known = self.local.known();
        let Some(name) = only else { return Ok(known) };
        let found: Vec<_> = known.into_iter().filter(|member| member.spec.name == *name).collect();
        if found.is_empty() {
            return Err(status::refusal(&Refusal::NotFound { kind: Kind::Member, name: name.to_string() }));
        }
        Ok(found)
    }

    /// Refuses a filter that matches nothing because it names what does not exist. What was deleted may have connections still, so
    /// this is for one that has matched nothing.
    pub(super) async fn refuse_unknown(&self, filter: &ConnectionFilter) -> Result<(), Status> {
        let read = self.read_best_effort().await?;
        let state = read.state();
        let no_listener = filter.listener.as_ref().filter(|name| !state.listeners.contains_key(*name));
        let no_pool = filter.pool.as_ref().filter(|name| !state.pools.contains_key(*name));
        let no_backend = filter.backend.as_ref().filter(|(pool, name)| state.backend(pool, name).is_none());
        let missing = [
            no_listener.map(|name| (Kind::Listener, name.to_string())),
            no_pool.map(|name| (Kind::Pool, name.to_string())),
            no_backend.map(|(pool, name)| (Kind::Backend, format!("{pool}/{name}"))),
        ];
        match missing.into_iter().flatten().next() {
            Some((kind, name)) => Err(status::refusal(&Refusal::NotFound { kind, name })),
            None => Ok(()),
        }
    }

    async fn list_at(
        &self,
        member: &Member,
        filter: &ConnectionFilter,
        (after, limit): (u64, usize),
    ) -> Result<peer::ListConnectionsResponse, Status> {
        if Some(member.id) == self.local.id() {
            return Ok(self.connections.list(filter, after, limit));
        }
        let ask = peer::ListConnectionsRequest {
            to: self.local.destination(Some(member.id)),
            filter: Some(filter.into()),
            after,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let mut client = self.peers.client(&member.spec.peer_address)?;
        in_time(client.list_connections(ask)).await
    }
}

pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {REPORT_TIMEOUT:?}"));
    Ok(tokio::time::timeout(REPORT_TIMEOUT, answer).await.map_err(late)??.into_inner())
}

#[tonic::async_trait]
impl ConnectionService for Admin {
    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<v1::ListConnectionsResponse>, Status> {
        let request = request.get_ref();
        let mut v = Violations::new();
        let size = page_size(request.page_size, &mut v);
        let place = PageStart::parse(&request.page_token);
        if place.is_none() {
            v.add("page_token", &request.page_token, "must be a next_page_token");
        }
        let filter = match convert::parse_connection_filter(request.filter.as_ref()) {
            Ok(filter) => filter,
            Err(Invalid(found)) => {
                found.into_iter().for_each(|Violation { field, value, rule }| v.add(field, value, rule));
                ConnectionFilter::default()
            }
        };
        v.into_result().map_err(|found| invalid(&found))?;
        let place = place.unwrap_or_default();
        let members = self.selected_members(filter.member.as_ref())?;
        let asked = members.iter().map(|m| self.list_at(m, &filter, place.of(m.id, size)));
        let (mut answers, mut unreachable) = (Vec::new(), Vec::new());
        for (member, answer) in members.iter().zip(join_all(asked).await) {
            match answer {
                Ok(answer) => answers.push((member.clone(), answer)),
                Err(_) => unreachable.push(convert::member_name(&member.spec.name)),
            }
        }
        let page = assemble(answers, size);
        if page.total_size == 0 {
            self.refuse_unknown(&filter).await?;
        }
        Ok(Response::new(v1::ListConnectionsResponse { unreachable_members: unreachable, ..page }))
    }

    async fn close_connections(
        &self,
        request: Request<v1::CloseConnectionsRequest>,
    ) -> Result<Response<v1::CloseConnectionsResponse>, Status> {
        let request = request.get_ref();
        let request = convert::parse_close_connections(request).map_err(|found| invalid(&found))?;
        Ok(Response::new(self.close(&request).await?))
    }

    type CloseConnectionsGraduallyStream = closing::Stream;

    async fn close_connections_gradually(
        &self,
        request: Request<v1::CloseConnectionsGraduallyRequest>,
    ) -> Result<Response<Self::CloseConnectionsGraduallyStream>, Status> {
        let (request, rate) =
            convert::parse_close_gradually(request.get_ref()).map_err(|found| invalid(&found))?;
        Ok(Response::new(self.close_gradually(&request, rate).await?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::{HostPort, MemberSpec};

    use super::*;

    fn listed(
        member: u64,
        all: &[u64],
        (after, limit): (u64, usize),
    ) -> (Arc<Member>, peer::ListConnectionsResponse) {
        let rest: Vec<_> = all.iter().filter(|number| **number > after).collect();
        let numbered = |number: &&u64| peer::ConnectionReport { number: **number, ..Default::default() };
        let answer = peer::ListConnectionsResponse {
            connections: rest.iter().take(limit).map(numbered).collect(),
            total: all.len() as u64,
            remaining: rest.len() as u64,
        };
        let peer_address = HostPort::parse("127.0.0.1:7481").unwrap();
        let spec = MemberSpec {
            name: MemberName::parse(&format!("m{member}")).unwrap(),
            admin_address: peer_address.clone(),
            peer_address,
            feature_level_max: 1,
        };
        let member = Member { id: MemberId(member), spec, draining: false, drain_timeout: None, revision: 1 };
        (Arc::new(member), answer)
    }

    #[test]
    fn pages_cover_all_members_once() {
        let members: [(u64, Vec<u64>); 4] =
            [(3, (1..=7).collect()), (4, vec![]), (9, vec![5, 6]), (12, vec![1, 1000])];
        for size in 1..=12 {
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let place = PageStart::parse(&token).unwrap();
                let answers =
                    members.iter().map(|(id, all)| listed(*id, all, place.of(MemberId(*id), size))).collect();
                let page = assemble(answers, size);
                assert_eq!(page.total_size, 11);
                assert!(page.connections.len() <= size);
                seen.extend(page.connections.into_iter().map(|connection| connection.name));
                if page.next_page_token.is_empty() {
                    break;
                }
                token = page.next_page_token;
            }
            let all = members.iter().flat_map(|(member, all)| {
                all.iter().map(move |number| format!("members/m{member}/connections/{number}"))
            });
            assert_eq!(seen, all.collect::<Vec<_>>(), "pages of {size}");
        }
        assert!(["x", "1", "1.x", ".", "1.2.3"].iter().all(|token| PageStart::parse(token).is_none()));
    }
}
