//! Virtual IPs and who holds them.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use trestle_model::defaults::TIME_MS_MAX;
use trestle_model::{
    Command, Document, InterfaceName, MemberId, Outcome, Tenure, Vip, VipAddress, VipName, VipSpec,
};

use crate::strategies::{NAME, choice, member_name, metadata, number, time};

fn vip_name() -> impl Strategy<Value = VipName> {
    NAME.prop_map(|name| VipName::parse(&name).unwrap())
}

fn interface() -> impl Strategy<Value = InterfaceName> {
    "[a-z][a-z0-9.-]{0,14}".prop_map(|name| InterfaceName::parse(&name).unwrap())
}

fn address() -> impl Strategy<Value = VipAddress> {
    (any::<std::net::IpAddr>(), 1..=128_u8)
        .prop_filter_map("no address for a vip", |(ip, len)| VipAddress::parse(&format!("{ip}/{len}")).ok())
}

fn vip_spec() -> BoxedStrategy<VipSpec> {
    let overrides = btree_map(member_name(), interface(), 0..3);
    let delay = (0..86_400_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n));
    let members = vec(member_name(), 0..3);
    (address(), of(interface()), overrides, choice(), members, delay, metadata())
        .prop_map(
            |(
                address,
                interface,
                interface_overrides,
                on_quorum_loss,
                preferred,
                preference_delay,
                metadata,
            )| {
                VipSpec {
                    address,
                    interface,
                    interface_overrides,
                    on_quorum_loss,
                    preferred,
                    preference_delay,
                    metadata,
                }
            },
        )
        .boxed()
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
    (vip_name(), vip_spec()).prop_map(Document::from)
}

fn reason() -> impl Strategy<Value = Arc<str>> {
    ".{0,80}".prop_map(Into::into)
}

fn tenure() -> impl Strategy<Value = Tenure> {
    (1..4_u64, 0..9_u64, 0..3_600_000_000_u32).prop_map(|(member, term, reach)| Tenure {
        member: MemberId(member),
        term,
        reach: Duration::from_micros(reach.into()),
        released: false,
    })
}

pub(crate) fn command() -> BoxedStrategy<Command> {
    prop_oneof![
        (member_name(), any::<bool>(), of(time()))
            .prop_map(|(name, draining, timeout)| Command::DrainMember { name, draining, timeout }),
        holding(),
    ]
    .boxed()
}

/// Takings and releases of a few members in a few terms.
pub(crate) fn holding() -> BoxedStrategy<Command> {
    prop_oneof![
        (tenure(), 0..=TIME_MS_MAX, reason()).prop_map(|(tenure, time_ms, reason)| Command::TakeVips {
            tenure,
            time_ms,
            reason
        }),
        (tenure(), 0..=TIME_MS_MAX, reason()).prop_map(|(Tenure { member, term, .. }, time_ms, reason)| {
            Command::ReleaseVips { member, term, time_ms, reason }
        }),
    ]
    .boxed()
}

/// A virtual IP that names no member, so that it can be created.
pub(crate) fn fitting() -> BoxedStrategy<Command> {
    ("[ab]", address())
        .prop_map(|(name, address)| Command::create((VipName::parse(&name).unwrap(), VipSpec::new(address))))
        .boxed()
}

pub(crate) fn outcome() -> BoxedStrategy<Outcome> {
    (vip_name(), vip_spec(), number())
        .prop_map(|(name, spec, revision)| Outcome::Vip(Arc::new(Vip { name, spec, revision })))
        .boxed()
}
