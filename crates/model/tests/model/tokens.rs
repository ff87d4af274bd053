//! Tokens, and members that join by them.

use trestle_model::{
    ClusterId, ClusterState, Command, FoundingIdentities, HostPort, JoinAs, JoinTokenSpec, KeyPin, MemberId,
    MemberName, MemberSpec, Outcome, Refusal, SecretHash, TokenId, TokenRefusal, TransportSecurity,
};

const HOUR_MS: u64 = 3_600_000;
const NOW: u64 = 1_700_000_000_000;

fn spec(name: &str) -> MemberSpec {
    let address = HostPort::parse(&format!("{name}.example:7481")).unwrap();
    MemberSpec {
        name: MemberName::parse(name).unwrap(),
        peer_address: address.clone(),
        admin_address: address,
        feature_level_max: 2,
    }
}

fn founded(feature_level_max: u32, authority: bool) -> ClusterState {
    founded_with(feature_level_max, authority, None)
}

fn founded_with(feature_level_max: u32, authority: bool, token: Option<JoinTokenSpec>) -> ClusterState {
    let identities = authority.then(|| FoundingIdentities {
        authority: [1, 2, 3].into(),
        external: false,
        founder_key: Some(KeyPin([1; 32])),
        transport: TransportSecurity::Require,
        token,
    });
    let cluster_id = ClusterId::parse(&"0a".repeat(16)).unwrap();
    let member = MemberSpec { feature_level_max, ..spec("m1") };
    let mut state = ClusterState::default();
    state.apply(2, &Command::FoundCluster { cluster_id, member, identities }).unwrap();
    state
}

fn id(number: u8) -> TokenId {
    TokenId([number; 8])
}

fn token(number: u8, uses: u32) -> JoinTokenSpec {
    JoinTokenSpec {
        id: id(number),
        secret_hash: SecretHash([number; 32]),
        joins_as: JoinAs::Voter,
        uses,
        not_after_ms: NOW + HOUR_MS,
        authority: 1,
    }
}

fn put(token: JoinTokenSpec) -> Command {
    Command::PutToken { token, time_ms: NOW }
}

/// A member of that name and key, which has that token.
fn join(name: &str, key: u8, token: u8) -> Command {
    Command::JoinMember {
        spec: spec(name),
        key: KeyPin([key; 32]),
        token: id(token),
        secret_hash: SecretHash([token; 32]),
        time_ms: NOW,
    }
}

fn refused(state: &mut ClusterState, command: &Command) -> Refusal {
    let before = state.clone();
    let refused = state.apply(50, command).unwrap_err();
    assert_eq!(*state, before);
    assert_eq!(state.decide(50, command).unwrap_err(), refused);
    refused
}

