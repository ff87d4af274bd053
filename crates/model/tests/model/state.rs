//! The state as its users see it: commands in, answers and changes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::{
    AdminState, Applied, BackendSpec, Bind, Change, ChangeKind, CheckKind, ClusterId, ClusterState, Command,
    Document, Expected, HealthCheck, HostPort, ListenerSpec, Machine, MemberId, MemberName, MemberSockets,
    MemberSpec, Operation, Outcome, PoolSpec, Proposal, Refusal, Request, RequestId, Resource, defaults,
};

use crate::make::{at, backend, create_listener, create_pool, listener, listening, member_at, pool, refused};

fn create_backend(to: &str, name: &str, address: &str) -> Command {
    Command::create((pool(to), backend(name), at(address)))
}

fn put_at(document: impl Into<Document>, revision: u64) -> Command {
    let expected = Expected::Revision(revision);
    Command::Batch([Operation::Put { document: document.into(), expected }].into())
}

/// A state with pool web (revision 1), backend a (2) and listener web (3).
fn web() -> ClusterState {
    let mut state = ClusterState::default();
    let commands = [
        create_pool("web"),
        create_backend("web", "a", "10.0.0.1:80"),
        create_listener("web", &["0.0.0.0:80"], "web"),
    ];
    for (index, command) in (1..).zip(&commands) {
        state.apply(index, command).unwrap();
    }
    state
}

#[test]
fn a_change_moves_its_own_revision_only() {
    let mut state = web();
    let update = put_at((pool("web"), backend("a"), BackendSpec { weight: 5, ..at("10.0.0.1:80") }), 2);
    let applied = state.apply(7, &update).unwrap();
    assert_eq!(applied.revision, 7);
    assert_eq!(state.revision, 7);
    assert_eq!(state.backend(&pool("web"), &backend("a")).unwrap().revision, 7);
    assert_eq!(state.pools[&pool("web")].pool.revision, 1);
    assert_eq!(state.listeners[&listener("web")].revision, 3);
}

#[test]
fn an_update_that_changes_nothing_is_no_change() {
    let mut state = web();
    let before = state.clone();
    let update = Command::put((pool("web"), backend("a"), at("10.0.0.1:80")));
    let applied = state.apply(7, &update).unwrap();
    assert_eq!((applied.revision, applied.changes.len()), (2, 0));
    assert_eq!(state, before);
}

#[test]
fn a_stale_etag_is_refused() {
    let mut state = web();
    let update = put_at((pool("web"), backend("a"), BackendSpec { weight: 5, ..at("10.0.0.1:80") }), 1);
    assert!(matches!(refused(&mut state, &update), Refusal::Moved { expected: 1, actual: 2, .. }));
    let delete = Operation::Delete { resource: pool("web").into(), expected: Some(9) };
    let delete = Command::Batch([delete].into());
    assert!(matches!(refused(&mut state, &delete), Refusal::Moved { expected: 9, actual: 1, .. }));
}

#[test]
fn what_does_not_exist_or_exists_twice_is_refused() {
    let mut state = web();
    for command in [
        create_backend("api", "a", "10.0.0.1:80"),
        create_listener("api", &["0.0.0.0:81"], "api"),
        Command::delete(pool("api")),
        Command::delete((pool("web"), backend("b"))),
        Command::delete(listener("api")),
        Command::RemoveMember(MemberId(5)),
    ] {
        assert!(matches!(refused(&mut state, &command), Refusal::NotFound { .. }), "{command:?}");
    }
    for command in [
        create_pool("web"),
        create_backend("web", "a", "10.0.0.9:80"),
        create_listener("web", &["0.0.0.0:81"], "web"),
    ] {
        assert!(matches!(refused(&mut state, &command), Refusal::Exists { .. }), "{command:?}");
    }
}

