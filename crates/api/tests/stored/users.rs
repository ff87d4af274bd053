use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use trestle_model::{Command, Expected, KeyPin, UserKey, UserName, UserSpec, Violations};

use crate::strategies::{choice, number};

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![Just(Expected::Any), Just(Expected::Absent), any::<u64>().prop_map(Expected::Revision)]
}

pub(crate) fn user_name() -> impl Strategy<Value = UserName> {
    "[a-c]".prop_map(|name| UserName::parse(&name).unwrap())
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let name = user_name;
    let key =
        || (any::<[u8; 32]>(), number()).prop_map(|(pin, not_after)| UserKey { pin: KeyPin(pin), not_after });
    prop_oneof![
        (name(), choice(), vec(key(), 1..3), expected())
            .prop_map(|(name, role, keys, expected)| (UserSpec { name, role, keys }, expected))
            .prop_filter("two equal keys", |(user, _)| {
                let mut violations = Violations::new();
                user.check(&mut violations);
                violations.is_empty()
            })
            .prop_map(|(user, expected)| Command::PutUser { user, expected }),
        (name(), of(any::<u64>())).prop_map(|(name, expected)| Command::DeleteUser { name, expected }),
    ]
}
