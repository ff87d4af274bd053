//! Users and authorities.

use std::sync::Arc;

use trestle_model::{
    AuthorityState, ClusterId, ClusterState, Command, Configuration, Expected, FoundingIdentities, HostPort,
    KeyPin, MemberId, MemberName, MemberSpec, Outcome, Refusal, Role, TransportSecurity, UserKey, UserName,
    UserSpec,
};

fn cluster(feature_level_max: u32) -> ClusterState {
    let address = HostPort::parse("m1.example:7481").unwrap();
    let member = MemberSpec {
        name: MemberName::parse("m1").unwrap(),
        peer_address: address.clone(),
        admin_address: address,
        feature_level_max,
    };
    let mut state = ClusterState::default();
    let cluster_id = ClusterId::parse(&"0a".repeat(16)).unwrap();
    let identities = (feature_level_max > 1).then(|| FoundingIdentities {
        authority: [1, 2, 3].into(),
        external: false,
        founder_key: Some(KeyPin([1; 32])),
        transport: TransportSecurity::Off,
        token: None,
    });
    state.apply(2, &Command::FoundCluster { cluster_id, member, identities }).unwrap();
    state
}

fn user(name: &str, role: Role, pins: &[u8]) -> UserSpec {
    let key = |pin: &u8| UserKey { pin: KeyPin([*pin; 32]), not_after: 9, not_before: 0, authority: 0 };
    UserSpec { name: UserName::parse(name).unwrap(), role, keys: pins.iter().map(key).collect() }
}

fn put(user: UserSpec, expected: Expected) -> Command {
    Command::PutUser { user, expected }
}

fn refused(state: &mut ClusterState, command: &Command) -> String {
    let before = state.clone();
    let refused = state.apply(50, command).unwrap_err();
    assert_eq!(*state, before);
    assert_eq!(state.decide(50, command).unwrap_err(), refused);
    refused.to_string()
}

#[test]
fn a_cluster_is_founded_with_the_authority_whose_key_its_founder_has() {
    let state = cluster(2);
    let first = &state.authorities[&1];
    assert_eq!((&*first.certificate, first.state), (&[1, 2, 3][..], AuthorityState::Active));
    assert_eq!(first.key_holders, [MemberId(1)]);
}

#[test]
fn a_user_is_made_changed_and_deleted_each_under_a_revision_of_its_own() {
    let mut state = cluster(2);
    let alice = user("alice", Role::Viewer, &[1]);
    state.apply(3, &put(alice.clone(), Expected::Absent)).unwrap();
    assert_eq!((state.revision, state.users[&alice.name].revision), (3, 3));
    let again = refused(&mut state, &put(alice.clone(), Expected::Absent));
    assert_eq!(again, "user \"alice\" exists already (revision 3); choose another name or update it");
    // What is as it was keeps its revision.
    assert_eq!(state.apply(4, &put(alice.clone(), Expected::Any)).unwrap().revision, 3);
    assert_eq!((state.revision, state.users[&alice.name].revision), (3, 3));
    let rotated = user("alice", Role::Viewer, &[1, 2]);
    state.apply(5, &put(rotated.clone(), Expected::Revision(3))).unwrap();
    assert_eq!((state.revision, &state.users[&alice.name].spec), (5, &rotated));
    assert!(
        refused(&mut state, &put(alice.clone(), Expected::Revision(3)))
            .contains("is at revision 5, not at 3")
    );
    let delete = |expected| Command::DeleteUser { name: UserName::parse("alice").unwrap(), expected };
    assert!(refused(&mut state, &delete(Some(3))).contains("is at revision 5"));
    assert_eq!(state.apply(6, &delete(Some(5))).unwrap().outcome, Outcome::Deleted);
    assert_eq!((state.revision, state.users.len()), (6, 0));
    assert_eq!(refused(&mut state, &delete(None)), "user \"alice\" does not exist");
}