#[test]
fn a_pool_in_use_stays() {
    let mut state = web();
    let delete = Command::delete(pool("web"));
    let Refusal::InUse { listeners, .. } = refused(&mut state, &delete) else { panic!() };
    assert_eq!(listeners, ["web"]);
    state.apply(4, &Command::delete(listener("web"))).unwrap();
    let applied = state.apply(5, &delete).unwrap();
    let kinds: Vec<_> =
        applied.changes.iter().map(|c| (c.kind, matches!(c.resource, Resource::Pool(..)))).collect();
    assert_eq!(kinds, [(ChangeKind::Deleted, false), (ChangeKind::Deleted, true)], "contents go first");
    assert!(state.pools.is_empty());
}

#[test]
fn an_address_has_one_listener() {
    let mut state = web();
    let taken = create_listener("api", &["127.0.0.1:443", "0.0.0.0:80"], "web");
    assert!(matches!(refused(&mut state, &taken), Refusal::BindTaken { .. }));
    let twice = create_listener("api", &["127.0.0.1:443", "127.0.0.1:443"], "web");
    assert!(matches!(refused(&mut state, &twice), Refusal::Invalid(_)));
    // A listener may keep its own address in an update.
    let update = Command::put((listener("web"), listening(&["0.0.0.0:80", "0.0.0.0:443"], "web")));
    state.apply(9, &update).unwrap();
}

#[test]
fn a_check_needs_a_port() {
    let mut state = web();
    let portless = create_backend("web", "b", "10.0.0.2");
    let Refusal::Invalid(invalid) = refused(&mut state, &portless) else { panic!() };
    assert!(invalid.to_string().contains("health_check.port"), "{invalid}");
    let health = HealthCheck { kind: CheckKind::None, ..HealthCheck::default() };
    let update = |health| Command::put((pool("web"), PoolSpec { health, ..PoolSpec::default() }));
    state.apply(4, &update(health)).unwrap();
    state.apply(5, &portless).unwrap();
    // Now the check cannot come back without a port.
    let tcp = HealthCheck::default();
    assert!(matches!(refused(&mut state, &update(tcp.clone())), Refusal::Invalid(_)));
    state.apply(6, &update(HealthCheck { port: Some(80.try_into().unwrap()), ..tcp })).unwrap();
}

#[test]
fn all_settings_out_of_bounds_are_named() {
    let mut state = web();
    let mut spec = PoolSpec { connect_timeout: Duration::ZERO, connect_retries: 11, ..Default::default() };
    spec.health.fall = 0;
    spec.health.jitter_percent = 51;
    let Refusal::Invalid(invalid) = refused(&mut state, &Command::create((pool("bad"), spec))) else {
        panic!()
    };
    assert_eq!(invalid.0.len(), 4, "{invalid}");
}

