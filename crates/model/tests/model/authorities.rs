//! Authorities: one after the other, and which of them is believed.

use std::sync::Arc;

use trestle_model::{
    AuthorityState, ClusterId, ClusterState, Command, CrossCertificate, FoundingIdentities, HostPort, JoinAs,
    JoinTokenSpec, KeyPin, MemberId, MemberName, MemberSpec, Outcome, Refusal, SecretHash, TokenId,
    TransportSecurity,
};

use AuthorityState::{Active, Retired, Trusted};

const M1: MemberId = MemberId(1);

fn founded(with_authority: bool) -> ClusterState {
    let address = HostPort::parse("m1.example:7481").unwrap();
    let member = MemberSpec {
        name: MemberName::parse("m1").unwrap(),
        peer_address: address.clone(),
        admin_address: address,
        feature_level_max: 2,
    };
    let identities = with_authority.then(|| FoundingIdentities {
        authority: [1].into(),
        external: false,
        founder_key: Some(KeyPin([1; 32])),
        transport: TransportSecurity::Require,
        token: None,
    });
    let mut state = ClusterState::default();
    let cluster_id = ClusterId::parse(&"0a".repeat(16)).unwrap();
    state.apply(2, &Command::FoundCluster { cluster_id, member, identities }).unwrap();
    state
}

/// The authority of that generation, for which the one before has signed.
fn add(generation: u32) -> Command {
    let byte = u8::try_from(generation).unwrap();
    Command::AddAuthority {
        generation,
        certificate: [byte].into(),
        cross: Some(CrossCertificate { signer: generation - 1, certificate: [byte, 100].into() }),
        maker: Some(M1),
    }
}

fn token(number: u8, authority: u32) -> Command {
    let token = JoinTokenSpec {
        id: TokenId([number; 8]),
        secret_hash: SecretHash([number; 32]),
        joins_as: JoinAs::Voter,
        uses: 1,
        not_after_ms: 2_000,
        authority,
    };
    Command::PutToken { token, time_ms: 1_000 }
}

/// Applies these from an index on.
fn apply(state: &mut ClusterState, index: u64, commands: &[Command]) {
    for (index, command) in (index..).zip(commands) {
        state.apply(index, command).unwrap();
        assert_eq!(state.revision, index, "{command:?}");
    }
}

fn states(state: &ClusterState) -> Vec<(u32, AuthorityState)> {
    state.authorities.values().map(|authority| (authority.generation, authority.state)).collect()
}

fn refused(state: &mut ClusterState, command: &Command) -> String {
    let before = state.clone();
    let refused = state.apply(90, command).unwrap_err();
    assert_eq!(*state, before);
    assert_eq!(state.decide(90, command).unwrap_err(), refused);
    refused.to_string()
}

#[test]
fn an_authority_is_believed_then_signs_and_is_then_believed_no_more() {
    let mut state = founded(true);
    apply(&mut state, 3, &[add(2)]);
    assert_eq!(states(&state), [(1, Active), (2, Trusted)]);
    assert_eq!(state.coming_authority().unwrap().generation, 2);
    assert_eq!(state.authorities[&2].key_holders, [M1]);
    let signing = |state: &ClusterState| -> Vec<u32> {
        state.signing_authorities().map(|authority| authority.generation).collect()
    };
    assert_eq!(signing(&state), [1, 2]);
    apply(&mut state, 4, &[Command::ActivateAuthority(2)]);
    assert_eq!(states(&state), [(1, Trusted), (2, Active)]);
    assert!(state.coming_authority().is_none());
    assert_eq!((state.believed_authorities().count(), signing(&state)), (2, vec![2]));
    apply(&mut state, 5, &[Command::RetireAuthority(1)]);
    assert_eq!(states(&state), [(1, Retired), (2, Active)]);
    assert_eq!((state.believed_authorities().count(), state.retired_authorities().count()), (1, 1));
    // Each again, as whoever repeats it does.
    for again in [add(2), Command::ActivateAuthority(2), Command::RetireAuthority(1)] {
        let before = state.clone();
        let applied = state.apply(9, &again).unwrap();
        assert_eq!((applied.revision, applied.outcome), (5, Outcome::Noted), "{again:?}");
        assert_eq!(state, before);
    }
}