#[test]
fn one_key_is_one_user_and_a_user_has_one_or_two() {
    let mut state = cluster(2);
    state.apply(3, &put(user("alice", Role::Admin, &[1, 2]), Expected::Absent)).unwrap();
    let taken = refused(&mut state, &put(user("bob", Role::Admin, &[3, 2]), Expected::Absent));
    assert!(taken.contains("is a key of user \"alice\" already; make a new one"), "{taken}");
    for pins in [&[][..], &[3, 3], &[3, 4, 5]] {
        let rule = refused(&mut state, &put(user("bob", Role::Admin, pins), Expected::Absent));
        assert!(rule.contains("must be 1 to 2 different keys"), "{rule}");
    }
}

#[test]
fn there_are_no_users_before_all_members_know_of_them() {
    let mut state = cluster(1);
    let early = refused(&mut state, &put(user("alice", Role::Admin, &[1]), Expected::Absent));
    assert!(early.contains("this needs feature level 2"), "{early}");
}

#[test]
fn a_restore_and_a_recovery_leave_users_and_authorities_alone() {
    let mut state = cluster(2);
    state.apply(3, &put(user("alice", Role::Admin, &[1]), Expected::Absent)).unwrap();
    let (users, authorities) = (state.users.clone(), state.authorities.clone());
    let configuration = Arc::new(Configuration::default());
    state.apply(4, &Command::Restore { configuration, replace: true }).unwrap();
    state.apply(5, &Command::Recover { member: MemberId(1), recovery: 1, draw: 5 }).unwrap();
    assert_eq!((state.users, state.authorities), (users, authorities));
}

#[test]
fn there_is_a_bound_of_users() {
    let mut state = cluster(2);
    for number in 0..1000_u16 {
        let mut one = user(&format!("u{number}"), Role::Viewer, &[1]);
        one.keys[0].pin.0[..2].copy_from_slice(&number.to_be_bytes());
        state.apply(3 + u64::from(number), &put(one, Expected::Absent)).unwrap();
    }
    let full = state.apply(5000, &put(user("more", Role::Viewer, &[9]), Expected::Absent)).unwrap_err();
    assert!(matches!(full, Refusal::Full { max: 1000, .. }), "{full}");
}

fn pin(id: u64, key: u8) -> Command {
    Command::PinMemberKey { id: MemberId(id), key: KeyPin([key; 32]) }
}

fn second(state: &mut ClusterState, index: u64) {
    let address = HostPort::parse("m2.example:7481").unwrap();
    let spec = MemberSpec {
        name: MemberName::parse("m2").unwrap(),
        peer_address: address.clone(),
        admin_address: address,
        feature_level_max: 2,
    };
    state.apply(index, &Command::AddMember(spec)).unwrap();
}

#[test]
fn a_member_is_known_by_its_newest_two_keys_until_it_is_removed() {
    let mut state = cluster(2);
    second(&mut state, 3);
    assert!(state.is_key_of(MemberId(1), &KeyPin([1; 32])));
    for (index, key) in [(4, 7), (5, 8), (6, 9)] {
        assert_eq!(state.apply(index, &pin(3, key)).unwrap().revision, index);
    }
    assert_eq!(state.member_keys[&MemberId(3)], [KeyPin([9; 32]), KeyPin([8; 32])]);
    // What is the newest one already changes nothing; an older one becomes it.
    assert_eq!(state.apply(7, &pin(3, 9)).unwrap().revision, 6);
    state.apply(8, &pin(3, 8)).unwrap();
    assert_eq!(state.member_keys[&MemberId(3)], [KeyPin([8; 32]), KeyPin([9; 32])]);
    let taken = refused(&mut state, &pin(1, 8));
    assert!(taken.contains("is a key of member 3 already"), "{taken}");
    assert!(refused(&mut state, &pin(9, 20)).contains("does not exist"));
    assert_eq!(state.member_with_key(&KeyPin([9; 32])), Some(MemberId(3)));
    state.apply(9, &Command::RemoveMember(MemberId(3))).unwrap();
    assert_eq!(state.member_with_key(&KeyPin([9; 32])), None);
}

