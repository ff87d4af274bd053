//! What of a proposal takes how many bytes, for proposals that take too many.

use prost::Message as _;

use crate::storage::{ListenerSpec, Proposal, proposal::Command};

/// The settings of a proposal of which some can be given in another one, and the bytes that they take; the largest first.
/// Empty for a proposal that cannot be split.
pub fn splittable(proposal: &Proposal) -> Vec<(&'static str, usize)> {
    let spec = match &proposal.command {
        Some(Command::CreateListener(create)) => create.spec.as_ref(),
        Some(Command::UpdateListener(update)) => update.patch.as_ref(),
        _ => None,
    };
    let Some(spec) = spec.cloned() else { return Vec::new() };
    let size = |spec: ListenerSpec| spec.encoded_len();
    let none = ListenerSpec::default;
    let mut sizes = vec![
        ("binds", size(ListenerSpec { binds: spec.binds, ..none() })),
        ("routes", size(ListenerSpec { routes: spec.routes, ..none() })),
        ("accept_proxy_from", size(ListenerSpec { accept_proxy_from: spec.accept_proxy_from, ..none() })),
        ("allow", size(ListenerSpec { allow: spec.allow, ..none() })),
        ("deny", size(ListenerSpec { deny: spec.deny, ..none() })),
    ];
    sizes.retain(|(_, bytes)| *bytes > 0);
    sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sizes
}