#[test]
fn what_is_out_of_turn_is_refused() {
    let mut state = founded(true);
    for (command, why) in [
        (add(3), "must be 2, one more than the newest"),
        (Command::RetireAuthority(1), "signs, and cannot be retired"),
        (Command::ActivateAuthority(2), "authority \"2\" does not exist"),
        (Command::RetireAuthority(2), "authority \"2\" does not exist"),
    ] {
        let told = refused(&mut state, &command);
        assert!(told.contains(why), "{told}");
    }
    let Command::AddAuthority { certificate, cross, .. } = add(2) else { panic!() };
    let by_nobody = Command::AddAuthority { generation: 2, certificate, cross, maker: Some(MemberId(9)) };
    assert!(matches!(state.decide(3, &by_nobody), Err(Refusal::NotFound { .. })));
    apply(&mut state, 3, &[add(2)]);
    let told = refused(&mut state, &add(3));
    assert!(told.contains("while authority 2 has yet to become the one that signs"), "{told}");
    // Of two leaders that make the second one each, one has made it.
    let another =
        Command::AddAuthority { generation: 2, certificate: [9].into(), cross: None, maker: Some(M1) };
    assert!(refused(&mut state, &another).contains("must be 3"));
    apply(&mut state, 4, &[Command::ActivateAuthority(2)]);
    let told = refused(&mut state, &Command::ActivateAuthority(1));
    assert!(told.contains("is older than 2, which signs"), "{told}");
    apply(&mut state, 5, &[Command::RetireAuthority(1)]);
    assert!(refused(&mut state, &Command::ActivateAuthority(1)).contains("was retired"));
    // One that never signed, as when nobody has its key any more.
    apply(&mut state, 6, &[add(3), Command::RetireAuthority(3)]);
    assert!(refused(&mut state, &Command::ActivateAuthority(3)).contains("was retired"));
    assert!(state.decide(90, &add(4)).is_ok());
    // A cluster of an earlier version gets its first one.
    let mut without = founded(false);
    assert!(refused(&mut without, &add(2)).contains("must be 1"));
    apply(&mut without, 3, &[add(1)]);
    assert_eq!(without.coming_authority().unwrap().generation, 1);
    apply(&mut without, 4, &[Command::ActivateAuthority(1)]);
    assert_eq!(without.active_authority().unwrap().key_holders, [M1]);
}

#[test]
fn there_are_four_at_most_and_the_oldest_retired_one_goes() {
    let mut state = founded(true);
    let mut index = 3;
    for generation in 2..=6 {
        let turn = [
            add(generation),
            Command::ActivateAuthority(generation),
            Command::RetireAuthority(generation - 1),
        ];
        apply(&mut state, index, &turn);
        index += 3;
    }
    assert_eq!(states(&state), [(3, Retired), (4, Retired), (5, Retired), (6, Active)]);
    // Without one that is retired nothing goes.
    let mut state = founded(true);
    for generation in 2..=4 {
        apply(
            &mut state,
            u64::from(generation) * 2,
            &[add(generation), Command::ActivateAuthority(generation)],
        );
    }
    assert!(matches!(state.decide(90, &add(5)), Err(Refusal::Full { max: 4, .. })));
}

#[test]
fn what_is_shown_with_a_certificate_leads_to_the_oldest_authority() {
    let mut state = founded(true);
    let chain = |state: &ClusterState, generation| -> Vec<Vec<u8>> {
        state.authority_chain(generation).iter().map(|one| one.to_vec()).collect()
    };
    apply(&mut state, 3, &[add(2), Command::ActivateAuthority(2), Command::RetireAuthority(1)]);
    apply(&mut state, 6, &[add(3), Command::ActivateAuthority(3)]);
    assert_eq!(chain(&state, 1), [vec![1]]);
    assert_eq!(chain(&state, 2), [vec![2, 100], vec![1]]);
    // Whether it is believed or not.
    assert_eq!(chain(&state, 3), [vec![3, 100], vec![2, 100], vec![1]]);
    assert_eq!(chain(&state, 4), Vec::<Vec<u8>>::new());
    // For which nobody could sign.
    let alone =
        Command::AddAuthority { generation: 4, certificate: [4].into(), cross: None, maker: Some(M1) };
    apply(&mut state, 8, &[Command::RetireAuthority(2), alone]);
    assert_eq!(chain(&state, 4), [vec![4]]);
    // An older one is forgotten by now.
    state.authorities.remove(&1);
    assert_eq!(chain(&state, 3), [vec![3, 100], vec![2, 100]]);
    // Damage does not go round in a circle.
    let mut wrong = trestle_model::Authority::clone(&state.authorities[&2]);
    wrong.cross = Some(CrossCertificate { signer: 3, certificate: [7].into() });
    state.authorities.insert(2, Arc::new(wrong));
    assert_eq!(chain(&state, 3), [vec![3, 100], vec![7]]);
}

#[test]
fn tokens_end_with_the_authority_by_which_they_know_the_cluster() {
    let mut state = founded(true);
    apply(&mut state, 3, &[token(1, 1), token(2, 0), add(2), Command::ActivateAuthority(2), token(3, 2)]);
    assert_eq!(state.tokens.len(), 3);
    apply(&mut state, 8, &[Command::RetireAuthority(1)]);
    assert_eq!(state.tokens.keys().collect::<Vec<_>>(), [&TokenId([3; 8])]);
}