fn token_refused(state: &mut ClusterState, command: &Command) -> TokenRefusal {
    match refused(state, command) {
        Refusal::Token { why, .. } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn one_command_uses_the_token_allocates_the_id_and_pins_the_key() {
    let mut state = founded(2, true);
    state.apply(3, &put(token(7, 2))).unwrap();
    let applied = state.apply(9, &join("m2", 2, 7)).unwrap();
    let Outcome::Member(member) = applied.outcome else { panic!("{applied:?}") };
    assert_eq!((applied.revision, member.id, &member.spec), (9, MemberId(9), &spec("m2")));
    assert_eq!((state.revision, state.member_with_key(&KeyPin([2; 32]))), (9, Some(MemberId(9))));
    assert_eq!(state.joins_as[&MemberId(9)], JoinAs::Voter);
    assert_eq!((state.tokens[&id(7)].uses_left, state.tokens[&id(7)].revision), (1, 9));
    state.apply(10, &Command::RemoveMember(MemberId(9))).unwrap();
    assert_eq!((state.joins_as.len(), state.member_with_key(&KeyPin([2; 32]))), (0, None));
}

#[test]
fn of_two_keys_that_race_for_a_token_one_joins() {
    let mut state = founded(2, true);
    state.apply(3, &put(token(7, 1))).unwrap();
    state.apply(4, &join("m2", 2, 7)).unwrap();
    let why = token_refused(&mut state, &join("m3", 3, 7));
    assert_eq!(why, TokenRefusal::UsedUp("1 member".to_owned()));
    // The same key is answered alike, and takes no use, also when the token has gone.
    for index in [5, 6] {
        let again = state.apply(index, &join("m2", 2, 7)).unwrap();
        let Outcome::Member(member) = again.outcome else { panic!("{again:?}") };
        assert_eq!((again.revision, member.id, state.revision), (4, MemberId(4), 4));
        if index == 5 {
            // What is used up goes with the next command about tokens.
            let mut next = state.clone();
            next.apply(6, &put(token(8, 1))).unwrap();
            assert_eq!(next.tokens.keys().collect::<Vec<_>>(), [&id(8)]);
            assert_eq!(token_refused(&mut next, &join("m3", 3, 7)), TokenRefusal::Unknown);
            next.apply(7, &join("m2", 2, 7)).unwrap();
        }
    }
}

#[test]
fn nobody_joins_by_a_token_that_is_not_known_or_over() {
    let mut state = founded(2, true);
    state.apply(3, &put(token(7, 5))).unwrap();
    assert_eq!(token_refused(&mut state, &join("m2", 2, 8)), TokenRefusal::Unknown);
    let with = |secret_hash: u8, time_ms: u64| match join("m2", 2, 7) {
        Command::JoinMember { spec, key, token, .. } => {
            Command::JoinMember { spec, key, token, secret_hash: SecretHash([secret_hash; 32]), time_ms }
        }
        other => other,
    };
    assert_eq!(token_refused(&mut state, &with(9, NOW)), TokenRefusal::Unknown);
    let late = refused(&mut state, &with(7, NOW + HOUR_MS + 60_000));
    assert_eq!(
        late.to_string(),
        "join token 0707070707070707 has expired, 60 s ago by the clock of the leader; make another one with \"trestle token create\""
    );
    let mut until_the_end = state.clone();
    until_the_end.apply(4, &with(7, NOW + HOUR_MS)).unwrap();
    assert_eq!(until_the_end.tokens[&id(7)].uses_left, 4);
    state.apply(4, &Command::DeleteToken(id(7))).unwrap();
    assert_eq!(token_refused(&mut state, &join("m2", 2, 7)), TokenRefusal::Unknown);
    assert!(matches!(refused(&mut state, &Command::DeleteToken(id(7))), Refusal::NotFound { .. }));
}

#[test]
fn who_joins_is_a_member_like_any_other() {
    let mut state = founded(2, true);
    state.apply(3, &put(token(7, 5))).unwrap();
    let exists = refused(&mut state, &join("m1", 2, 7)).to_string();
    assert!(exists.contains("member \"m1\" exists already"), "{exists}");
    // The founder's own key, under another name.
    let key = refused(&mut state, &join("m2", 1, 7)).to_string();
    assert!(key.contains("has the key of member \"m1\""), "{key}");
    state.apply(4, &join("m2", 2, 7)).unwrap();
    let Command::JoinMember { spec: mut moved, key, token, secret_hash, time_ms } = join("m2", 2, 7) else {
        panic!("no join")
    };
    moved.peer_address = HostPort::parse("10.0.0.9:7481").unwrap();
    // Until its process is recorded it may say another address, if it has the token.
    let other = Command::JoinMember { spec: moved.clone(), key, token: id(9), secret_hash, time_ms };
    state.apply(5, &other).unwrap();
    assert_eq!(state.members[&MemberId(4)].spec, spec("m2"));
    let again = Command::JoinMember { spec: moved.clone(), key, token, secret_hash, time_ms };
    state.apply(6, &again).unwrap();
    assert_eq!((&state.members[&MemberId(4)].spec, state.tokens[&id(7)].uses_left), (&moved, 4));
    let (member, feature_level_max) = (MemberId(4), 2);
    let start = Command::NoteStart { member, start: 1, replaces: 0, sockets: None, feature_level_max };
    state.apply(7, &start).unwrap();
    state.apply(8, &join("m2", 2, 7)).unwrap();
    assert_eq!(state.members[&MemberId(4)].spec, moved);
}

#[test]
fn there_is_a_bound_of_tokens_and_what_is_over_makes_place() {
    let mut state = founded(2, true);
    for number in 0..100 {
        state.apply(3 + u64::from(number), &put(token(number, 1))).unwrap();
    }
    assert!(matches!(refused(&mut state, &put(token(200, 1))), Refusal::Full { max: 100, .. }));
    let later = Command::PutToken {
        token: JoinTokenSpec { not_after_ms: NOW + 3 * HOUR_MS, ..token(200, 1) },
        time_ms: NOW + 2 * HOUR_MS,
    };
    state.apply(200, &later).unwrap();
    assert_eq!(state.tokens.len(), 1);
    let uses = refused(&mut state, &put(token(1, 101))).to_string();
    assert!(uses.contains("token.uses \"101\": must be 1 to 100"), "{uses}");
    assert_eq!(state.apply(201, &later).unwrap().revision, 200, "the same token again");
    let other = Command::PutToken { token: token(200, 2), time_ms: NOW };
    assert!(matches!(refused(&mut state, &other), Refusal::Exists { .. }));
}

#[test]
fn there_are_no_tokens_without_an_authority_or_before_all_members_know_of_them() {
    let none = refused(&mut founded(2, false), &put(token(7, 1))).to_string();
    assert!(none.contains("needs an authority"), "{none}");
    let early = refused(&mut founded(1, false), &put(token(7, 1))).to_string();
    assert!(early.contains("this needs feature level 2"), "{early}");
}

#[test]
fn who_has_an_authoritys_key_is_noted_once_each() {
    let mut state = founded(2, true);
    state.apply(3, &put(token(7, 1))).unwrap();
    state.apply(4, &join("m2", 2, 7)).unwrap();
    let note = |generation, member| Command::NoteKeyHolder { generation, member: MemberId(member) };
    for index in [5, 6] {
        state.apply(index, &note(1, 4)).unwrap();
    }
    assert_eq!((&state.authorities[&1].key_holders, state.revision), (&vec![MemberId(1), MemberId(4)], 5));
    // A token that is used up is told of as such, whatever else is noted.
    assert!(matches!(token_refused(&mut state, &join("m3", 3, 7)), TokenRefusal::UsedUp(_)));
    assert!(matches!(refused(&mut state, &note(2, 4)), Refusal::NotFound { .. }));
    assert!(matches!(refused(&mut state, &note(1, 9)), Refusal::NotFound { .. }));
}

#[test]
fn a_cluster_is_founded_together_with_the_token_of_its_other_initial_members() {
    let mut state = founded_with(2, true, Some(token(7, 2)));
    assert_eq!((state.tokens[&id(7)].uses_left, state.tokens[&id(7)].revision), (2, 2));
    for (index, name, key) in [(3, "m2", 2), (4, "m3", 3)] {
        let joined = state.apply(index, &join(name, key, 7)).unwrap();
        assert!(matches!(joined.outcome, Outcome::Member(_)), "{joined:?}");
    }
    let refused = state.apply(5, &join("m4", 4, 7)).unwrap_err();
    assert!(matches!(refused, Refusal::Token { .. }), "{refused:?}");
    let cluster_id = ClusterId::parse(&"0a".repeat(16)).unwrap();
    let identities = FoundingIdentities {
        authority: [1].into(),
        external: false,
        founder_key: None,
        transport: TransportSecurity::Require,
        token: Some(token(7, 0)),
    };
    let wrong = Command::FoundCluster { cluster_id, member: spec("m1"), identities: Some(identities) };
    let refused = ClusterState::default().apply(1, &wrong).unwrap_err();
    assert!(refused.to_string().contains("token.uses"), "{refused}");
}
