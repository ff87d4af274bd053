//! About how many bytes what is kept takes, for bounds of it. Every version counts alike, or members would differ in what they
//! keep.

use crate::command::Outcome;
use crate::document::Document;
use crate::listener::ListenerSpec;
use crate::pool::{BackendSpec, PoolSpec};
use crate::vip::VipSpec;

/// A backend's switch.
const ADMIN_STATE: usize = 128;

fn of_vip(spec: &VipSpec) -> usize {
    512 + 96 * (spec.interface_overrides.len() + spec.preferred.len()) + spec.metadata.weight()
}

fn of_pool(spec: &PoolSpec) -> usize {
    512 + spec.health.kind.weight() + spec.metadata.weight()
}

fn of_backend(spec: &BackendSpec) -> usize {
    512 + spec.metadata.weight()
}

fn of_listener(spec: &ListenerSpec) -> usize {
    let networks = spec.accept_proxy_from.len() + spec.allow.len() + spec.deny.len();
    let names = spec.routes.iter().map(|route| {
        let names = route.server_names.iter().map(|name| name.len() + 8);
        128 + names.chain(route.alpn.iter().map(|name| name.len() + 8)).sum::<usize>()
    });
    512 + 96 * spec.binds.len() + 48 * networks + names.sum::<usize>() + spec.metadata.weight()
}

impl Document {
    /// About how many bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Vip(_, spec) => of_vip(spec),
            Self::Pool(_, spec) => of_pool(spec),
            Self::Backend(.., spec) => of_backend(spec),
            Self::AdminState(..) => ADMIN_STATE,
            Self::Listener(_, spec) => of_listener(spec),
        }
    }
}

impl Outcome {
    /// As [`Document::weight`], of the documents that the resource is made of.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Pool(pool, _) => of_pool(&pool.spec),
            Self::Backend(_, backend) => of_backend(&backend.spec) + ADMIN_STATE,
            Self::Listener(listener) => of_listener(&listener.spec),
            Self::Vip(vip) => of_vip(&vip.spec),
            Self::Batch(changes) => 128 + changes.len(),
            Self::Founded(_) | Self::Member(_) => 1024,
            Self::Restored(_) | Self::Deleted | Self::Noted => 128,
        }
    }
}
