//! Virtual IPs and who holds them: commands in, answers and history out.

use std::time::Duration;

use trestle_model::{
    Bind, ChangeKind, ClusterState, Command, Configuration, Document, InterfaceName, Kind, ListenerSpec,
    Machine, MemberId, MemberName, OnQuorumLoss, Outcome, PoolSpec, Proposal, Refusal, Restored, Tenure,
    VipEventKind, VipSpec, defaults,
};

use crate::make::{create_listener, create_pool, listener, member_at, pool, refused, vip, vip_at};

fn member(name: &str) -> MemberName {
    MemberName::parse(name).unwrap()
}

fn create(name: &str, address: &str) -> Command {
    Command::create((vip(name), vip_at(address)))
}

fn delete(name: &str) -> Command {
    Command::delete(vip(name))
}

/// VIP "api" with other settings.
fn update(state: &ClusterState, change: impl FnOnce(&mut VipSpec)) -> Command {
    let mut spec = state.vips[&vip("api")].spec.clone();
    change(&mut spec);
    Command::put((vip("api"), spec))
}

/// A cluster with members m1 (id 1) and m2 (id 2) and the VIP "api" (revision 3).
fn cluster() -> ClusterState {
    let mut state = ClusterState::default();
    for (index, name) in (1..).zip(["m1", "m2"]) {
        let spec = member_at(name, &format!("{name}:7481"), &format!("{name}:7480"));
        state.apply(index, &Command::AddMember(spec)).unwrap();
    }
    state.apply(3, &create("api", "10.0.3.100/24")).unwrap();
    state
}

#[test]
fn names_and_addresses_are_unique() {
    let mut state = cluster();
    assert!(matches!(refused(&mut state, &create("api", "10.0.3.101/24")), Refusal::Exists { .. }));
    // Another prefix makes no other address.
    assert!(matches!(refused(&mut state, &create("other", "10.0.3.100/25")), Refusal::Invalid(_)));
    assert!(matches!(refused(&mut state, &delete("other")), Refusal::NotFound { .. }));
}

