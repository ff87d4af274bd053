//! About how many bytes what is kept takes, for bounds of it.

use crate::change::Resource;
use crate::command::Outcome;
use crate::document::Document;

impl Document {
    /// About how many bytes it takes, for bounds of what is kept. Every version counts alike, or members would differ in what
    /// they keep.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Vip(_, spec) => {
                512 + 96 * (spec.interface_overrides.len() + spec.preferred.len()) + spec.metadata.weight()
            }
            Self::Pool(_, spec) => 512 + spec.health.kind.weight() + spec.metadata.weight(),
            Self::Backend(.., spec) => 512 + spec.metadata.weight(),
            Self::AdminState(..) => 128,
            Self::Listener(_, spec) => {
                let networks = spec.accept_proxy_from.len() + spec.allow.len() + spec.deny.len();
                let names = spec.routes.iter().map(|route| {
                    let names = route.server_names.iter().map(|name| name.len() + 8);
                    128 + names.chain(route.alpn.iter().map(|name| name.len() + 8)).sum::<usize>()
                });
                512 + 96 * spec.binds.len() + 48 * networks + names.sum::<usize>() + spec.metadata.weight()
            }
        }
    }
}

impl Outcome {
    /// As [`Document::weight`].
    pub(crate) fn weight(&self) -> usize {
        let of = |resource: &Resource| resource.documents().iter().map(Document::weight).sum();
        match self {
            Self::Pool(pool, _) => of(&Resource::Pool(pool.clone(), 0)),
            Self::Backend(pool, backend) => of(&Resource::Backend(pool.clone(), backend.clone())),
            Self::Listener(listener) => of(&Resource::Listener(listener.clone())),
            Self::Vip(vip) => of(&Resource::Vip(vip.clone())),
            Self::Batch(changes) => 128 + changes.len(),
            Self::Founded(_) | Self::Member(_) => 1024,
            Self::Restored(_) | Self::Deleted | Self::Noted => 128,
        }
    }
}