fn member(name: &str, port: u16) -> MemberSpec {
    member_at(name, &format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", port + 1))
}

#[test]
fn member_ids_come_from_the_log_and_never_come_again() {
    let mut state = ClusterState::default();
    let cluster_id = ClusterId::parse(&"0f".repeat(16)).unwrap();
    let found = Command::FoundCluster { cluster_id, member: member("m1", 1), identities: None };
    let Outcome::Founded(first) = state.apply(2, &found).unwrap().outcome else { panic!() };
    assert_eq!(first.id, MemberId(1));
    assert_eq!(refused(&mut state, &found), Refusal::Founded);
    state.apply(5, &Command::AddMember(member("m2", 11))).unwrap();
    assert!(state.members.contains_key(&MemberId(5)));
    assert!(matches!(refused(&mut state, &Command::AddMember(member("m2", 21))), Refusal::Exists { .. }));
    assert!(matches!(refused(&mut state, &Command::AddMember(member("m3", 11))), Refusal::Invalid(_)));
    state.apply(6, &Command::RemoveMember(MemberId(5))).unwrap();
    state.apply(7, &Command::AddMember(member("m2", 11))).unwrap();
    assert_eq!(state.member_named(&MemberName::parse("m2").unwrap()).unwrap().id, MemberId(7));
}

fn named(id: &str, fingerprint: u64, command: Command) -> Proposal {
    Proposal {
        origin: None,
        request: Some(Request { id: RequestId::parse(id).unwrap(), fingerprint }),
        command,
    }
}

#[test]
fn a_repeated_request_changes_nothing_and_gets_the_first_answer() {
    let mut machine = Machine::default();
    let first = machine.apply(1, &named("r1", 7, create_pool("web"))).unwrap();
    let before = machine.clone();
    let again = machine.apply(2, &named("r1", 7, create_pool("web"))).unwrap();
    assert_eq!((again.revision, &again.outcome), (1, &first.outcome));
    assert!(again.changes.is_empty());
    assert_eq!(machine, before);
    let other = machine.apply(3, &named("r1", 8, create_pool("api")));
    assert!(matches!(other, Err(Refusal::RequestIdReused(_))));
    // A refusal is not remembered: it changed nothing, so the request may succeed later.
    machine.apply(4, &named("r2", 1, create_backend("api", "a", "10.0.0.1:80"))).unwrap_err();
    machine.apply(5, &named("r3", 2, create_pool("api"))).unwrap();
    machine.apply(6, &named("r2", 1, create_backend("api", "a", "10.0.0.1:80"))).unwrap();
}

#[test]
fn the_table_of_requests_is_bounded_and_survives_a_restore() {
    let mut machine = Machine::default();
    let many = defaults::REQUESTS_REMEMBERED as u64 + 10;
    machine.apply(1, &Proposal { origin: None, request: None, command: create_pool("web") }).unwrap();
    for n in 0..many {
        let connect_retries = u32::try_from(n % 2).unwrap();
        let command = Command::put((pool("web"), PoolSpec { connect_retries, ..PoolSpec::default() }));
        machine.apply(n + 2, &named(&format!("r{n}"), n, command)).unwrap();
    }
    assert_eq!(machine.remembered().len(), defaults::REQUESTS_REMEMBERED);
    let restored = Machine::restore(machine.state.clone(), machine.remembered().cloned().collect::<Vec<_>>());
    assert_eq!(restored, machine);
}

/// Replays changes on a copy, as a watcher does.
fn replay(state: &mut ClusterState, changes: &[Change]) {
    use std::sync::Arc;
    use trestle_model::PoolEntry;
    for change in changes {
        let gone = change.kind == ChangeKind::Deleted;
        match &change.resource {
            Resource::Pool(p, _) if gone => drop(state.pools.remove(&p.name)),
            Resource::Pool(p, _) => {
                let backends = state.pools.get(&p.name).map(|e| e.backends.clone()).unwrap_or_default();
                state.pools.insert(p.name.clone(), Arc::new(PoolEntry { pool: p.clone(), backends }));
            }
            Resource::Backend(p, b) => {
                let entry = Arc::make_mut(state.pools.get_mut(p).unwrap());
                match gone {
                    true => drop(entry.backends.remove(&b.name)),
                    false => drop(entry.backends.insert(b.name.clone(), b.clone())),
                }
            }
            Resource::Listener(l) if gone => drop(state.listeners.remove(&l.name)),
            Resource::Listener(l) => drop(state.listeners.insert(l.name.clone(), l.clone())),
            Resource::Member(m) if gone => drop(state.members.remove(&m.id)),
            Resource::Member(m) => drop(state.members.insert(m.id, m.clone())),
            Resource::Vip(v) if gone => drop(state.vips.remove(&v.name)),
            Resource::Vip(v) => drop(state.vips.insert(v.name.clone(), v.clone())),
        }
    }
}

proptest::proptest! {
    /// Whatever commands come: replaying their changes, or the diff of before and after, gives the same state.
    #[test]
    fn changes_and_diffs_tell_everything(steps in proptest::collection::vec((0_u8..11, 0_u8..3, 0_u8..3, 0_u8..4), 1..60)) {
        let mut state = ClusterState::default();
        let mut watched = ClusterState::default();
        let start = web();
        let mut from_start = start.clone();
        for (index, (what, p, b, value)) in (1..).zip(steps) {
            let (p, b) = (format!("p{p}"), format!("b{b}"));
            let command = match what {
                0 | 1 => create_pool(&p),
                2 | 3 => create_backend(&p, &b, "10.0.0.1:80"),
                4 => create_listener(&b, &[&format!("0.0.0.0:{}", 80 + u16::from(value))], &p),
                5 => Command::delete(pool(&p)),
                6 => Command::delete((pool(&p), backend(&b))),
                7 => Command::delete(listener(&b)),
                8 => Command::put((pool(&p), backend(&b), BackendSpec { weight: value.into(), ..at("10.0.0.1:80") })),
                9 => Command::put((pool(&p), backend(&b), [AdminState::Enabled, AdminState::Disabled][usize::from(value % 2)])),
                // Several at once, whatever is there.
                _ => Command::Batch(
                    [
                        Operation::put((pool(&p), PoolSpec { connect_retries: value.into(), ..PoolSpec::default() })),
                        Operation::put((pool(&p), backend(&b), BackendSpec { weight: value.into(), ..at("10.0.0.1:80") })),
                        Operation::put((pool(&p), backend(&b), AdminState::Draining { timeout: None })),
                    ]
                    .into(),
                ),
            };
            if let Ok(Applied { changes, .. }) = state.apply(index, &command) {
                replay(&mut watched, &changes);
            }
        }
        watched.revision = state.revision;
        proptest::prop_assert_eq!(&watched, &state);
        replay(&mut from_start, &start.diff(&state));
        from_start.revision = state.revision;
        proptest::prop_assert_eq!(&from_start, &state);
        proptest::prop_assert!(state.diff(&state.clone()).is_empty());
    }
}

fn at_address(name: &str, peer: &str) -> MemberSpec {
    member_at(name, peer, "10.0.0.9:7480")
}

/// Members 1 and 2 at 10.0.0.1 and 10.0.0.2.
fn two_members() -> ClusterState {
    let mut state = ClusterState::default();
    for index in 1..=2 {
        let spec = at_address(&format!("m{index}"), &format!("10.0.0.{index}:7481"));
        state.apply(index, &Command::AddMember(spec)).unwrap();
    }
    state
}

#[test]
fn a_member_is_reached_elsewhere_but_never_where_another_one_is() {
    let mut state = two_members();
    let update = |id, peer: Option<&str>, admin: Option<&str>| Command::UpdateMember {
        id: MemberId(id),
        peer_address: peer.map(|text| HostPort::parse(text).unwrap()),
        admin_address: admin.map(|text| HostPort::parse(text).unwrap()),
    };
    let applied = state.apply(3, &update(2, Some("10.0.0.7:7481"), None)).unwrap();
    assert_eq!((applied.revision, applied.changes.len()), (3, 1));
    assert_eq!(applied.changes[0].kind, ChangeKind::Updated);
    let spec = state.members[&MemberId(2)].spec.clone();
    assert_eq!((spec.peer_address.as_str(), spec.admin_address.as_str()), ("10.0.0.7:7481", "10.0.0.9:7480"));
    let same = state.apply(4, &update(2, Some("10.0.0.7:7481"), Some("10.0.0.9:7480"))).unwrap();
    assert_eq!((same.revision, same.changes.len()), (3, 0));
    assert!(matches!(refused(&mut state, &update(2, Some("10.0.0.1:7481"), None)), Refusal::Invalid(_)));
    assert!(matches!(refused(&mut state, &update(5, None, None)), Refusal::NotFound { .. }));
}

#[test]
fn what_was_drawn_at_the_last_recoveries_is_kept() {
    let mut state = two_members();
    for recovery in 1..=20 {
        let command = Command::Recover { member: MemberId(1), recovery, draw: 100 + recovery };
        state.apply(10 + recovery, &command).unwrap();
    }
    // One that is late changes nothing.
    let late = Command::Recover { member: MemberId(1), recovery: 20, draw: 7 };
    state.apply(40, &late).unwrap();
    let kept: Vec<_> = state.recovery_draws.iter().map(|(number, draw)| (*number, *draw)).collect();
    assert_eq!((kept.len(), kept[0], kept[15]), (defaults::RECOVERIES_KEPT, (5, 105), (20, 120)));
}

#[test]
fn of_two_starts_the_one_that_was_asked_for_too_early_is_not_recorded() {
    let mut state = two_members();
    let sockets = |http: &str| {
        let address: SocketAddr = "127.0.0.1:7480".parse().unwrap();
        let http = http.parse().unwrap();
        Arc::new(MemberSockets { admin: address, peer: address, http, data_address: None, network: 7 })
    };
    let (first, second) = (sockets("127.0.0.1:7482"), sockets("127.0.0.1:8482"));
    let note = |start, replaces| Command::NoteStart {
        member: MemberId(2),
        start,
        replaces,
        sockets: Some(if start == 70 { first.clone() } else { second.clone() }),
        feature_level_max: 1,
    };
    let revision = state.revision;
    assert!(state.apply(3, &note(70, 0)).unwrap().changes.is_empty());
    state.apply(4, &note(80, 70)).unwrap();
    // Said again, it changes nothing; and one that was judged by what was before is too late.
    state.apply(5, &note(80, 70)).unwrap();
    assert!(matches!(refused(&mut state, &note(90, 70)), Refusal::Moved { expected: 70, actual: 80, .. }));
    assert_eq!((state.starts[&MemberId(2)], &state.sockets[&MemberId(2)]), (80, &second));
    assert_eq!(state.revision, revision, "no configuration");
    let nobody = Command::NoteStart {
        member: MemberId(9),
        start: 1,
        replaces: 0,
        sockets: None,
        feature_level_max: 1,
    };
    assert!(matches!(refused(&mut state, &nobody), Refusal::NotFound { .. }));
    // One that does not say where it listens is taken to listen where nobody knows.
    let silent = Command::NoteStart {
        member: MemberId(2),
        start: 90,
        replaces: 80,
        sockets: None,
        feature_level_max: 1,
    };
    state.apply(6, &silent).unwrap();
    assert!(state.sockets.is_empty());
    state.apply(7, &note(70, 90)).unwrap();
    state.apply(8, &Command::RemoveMember(MemberId(2))).unwrap();
    assert!(state.starts.is_empty() && state.sockets.is_empty());
}

proptest::proptest! {
    /// A restore compares each listener with all others at once; creations one after another compare them one by one.
    #[test]
    fn a_restore_takes_the_listeners_that_could_be_created_one_after_another(
        listeners in proptest::collection::vec(
            proptest::collection::vec((0_u8..2, 1_u16..40, 0_u16..12), 1..3), 1..12,
        ),
        large in 0_u16..4,
    ) {
        let mut state = web();
        let bind = |(ip, first, more): (u8, u16, u16)| Bind::parse(&format!("10.0.0.{ip}:{first}-{}", first + more));
        let mut wanted: Vec<_> = listeners
            .iter()
            .enumerate()
            .map(|(number, binds)| {
                let binds: Vec<_> = binds.iter().map(|b| bind(*b).unwrap()).collect();
                (listener(&format!("l{number:02}")), ListenerSpec::new(binds, pool("web")))
            })
            .collect();
        // Some that have many ports, so that all together may have too many.
        for number in 0..large {
            let binds = vec![Bind::parse(&format!("10.0.1.{number}:1-6000")).unwrap()];
            wanted.push((listener(&format!("large{number}")), ListenerSpec::new(binds, pool("web"))));
        }
        let mut document = state.configuration();
        document.0.retain(|document| !matches!(document, Document::Listener(..)));
        document.0.extend(wanted.iter().cloned().map(Document::from));
        state.apply(4, &Command::delete(listener("web"))).unwrap();
        let mut one_by_one = state.clone();
        let mut refused: Vec<String> = wanted
            .into_iter()
            .filter_map(|(name, spec)| {
                let command = Command::create((name.clone(), spec));
                one_by_one.apply(5, &command).err().map(|_| format!("listeners/{name}"))
            })
            .collect();
        refused.sort();
        let restore = Command::Restore { configuration: Arc::new(document), replace: true };
        match state.apply(5, &restore) {
            Ok(_) => {
                proptest::prop_assert_eq!(refused, Vec::<String>::new());
                proptest::prop_assert_eq!(&state, &one_by_one);
            }
            Err(Refusal::Invalid(found)) => {
                let mut fields: Vec<_> =
                    found.0.iter().map(|f| f.field.split(':').next().unwrap().to_owned()).collect();
                fields.sort();
                fields.dedup();
                proptest::prop_assert_eq!(fields, refused);
            }
            Err(other) => panic!("{other}"),
        }
    }
}