#[test]
fn tls_is_required_only_once_every_member_has_a_key_and_never_dropped_at_once() {
    let mut state = cluster(2);
    second(&mut state, 3);
    let set = Command::SetTransport;
    let without = refused(&mut state, &set(TransportSecurity::Require));
    assert!(without.contains("needs a key of every member, and has none of m2; run"), "{without}");
    state.apply(4, &set(TransportSecurity::Accept)).unwrap();
    state.apply(5, &pin(3, 7)).unwrap();
    state.apply(6, &set(TransportSecurity::Require)).unwrap();
    assert_eq!((state.transport, state.revision), (TransportSecurity::Require, 6));
    assert_eq!(state.apply(7, &set(TransportSecurity::Require)).unwrap().revision, 6);
    assert!(refused(&mut state, &set(TransportSecurity::Off)).contains("must be accept before"));
    state.apply(8, &set(TransportSecurity::Accept)).unwrap();
    state.apply(9, &set(TransportSecurity::Off)).unwrap();
    let level = refused(&mut cluster(1), &set(TransportSecurity::Accept));
    assert!(level.contains("feature level 2"), "{level}");
}

#[test]
fn a_new_certificate_of_a_key_is_noted_and_an_old_one_or_one_of_another_key_is_not() {
    let mut state = cluster(2);
    let alice = user("alice", Role::Viewer, &[1, 2]);
    state.apply(3, &put(alice.clone(), Expected::Absent)).unwrap();
    let note = |pin, not_after, authority| Command::NoteUserCertificate {
        user: UserName::parse("alice").unwrap(),
        key: UserKey { pin: KeyPin([pin; 32]), not_after, not_before: 5, authority },
    };
    assert_eq!(state.apply(4, &note(2, 20, 1)).unwrap().revision, 4);
    let kept = |state: &ClusterState| {
        let user = &state.users[&alice.name];
        (state.revision, user.revision, user.spec.keys[0].not_after, user.spec.keys[1].not_after)
    };
    assert_eq!(kept(&state), (4, 4, 9, 20));
    assert_eq!(state.users[&alice.name].spec.keys[1].not_before, 5);
    for old in [note(2, 20, 1), note(2, 19, 1)] {
        assert_eq!(state.apply(5, &old).unwrap().revision, 4);
        assert_eq!(kept(&state), (4, 4, 9, 20));
    }
    // Of a later authority it counts though it ends earlier.
    state.apply(6, &note(2, 19, 2)).unwrap();
    assert_eq!(kept(&state), (6, 6, 9, 19));
    assert!(refused(&mut state, &note(3, 30, 1)).contains("it was rotated"));
    state.users.clear();
    assert_eq!(refused(&mut state, &note(1, 30, 1)), "user \"alice\" does not exist");
}

#[test]
fn the_time_of_the_log_never_goes_back_and_moves_by_a_day_at_most() {
    const DAY: u64 = 24 * 3600 * 1000;
    const NOW: u64 = 1_800_000_000_000;
    let mut state = cluster(2);
    let note = |time_ms| Command::NoteTime { time_ms };
    state.apply(3, &note(NOW)).unwrap();
    assert_eq!((state.time_ms, state.revision), (NOW, 2), "it is no part of the configuration");
    // As one that comes twice.
    state.apply(4, &note(NOW)).unwrap();
    for wrong in [0, 1, NOW - 1, NOW + DAY + 1, NOW + 3650 * DAY, u64::MAX] {
        assert!(refused(&mut state, &note(wrong)).contains("never goes back"), "{wrong}");
    }
    state.apply(4, &note(NOW + 1)).unwrap();
    state.apply(5, &note(state.time_max_ms())).unwrap();
    assert_eq!(state.time_ms, NOW + 1 + DAY);
    // Where members do not know it yet, the leader does not ask.
    assert!(refused(&mut cluster(1), &note(NOW)).contains("feature level 2"));
}
