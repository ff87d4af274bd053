//! What leads from one state to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::change::{Change, ChangeKind, Resource};
use crate::name::PoolName;
use crate::pool::PoolEntry;
use crate::state::ClusterState;

fn changes<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
    mut each: impl FnMut(&K, ChangeKind, Option<&Arc<V>>, &Arc<V>),
) {
    for (key, was) in old {
        if !new.contains_key(key) {
            each(key, ChangeKind::Deleted, None, was);
        }
    }
    for (key, is) in new {
        match old.get(key) {
            None => each(key, ChangeKind::Created, None, is),
            Some(was) if Arc::ptr_eq(was, is) || was == is => {}
            Some(was) => each(key, ChangeKind::Updated, Some(was), is),
        }
    }
}

fn pool_changes(
    name: &PoolName,
    kind: ChangeKind,
    was: Option<&Arc<PoolEntry>>,
    is: &PoolEntry,
    out: &mut Vec<Change>,
) {
    let resource = || Resource::Pool(is.pool.clone(), is.backends.len());
    let none = BTreeMap::new();
    let (old, new) = match (kind, was) {
        (ChangeKind::Deleted, _) => (&is.backends, &none),
        (_, Some(was)) => (&was.backends, &is.backends),
        (_, None) => (&none, &is.backends),
    };
    if kind == ChangeKind::Created || was.is_some_and(|was| was.pool != is.pool) {
        out.push(Change::new(kind, resource()));
    }
    changes(old, new, |_, kind, _, backend| {
        out.push(Change::new(kind, Resource::Backend(name.clone(), backend.clone())));
    });
    if kind == ChangeKind::Deleted {
        out.push(Change::new(kind, resource()));
    }
}

impl ClusterState {
    /// What leads from `self` to `new`. Creations come container first, deletions contents first. Parts that both
    /// states share cost one comparison of addresses.
    pub fn diff(&self, new: &Self) -> Vec<Change> {
        let mut out = Vec::new();
        changes(&self.members, &new.members, |_, kind, _, m| {
            out.push(Change::new(kind, Resource::Member(m.clone())));
        });
        changes(&self.vips, &new.vips, |_, kind, _, v| {
            out.push(Change::new(kind, Resource::Vip(v.clone())));
        });
        changes(&self.pools, &new.pools, |name, kind, was, is| pool_changes(name, kind, was, is, &mut out));
        changes(&self.listeners, &new.listeners, |_, kind, _, l| {
            out.push(Change::new(kind, Resource::Listener(l.clone())));
        });
        out
    }

    /// Adds to what [`decide`](Self::decide) answered, before it is applied, what the updated resources are now.
    pub fn note_before(&self, changes: &mut [Change]) {
        for change in changes.iter_mut().filter(|change| change.kind == ChangeKind::Updated) {
            change.before = self.current(&change.resource);
        }
    }

    /// What is there of a resource now.
    fn current(&self, resource: &Resource) -> Option<Resource> {
        Some(match resource {
            Resource::Member(member) => Resource::Member(self.members.get(&member.id)?.clone()),
            Resource::Pool(pool, _) => {
                let entry = self.pools.get(&pool.name)?;
                Resource::Pool(entry.pool.clone(), entry.backends.len())
            }
            Resource::Backend(pool, backend) => {
                Resource::Backend(pool.clone(), self.backend(pool, &backend.name)?.clone())
            }
            Resource::Listener(listener) => Resource::Listener(self.listeners.get(&listener.name)?.clone()),
            Resource::Vip(vip) => Resource::Vip(self.vips.get(&vip.name)?.clone()),
        })
    }
}
