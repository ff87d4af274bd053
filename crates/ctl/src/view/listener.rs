//! Listeners, with where they are bound.

use serde::Serialize;
use trestle_api::v1;

use super::{short_name, troubles};
use crate::table;

/// A listener with where it is bound.
#[derive(Debug, Serialize)]
pub(crate) struct ListenerView {
    name: String,
    binds: Vec<String>,
    pool: String,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
    /// `None` when the members' views could not be had, or were not asked for.
    ready: Option<ReadyView>,
}

#[derive(Debug, Serialize)]
struct ReadyView {
    ready: usize,
    members: usize,
    connections: u64,
    views: Vec<MemberView>,
    unreachable: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    member: String,
    bound: Vec<String>,
    errors: Vec<String>,
    connections: u64,
}

impl From<v1::Listener> for ListenerView {
    fn from(listener: v1::Listener) -> Self {
        Self {
            name: short_name(&listener.name),
            binds: listener.binds,
            pool: short_name(&listener.pool),
            revision: listener.revision,
            etag: listener.etag,
            ready: None,
        }
    }
}

impl MemberView {
    fn ready(&self) -> bool {
        self.errors.is_empty() && !self.bound.is_empty()
    }

    fn trouble(&self) -> String {
        if self.errors.is_empty() { "not bound yet".to_owned() } else { self.errors.join("; ") }
    }
}

impl ReadyView {
    fn count(&self) -> String {
        format!("{}/{}", self.ready, self.members)
    }

    /// "3/3", or with what differs: "2/3 (m2: cannot assign requested address)".
    fn brief(&self) -> String {
        if self.ready == self.members {
            return self.count();
        }
        let seen = self.views.iter().filter(|v| !v.ready()).map(|v| (v.member.clone(), v.trouble()));
        let silent = self.unreachable.iter().map(|member| (member.clone(), "unreachable".to_owned()));
        format!("{} ({})", self.count(), troubles(self.members, seen.chain(silent)))
    }
}

impl ListenerView {
    /// Joins listeners with the members' views, which may be missing or list other listeners.
    pub(crate) fn join(listeners: Vec<v1::Listener>, health: Option<v1::ListenerHealth>) -> Vec<Self> {
        let mut listeners: Vec<Self> = listeners.into_iter().map(Into::into).collect();
        let Some(health) = health else {
            return listeners;
        };
        let unreachable: Vec<String> = health.unreachable_members.iter().map(|m| short_name(m)).collect();
        let mut views = std::collections::BTreeMap::<String, Vec<MemberView>>::new();
        for view in health.views {
            views.entry(short_name(&view.listener)).or_default().push(MemberView {
                member: short_name(&view.member),
                bound: view.bound,
                errors: view.errors,
                connections: view.active_connections,
            });
        }
        for listener in &mut listeners {
            let seen = views.remove(&listener.name).unwrap_or_default();
            listener.ready = Some(ReadyView {
                ready: seen.iter().filter(|v| v.ready()).count(),
                members: seen.len() + unreachable.len(),
                connections: seen.iter().map(|v| v.connections).sum(),
                views: seen,
                unreachable: unreachable.clone(),
            });
        }
        listeners
    }

    fn ready(&self) -> String {
        self.ready.as_ref().map_or_else(|| "-".to_owned(), ReadyView::brief)
    }

    fn connections(&self) -> String {
        self.ready.as_ref().map_or_else(|| "-".to_owned(), |r| r.connections.to_string())
    }

    /// One line for each listener.
    pub(crate) fn table(listeners: &[Self]) -> String {
        let row = |l: &Self| [l.name.clone(), l.binds.join(","), l.pool.clone(), l.ready(), l.connections()];
        table::table(["NAME", "BIND", "POOL", "READY", "CONNECTIONS"], listeners.iter().map(row))
    }

    /// All settings, one to a line, then where each member has it bound.
    pub(crate) fn description(&self) -> String {
        let settings = table::fields([
            ("NAME", self.name.clone()),
            ("BIND", self.binds.join(",")),
            ("POOL", self.pool.clone()),
            ("READY", self.ready.as_ref().map_or_else(|| "-".to_owned(), ReadyView::count)),
            ("CONNECTIONS", self.connections()),
            ("REVISION", self.revision.to_string()),
            ("ETAG", self.etag.clone()),
        ]);
        let Some(ready) = self.ready.as_ref().filter(|r| r.members > 0) else {
            return settings;
        };
        let seen = ready
            .views
            .iter()
            .map(|v| [v.member.clone(), v.bound.join(","), v.errors.join("; "), v.connections.to_string()]);
        let silent = ready
            .unreachable
            .iter()
            .map(|member| [member.clone(), "-".to_owned(), "unreachable".to_owned(), "-".to_owned()]);
        let views = table::table(["MEMBER", "BOUND", "PROBLEM", "CONNECTIONS"], seen.chain(silent));
        format!("{settings}\n{views}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::sample_listener;

    fn view(member: &str, bound: &[&str], errors: &[&str]) -> v1::ListenerView {
        v1::ListenerView {
            listener: "listeners/front".to_owned(),
            member: format!("members/{member}"),
            bound: bound.iter().map(|&b| b.to_owned()).collect(),
            errors: errors.iter().map(|&e| e.to_owned()).collect(),
            active_connections: 4,
        }
    }

    #[test]
    fn a_list_says_where_a_listener_is_not_bound() {
        let health = v1::ListenerHealth {
            views: vec![
                view("m1", &["0.0.0.0:6443"], &[]),
                view("m2", &[], &["cannot assign requested address"]),
                view("m3", &[], &[]),
            ],
            unreachable_members: vec!["members/m4".to_owned()],
        };
        let listeners = ListenerView::join(vec![sample_listener("front")], Some(health));
        let ready = "1/4 (m2: cannot assign requested address; m3: not bound yet; m4: unreachable)";
        assert_eq!(
            ListenerView::table(&listeners),
            format!(
                "NAME    BIND           POOL   READY{}CONNECTIONS\n\
                 front   0.0.0.0:6443   web    {ready}   12\n",
                " ".repeat(ready.len() - "READY".len() + 3)
            )
        );
        assert_eq!(
            listeners[0].description(),
            format!(
                "NAME          front\n\
                 BIND          0.0.0.0:6443\n\
                 POOL          web\n\
                 READY         1/4\n\
                 CONNECTIONS   12\n\
                 REVISION      14\n\
                 ETAG          14\n\
                 \n\
                 MEMBER   BOUND          PROBLEM                           CONNECTIONS\n\
                 m1       0.0.0.0:6443   -                                 4\n\
                 m2       -              cannot assign requested address   4\n\
                 m3       -              -                                 4\n\
                 m4       -              unreachable                       -\n"
            )
        );
    }

    #[test]
    fn all_is_well_in_three_characters() {
        let health = v1::ListenerHealth {
            views: vec![view("m1", &["0.0.0.0:6443"], &[]), view("m2", &["0.0.0.0:6443"], &[])],
            unreachable_members: vec![],
        };
        let listeners = ListenerView::join(vec![sample_listener("front")], Some(health));
        assert_eq!(listeners[0].ready(), "2/2");
    }
}
