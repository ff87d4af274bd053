//! Whatever is told in whatever order: a fence is never to open beyond the lease, nor by anything but leadership.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{
    Elected, Fault, LeaseTiming, Ownership, OwnershipAction, OwnershipEvent, ServedVip, Tenure,
};
use super::bench::{ME, OTHER, THIRD, ms, vip};

fn event() -> impl Strategy<Value = OwnershipEvent> {
    let member = prop::sample::select(vec![ME, OTHER]);
    let tenure = (member, 1u64..4, any::<bool>()).prop_map(|(member, term, released)| Tenure {
        member,
        term,
        reach: LeaseTiming::default().reach(),
        released,
    });
    let elected = prop::sample::select(vec![Elected::ByTimeout, Elected::ByTransfer]);
    let fault = prop::sample::select(vec![Fault::DataPlane, Fault::Interface(vip(1)), Fault::Check]);
    prop_oneof![
        Just(OwnershipEvent::LinkRestored),
        prop::collection::btree_map((0u8..3).prop_map(vip), 0u8..2, 0..3).prop_map(|vips| {
            let on = |eth| std::sync::Arc::new(ServedVip::on(if eth == 0 { "eth0" } else { "eth1" }, 24));
            OwnershipEvent::Vips(vips.into_iter().map(|(address, eth)| (address, on(eth))).collect())
        }),
        (1u64..4, elected).prop_map(|(term, elected)| OwnershipEvent::Leading { term, elected }),
        Just(OwnershipEvent::Following),
        (1u64..4, 0u64..3000).prop_map(|(term, at)| OwnershipEvent::QuorumAcked { term, sent: ms(at) }),
        (1u64..4, prop::option::of(tenure))
            .prop_map(|(term, tenure)| OwnershipEvent::Applied { term, tenure }),
        Just(OwnershipEvent::Targets(vec![OTHER, THIRD])),
        (fault, any::<bool>()).prop_map(|(fault, present)| OwnershipEvent::Fault { fault, present }),
        prop::option::of(Just(OTHER)).prop_map(|to| OwnershipEvent::Move { to }),
        Just(OwnershipEvent::TransferBegan),
        ((0u8..3).prop_map(vip), any::<bool>(), any::<bool>())
            .prop_map(|(address, present, open)| OwnershipEvent::Kernel { address, present, open }),
        ((0u8..3).prop_map(vip), prop::option::of(0u64..4))
            .prop_map(|(address, term)| OwnershipEvent::Foreign { address, term }),
        Just(OwnershipEvent::Tick),
    ]
}

/// The term in which this member was told to lead, and the newest answer of each.
#[derive(Default)]
struct Told {
    leads: Option<u64>,
    acked: [Option<Duration>; 4],
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_fence_opens_beyond_the_lease(told in prop::collection::vec((event(), 0u64..120), 1..80)) {
        let mut machine = Ownership::new(ME, LeaseTiming::default());
        let (mut now, mut seen, mut tenure) = (ms(0), Told::default(), None);
        for (event, time) in told {
            now += ms(time);
            match &event {
                OwnershipEvent::Leading { term, .. } if seen.leads != Some(*term) => {
                    seen = Told { leads: Some(*term), ..Told::default() };
                }
                OwnershipEvent::Following => seen = Told::default(),
                OwnershipEvent::QuorumAcked { term, sent } if seen.leads == Some(*term) => {
                    let acked = &mut seen.acked[*term as usize];
                    *acked = (*acked).max(Some(*sent));
                }
                OwnershipEvent::Applied { tenure: agreed, .. } => tenure = *agreed,
                _ => {}
            }
            for action in machine.handle(event.clone(), now) {
                match action {
                    OwnershipAction::Claim { until, .. } | OwnershipAction::Renew { until, .. } | OwnershipAction::Repair { until, .. } => {
                        let term = seen.leads.unwrap();
                        prop_assert!(until > now);
                        prop_assert_eq!(until, seen.acked[term as usize].unwrap() + LeaseTiming::default().length);
                        let mine = tenure.unwrap();
                        prop_assert!((mine.member, mine.term, mine.released) == (ME, term, false));
                    }
                    OwnershipAction::WakeAt(at) => prop_assert!(at > now),
                    OwnershipAction::TransferLeadership { to } => prop_assert!(to != ME),
                    _ => {}
                }
            }
            let open = machine.facts().any(|facts| now < facts.until);
            let may_vote = machine.may_vote(9, now);
            prop_assert!(!(open && may_vote), "votes with an open fence");
            machine.voted(9, false);
        }
    }
}
