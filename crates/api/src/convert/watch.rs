//! Events of a watch.

use trestle_model::{Change, ChangeKind, ClusterState, Resource};

use super::{backend, listener, member, name, pool, vip};
use crate::changed_fields::changed_fields;
use crate::{storage, v1};

/// Settings of an update that are named.
const FIELDS_MAX: usize = 16;

fn resource(resource: &Resource) -> v1::event::Resource {
    match resource {
        Resource::Pool(p, backends) => v1::event::Resource::Pool(pool(p, *backends)),
        Resource::Backend(p, b) => v1::event::Resource::Backend(backend(p, b)),
        Resource::Listener(l) => v1::event::Resource::Listener(listener(l)),
        Resource::Member(m) => v1::event::Resource::Member(member(m)),
        Resource::Vip(v) => v1::event::Resource::Vip(vip(v)),
    }
}

fn kind(change: &Change) -> v1::EventType {
    match change.kind {
        ChangeKind::Created => v1::EventType::Created,
        ChangeKind::Updated => v1::EventType::Updated,
        ChangeKind::Deleted => v1::EventType::Deleted,
    }
}

/// The settings that an update changed.
fn fields(change: &Change) -> Vec<String> {
    let before = change.before.as_ref().map(resource);
    use v1::event::Resource as Rendered;
    let mut fields = match (before, resource(&change.resource)) {
        (Some(Rendered::Pool(before)), Rendered::Pool(now)) => changed_fields(&before, &now),
        (Some(Rendered::Backend(before)), Rendered::Backend(now)) => changed_fields(&before, &now),
        (Some(Rendered::Listener(before)), Rendered::Listener(now)) => changed_fields(&before, &now),
        (Some(Rendered::Member(before)), Rendered::Member(now)) => changed_fields(&before, &now),
        (Some(Rendered::Vip(before)), Rendered::Vip(now)) => changed_fields(&before, &now),
        _ => Vec::new(),
    };
    fields.truncate(FIELDS_MAX);
    fields
}

/// Renders a change without the settings of what changed, but for the names of those that an update changed.
pub fn resource_change(change: &Change) -> v1::ResourceChange {
    let name = match &change.resource {
        Resource::Pool(pool, _) => name::pool_name(&pool.name),
        Resource::Backend(pool, backend) => name::backend_name(pool, &backend.name),
        Resource::Listener(listener) => name::listener_name(&listener.name),
        Resource::Member(member) => name::member_name(&member.spec.name),
        Resource::Vip(vip) => name::vip_name(&vip.name),
    };
    v1::ResourceChange { r#type: kind(change).into(), name, fields: fields(change) }
}

/// Renders a change.
pub fn event(change: &Change) -> v1::Event {
    v1::Event { r#type: kind(change).into(), resource: Some(resource(&change.resource)) }
}

/// Renders what is agreed on beside the resources.
pub fn cluster_facts(state: &ClusterState) -> v1::ClusterFacts {
    let sockets = state.sockets.iter().map(|(id, sockets)| {
        let storage::MemberSockets { admin, peer, http, data_address, network } = (&**sockets).into();
        v1::MemberSockets { member_id: id.0, admin, peer, http, data_address, network }
    });
    v1::ClusterFacts {
        cluster_id: state.cluster_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        recovery: state.recovery,
        feature_level: state.feature_level,
        member_sockets: sockets.collect(),
    }
}

/// Renders what exists, from a change that would make it.
pub fn current_event(change: &Change) -> v1::Event {
    v1::Event { r#type: v1::EventType::Current.into(), ..event(change) }
}
