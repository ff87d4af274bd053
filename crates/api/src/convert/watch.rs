//! Events of a watch.

use trestle_model::{Change, ChangeKind, Resource};

use super::{backend, listener, member, pool, vip};
use crate::v1;

fn resource(resource: &Resource) -> v1::event::Resource {
    match resource {
        Resource::Pool(p, backends) => v1::event::Resource::Pool(pool(p, *backends)),
        Resource::Backend(p, b) => v1::event::Resource::Backend(backend(p, b)),
        Resource::Listener(l) => v1::event::Resource::Listener(listener(l)),
        Resource::Member(m) => v1::event::Resource::Member(member(m)),
        Resource::Vip(v) => v1::event::Resource::Vip(vip(v)),
    }
}

/// Renders a change.
pub fn event(change: &Change) -> v1::Event {
    let kind = match change.kind {
        ChangeKind::Created => v1::EventType::Created,
        ChangeKind::Updated => v1::EventType::Updated,
        ChangeKind::Deleted => v1::EventType::Deleted,
    };
    v1::Event { r#type: kind.into(), resource: Some(resource(&change.resource)) }
}

/// Renders what exists, from a change that would make it.
pub fn current_event(change: &Change) -> v1::Event {
    v1::Event { r#type: v1::EventType::Current.into(), ..event(change) }
}