#[test]
fn only_members_can_be_named_and_all_mistakes_are_told() {
    let mut state = cluster();
    let wrong = update(&state, |spec| {
        spec.preferred = vec![member("m1"), member("m7"), member("m1")];
        spec.interface_overrides = [(member("m9"), InterfaceName::parse("eth1").unwrap())].into();
        spec.preference_delay = Duration::from_secs(86_401);
    });
    let Refusal::Invalid(found) = refused(&mut state, &wrong) else { panic!() };
    let told: Vec<_> = found.0.iter().map(|v| (v.field.as_str(), v.value.as_str())).collect();
    let expected = [
        ("vip.preferred", "m1"),
        ("vip.preference_delay", "86401s"),
        ("vip.interface_overrides", "m9"),
        ("vip.preferred", "m7"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_update_keeps_the_address() {
    let mut state = cluster();
    let hold = update(&state, |spec| spec.on_quorum_loss = OnQuorumLoss::Hold);
    let applied = state.apply(7, &hold).unwrap();
    let Outcome::Vip(now) = &applied.outcome else { panic!() };
    assert_eq!((now.spec.on_quorum_loss, now.revision), (OnQuorumLoss::Hold, 7));
    assert_eq!(now.spec.address.to_string(), "10.0.3.100/24");
    assert_eq!(applied.changes.iter().map(|c| c.kind).collect::<Vec<_>>(), [ChangeKind::Updated]);
    assert!(state.apply(8, &hold).unwrap().changes.is_empty());
}

#[test]
fn a_vip_that_a_listener_names_stays() {
    let mut state = cluster();
    state.apply(4, &create_pool("web")).unwrap();
    state.apply(5, &create_listener("web", &["10.0.3.100:80"], "web")).unwrap();
    state.apply(6, &create_listener("all", &["0.0.0.0:81"], "web")).unwrap();
    let Refusal::InUse { kind: Kind::Vip, listeners, .. } = refused(&mut state, &delete("api")) else {
        panic!()
    };
    assert_eq!(listeners, ["web"]);
}

fn take(id: u64, term: u64) -> Command {
    let tenure = Tenure { member: MemberId(id), term, reach: Duration::from_millis(292), released: false };
    Command::TakeVips { tenure, time_ms: 1000 * term, reason: "it was elected".into() }
}

fn release(id: u64, term: u64) -> Command {
    Command::ReleaseVips { member: MemberId(id), term, time_ms: 1000 * term, reason: "asked to".into() }
}

#[test]
fn the_newest_term_has_the_vips_and_a_release_is_final() {
    let mut state = cluster();
    let revision = state.revision;
    state.apply(4, &take(1, 2)).unwrap();
    state.apply(5, &take(1, 2)).unwrap();
    assert!(matches!(refused(&mut state, &release(2, 2)), Refusal::NoTenure { .. }));
    assert!(matches!(refused(&mut state, &release(1, 1)), Refusal::NoTenure { .. }));
    let applied = state.apply(6, &release(1, 2)).unwrap();
    assert!(applied.changes.is_empty());
    state.apply(7, &release(1, 2)).unwrap();
    assert!(matches!(refused(&mut state, &take(1, 2)), Refusal::NoTenure { .. }));
    state.apply(8, &take(2, 3)).unwrap();
    assert!(matches!(refused(&mut state, &take(1, 2)), Refusal::NoTenure { .. }));
    assert!(matches!(refused(&mut state, &release(1, 2)), Refusal::NoTenure { .. }));
    let tenure = state.tenure.unwrap();
    assert_eq!((tenure.member, tenure.term, tenure.released), (MemberId(2), 3, false));
    assert_eq!(state.revision, revision, "who holds a vip is no configuration");

    let story: Vec<_> = state.vip_events.iter().map(|e| (e.revision, e.member.0, e.kind)).collect();
    let expected = [(4, 1, VipEventKind::Taken), (6, 1, VipEventKind::Released), (8, 2, VipEventKind::Taken)];
    assert_eq!(story, expected);
    let last = state.vip_events.back().unwrap();
    assert_eq!((last.name.as_ref(), &*last.vips), (Some(&member("m2")), &[vip("api")][..]));
}

#[test]
fn the_history_is_bounded_and_so_are_its_reasons() {
    let mut state = cluster();
    let long = "é".repeat(defaults::VIP_REASON_MAX);
    for term in 1..=2 * defaults::VIP_EVENTS_KEPT as u64 {
        let Command::TakeVips { tenure, time_ms, .. } = take(1, term) else { panic!() };
        let command = Command::TakeVips { tenure, time_ms, reason: long.as_str().into() };
        state.apply(10 + term, &command).unwrap();
    }
    assert_eq!(state.vip_events.len(), defaults::VIP_EVENTS_KEPT);
    assert!(state.vip_events.iter().all(|e| e.reason.len() <= defaults::VIP_REASON_MAX));
}

#[test]
fn a_drain_is_kept_with_the_member() {
    let mut state = cluster();
    let drain = |draining| Command::DrainMember { name: member("m2"), draining, timeout: None };
    let applied = state.apply(7, &drain(true)).unwrap();
    let Outcome::Member(now) = &applied.outcome else { panic!() };
    assert!(now.draining && now.revision == 7);
    assert!(state.apply(8, &drain(true)).unwrap().changes.is_empty());
    state.apply(9, &drain(false)).unwrap();
    assert!(!state.members[&MemberId(2)].draining);
    let nobody = Command::DrainMember { name: member("m3"), draining: true, timeout: None };
    assert!(matches!(refused(&mut state, &nobody), Refusal::NotFound { .. }));
}

fn restore(configuration: Configuration, replace: bool) -> Command {
    Command::Restore { configuration: std::sync::Arc::new(configuration), replace }
}

#[test]
fn a_restore_is_exactly_the_document_and_leaves_members_and_what_is_the_same_alone() {
    let mut state = cluster();
    state.apply(20, &create("front", "192.0.2.1/24")).unwrap();
    let saved = state.configuration();
    let mut document = saved.clone();
    // Members that a virtual IP names may come later.
    let Some(Document::Vip(_, spec)) = document.0.first_mut() else { panic!() };
    spec.preferred = vec![member("later")];
    // In the order in which a state tells them.
    document.0.insert(0, (pool("new"), PoolSpec::default()).into());
    let before = state.clone();
    assert!(matches!(refused(&mut state, &restore(document.clone(), false)), Refusal::Configured { .. }));
    assert_eq!(state, before);
    // What is so already needs no leave, and makes no revision.
    let applied = state.apply(21, &restore(saved.clone(), false)).unwrap();
    assert_eq!((applied.revision, applied.changes.len()), (before.revision, 0));

    let applied = state.apply(22, &restore(document.clone(), true)).unwrap();
    let restored = Restored { created: 1, updated: 1, deleted: 0 };
    assert_eq!((applied.revision, applied.outcome), (22, Outcome::Restored(restored)));
    assert_eq!((state.configuration(), &state.members), (document.clone(), &before.members));
    state.apply(23, &restore(saved.clone(), true)).unwrap();
    assert_eq!((state.configuration(), state.vips.values().next().unwrap().revision), (saved, 23));

    let wrong = ListenerSpec::new(Vec::<Bind>::new(), pool("gone"));
    document.0.push((listener("l"), wrong).into());
    let before = state.clone();
    let Refusal::Invalid(found) = refused(&mut state, &restore(document, true)) else { unreachable!() };
    assert!(found.0.iter().all(|mistake| mistake.field.starts_with("listeners/l")), "{found}");
    assert_eq!(state, before);
}

#[test]
fn pieces_are_kept_in_order_and_only_of_one_proposal() {
    let mut machine = Machine::default();
    let piece = |upload, number, byte: u8| {
        let command = Command::StagePiece { upload, number, bytes: [byte; 3].into() };
        Proposal { origin: None, request: None, command }
    };
    machine.apply(1, &piece(7, 0, 1)).unwrap();
    machine.apply(2, &piece(7, 1, 2)).unwrap();
    // One that comes twice changes nothing.
    machine.apply(3, &piece(7, 0, 1)).unwrap();
    machine.apply(4, &piece(7, 1, 2)).unwrap();
    assert_eq!(machine.take_staged(7, 3), Err(Refusal::StagingLost), "not all are there");
    assert_eq!(machine.apply(5, &piece(8, 1, 9)), Err(Refusal::StagingLost), "its first is not there");
    assert_eq!(machine.take_staged(7, 2), Ok(vec![1, 1, 1, 2, 2, 2]));
    machine.apply(6, &piece(7, 0, 1)).unwrap();
    machine.apply(7, &piece(8, 0, 9)).unwrap();
    assert_eq!(machine.apply(8, &piece(7, 1, 2)), Err(Refusal::StagingLost), "another has begun");
    machine
        .apply(
            8 + defaults::STAGED_FOR,
            &Proposal { origin: None, request: None, command: create("front", "192.0.2.1/24") },
        )
        .unwrap();
    assert_eq!(machine.staged, None, "nobody went on with it");
}
