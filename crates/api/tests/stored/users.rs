use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use trestle_api::storage;
use trestle_model::defaults::TIME_MS_MAX;
use trestle_model::{
    ClusterId, Command, Expected, HostPort, KeyPin, Machine, MemberName, MemberSpec, Proposal, UserKey,
    UserName, UserSpec, Violations,
};

use crate::strategies::{choice, number};

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![Just(Expected::Any), Just(Expected::Absent), any::<u64>().prop_map(Expected::Revision)]
}

pub(crate) fn user_name() -> impl Strategy<Value = UserName> {
    "[a-c]".prop_map(|name| UserName::parse(&name).unwrap())
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let name = user_name;
    let key = || {
        (any::<[u8; 32]>(), number(), number(), any::<u32>()).prop_map(
            |(pin, not_after, not_before, authority)| UserKey {
                pin: KeyPin(pin),
                not_after,
                not_before,
                authority,
            },
        )
    };
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
        (name(), key()).prop_map(|(user, key)| Command::NoteUserCertificate { user, key }),
        (1..=TIME_MS_MAX).prop_map(|time_ms| Command::NoteTime { time_ms }),
    ]
}

/// Bytes that logs and snapshots out there hold.
#[test]
fn times_are_written_and_read_as_ever() {
    let path = format!("{}/tests/golden/times.txt", env!("CARGO_MANIFEST_DIR"));
    let key =
        UserKey { pin: KeyPin([7; 32]), not_after: 1_830_000_000, not_before: 1_800_000_000, authority: 2 };
    let name = UserName::parse("alice").unwrap();
    let user = UserSpec { name: name.clone(), role: trestle_model::Role::Viewer, keys: vec![key] };
    let later = UserKey { not_after: 1_840_000_000, not_before: 1_820_000_000, ..key };
    let address = HostPort::parse("m1.example:7481").unwrap();
    let member = MemberSpec {
        name: MemberName::parse("m1").unwrap(),
        peer_address: address.clone(),
        admin_address: address,
        feature_level_max: 2,
    };
    let cluster_id = ClusterId::parse("0123456789abcdef0123456789abcdef").unwrap();
    let commands = [
        Command::FoundCluster { cluster_id, member, identities: None },
        Command::NoteTime { time_ms: 1_800_000_000_123 },
        Command::PutUser { user, expected: Expected::Absent },
        Command::NoteUserCertificate { user: name, key: later },
    ];
    let log = commands.map(|command| Proposal { request: None, origin: None, command });
    let mut machine = Machine::default();
    for (index, proposal) in (1..).zip(&log) {
        machine.apply(index, proposal).unwrap();
    }
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let messages = log.iter().map(|proposal| storage::Proposal::from(proposal).encode_to_vec());
    let snapshot = storage::Machine::from(&machine);
    let written: String = messages.chain([snapshot.encode_to_vec()]).map(hex).collect();
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == golden, "the encoding of times changed; it is now:\n{written}");
    for proposal in &log {
        assert_eq!(Proposal::try_from(storage::Proposal::from(proposal)).unwrap(), *proposal);
    }
    assert_eq!(Machine::try_from(snapshot).unwrap(), machine);
    let mut broken = storage::Machine::from(&machine);
    broken.time_ms = TIME_MS_MAX + 1;
    let told = Machine::try_from(broken).unwrap_err().to_string();
    assert!(told.contains("time of the log"), "{told}");
}
