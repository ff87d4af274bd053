//! What members see of backends and listeners now, page by page.
//!
//! The member that is asked decides where a page begins, and asks each member for as much from there on as its share of a
//! page. The page ends where the first of them had to stop, so that it has the views of all of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use prost::Message;
use tonic::Status;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{BackendName, ListenerName, PoolEntry, PoolName, Violations};

use super::Admin;
use super::paging::{PAGE_BYTES, PageBounds, after, fill, page_size_by_bytes};
use crate::report::ALL_POOLS;

/// Where pages begin and end: in the order of pools, then of backends.
type BackendKey = (PoolName, BackendName);

/// Parses a name, without what is wrong with it.
fn parsed<K>(parse: impl Fn(&str, &str, &mut Violations) -> Option<K>) -> impl Fn(&str) -> Result<K, String> {
    move |name| parse("name", name, &mut Violations::new()).ok_or_else(String::new)
}

/// The first of the places where a member had to stop.
fn first_stop<K: Ord>(before: Option<K>, stop: Option<K>) -> Option<K> {
    match (before, stop) {
        (Some(before), Some(stop)) => Some(before.min(stop)),
        (before, stop) => before.or(stop),
    }
}

/// Where one member had to stop: at its last name, if it has more. Always behind where the page begins, or pages would never end.
fn stop_of<K: Ord>(more: bool, last: Option<K>, begin: Option<&K>) -> Option<K> {
    last.filter(|last| more && begin.is_none_or(|begin| last > begin))
}

impl Admin {
    /// What each member is asked for: a part of a page that is as large as that of any other.
    fn share_after(&self, after: String) -> Option<peer::ReportPage> {
        let share = PAGE_BYTES / self.local.known().len().max(1);
        Some(peer::ReportPage { after, bytes_max: u32::try_from(share).unwrap_or(u32::MAX) })
    }

    pub(super) async fn pool_health(
        &self,
        request: &v1::GetPoolHealthRequest,
    ) -> Result<v1::PoolHealth, Status> {
        let mut v = Violations::new();
        let size = page_size_by_bytes(request.page_size, &mut v);
        let begin: Option<BackendKey> =
            after(&request.page_token, parsed(convert::parse_backend_name), &mut v);
        let one =
            (request.name != ALL_POOLS).then(|| convert::parse_pool_name("name", &request.name, &mut v));
        v.into_result().map_err(|found| status::invalid(&found))?;
        let read = self.read_best_effort().await?;
        let state = &read.state().pools;
        let begin_pool = begin.as_ref().map_or(Bound::Unbounded, |(pool, _)| Bound::Included(pool));
        let pools: Vec<(&PoolName, &Arc<PoolEntry>)> = match one.flatten() {
            None => state.range((begin_pool, Bound::Unbounded)).collect(),
            Some(name) => {
                let missing = || status::refusal(&read.state().not_there(&name.clone().into()));
                vec![state.get_key_value(&name).ok_or_else(missing)?]
            }
        };
        let name_of = |(pool, backend): &BackendKey| convert::backend_name(pool, backend);
        let page = self.share_after(begin.as_ref().map(name_of).unwrap_or_default());
        let ask = peer::ReportRequest { pool: request.name.clone(), page, ..Default::default() };
        let (reports, unreachable_members) = self.reports.ask_all(ask).await;
        let (mut views, mut stop) = (BTreeMap::<String, Vec<v1::MemberView>>::new(), None);
        for (member, report) in reports {
            let last =
                report.backends.last().and_then(|last| parsed(convert::parse_backend_name)(&last.name).ok());
            stop = first_stop(stop, stop_of(report.more, last, begin.as_ref()));
            for backend in report.backends {
                let name = backend.name.clone();
                views.entry(name).or_default().push(convert::member_view(&member, backend));
            }
        }
        // A member may be a revision ahead or behind: only what exists now is shown.
        let places = pools.into_iter().flat_map(|(pool, entry)| {
            entry.backends.iter().map(move |(name, backend)| ((pool.clone(), name.clone()), backend))
        });
        let places = places
            .filter(|(place, _)| begin.as_ref().is_none_or(|begin| place > begin))
            .take_while(|(place, _)| stop.as_ref().is_none_or(|stop| place <= stop));
        let rendered = places.map(|(place, backend)| {
            let backend = convert::backend(&place.0, backend);
            let health = v1::BackendHealth {
                views: views.remove(&backend.name).unwrap_or_default(),
                admin_state: backend.admin_state,
                name: backend.name,
                address: backend.address,
            };
            (place, health)
        });
        let (backends, last) = fill(rendered, PageBounds::of(size), Message::encoded_len);
        let next_page_token = last.or(stop).as_ref().map(name_of).unwrap_or_default();
        Ok(v1::PoolHealth { backends, unreachable_members, next_page_token })
    }

    pub(super) async fn listener_health(
        &self,
        request: &v1::GetListenerHealthRequest,
    ) -> Result<v1::ListenerHealth, Status> {
        let mut v = Violations::new();
        let size = page_size_by_bytes(request.page_size, &mut v);
        let begin: Option<ListenerName> =
            after(&request.page_token, parsed(convert::parse_listener_name), &mut v);
        if !request.name.is_empty() {
            convert::parse_listener_name("name", &request.name, &mut v);
        }
        v.into_result().map_err(|found| status::invalid(&found))?;
        self.require_membership()?;
        let page = self.share_after(begin.as_ref().map(convert::listener_name).unwrap_or_default());
        let (listeners, listener) = (true, request.name.clone());
        let ask = peer::ReportRequest { listeners, listener, page, ..Default::default() };
        let (reports, unreachable_members) = self.reports.ask_all(ask).await;
        let (mut views, mut stop) = (BTreeMap::<ListenerName, Vec<v1::ListenerView>>::new(), None);
        for (member, report) in reports {
            let member = convert::member_name(&member);
            let mut last = None;
            // Reports come in the order of members' ids, and so do the views of each listener.
            for listener in report.listeners {
                let Ok(name) = parsed(convert::parse_listener_name)(&listener.name) else { continue };
                views.entry(name.clone()).or_default().push(convert::listener_view(&member, listener));
                last = Some(name);
            }
            stop = first_stop(stop, stop_of(report.more, last, begin.as_ref()));
        }
        let of_page = views
            .into_iter()
            .filter(|(name, _)| begin.as_ref().is_none_or(|begin| name > begin))
            .take_while(|(name, _)| stop.as_ref().is_none_or(|stop| name <= stop));
        let bytes_of = |views: &Vec<v1::ListenerView>| views.iter().map(Message::encoded_len).sum();
        let (views, last) = fill(of_page, PageBounds::of(size), bytes_of);
        let next_page_token = last.or(stop).as_ref().map(convert::listener_name).unwrap_or_default();
        let views = views.into_iter().flatten().collect();
        Ok(v1::ListenerHealth { views, unreachable_members, next_page_token })
    }
}
