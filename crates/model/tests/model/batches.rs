//! Batches: all of their operations, or none, under one revision.

use trestle_model::{
    AdminState, BackendSpec, Bind, ChangeKind, ClusterState, Command, Document, Expected, Kind, Operation,
    Outcome, PoolSpec, Refusal, ResourceName, defaults,
};

use crate::make::{
    at, backend, create_listener, create_pool, listener, listening, pool, refused, vip, vip_at,
};

fn batch(operations: impl Into<Vec<Operation>>) -> Command {
    Command::Batch(operations.into().into())
}

fn create(document: impl Into<Document>) -> Operation {
    Operation::create(document)
}

/// Everything that a service takes: a pool with a backend, a listener on a virtual IP. In an order in which one after the other
/// would not do.
fn service() -> Vec<Operation> {
    vec![
        create((listener("web"), listening(&["vip:front:80"], "web"))),
        create((pool("web"), backend("a"), AdminState::Disabled)),
        create((pool("web"), backend("a"), at("10.0.0.1:80"))),
        create((pool("web"), PoolSpec::default())),
        create((vip("front"), vip_at("10.0.3.100/24"))),
    ]
}

/// The resources whose operations failed.
fn failed(refusal: &Refusal) -> Vec<String> {
    let Refusal::Batch(failed) = refusal else { panic!("{refusal}") };
    failed.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn a_service_is_made_in_one_batch_under_one_revision_in_any_order() {
    let mut state = ClusterState::default();
    let applied = state.apply(7, &batch(service())).unwrap();
    assert_eq!((applied.revision, state.revision), (7, 7));
    let Outcome::Batch(made) = applied.outcome else { panic!() };
    assert_eq!(*made, [Some(ChangeKind::Created); 5]);
    let (pool, a) = (&state.pools[&pool("web")], state.backend(&pool("web"), &backend("a")).unwrap());
    assert_eq!((pool.pool.revision, a.revision, a.admin_state), (7, 7, AdminState::Disabled));
    let web = &state.listeners[&listener("web")];
    assert_eq!(web.binds, [Bind::parse("10.0.3.100:80").unwrap()]);
    assert_eq!(web.spec.binds[0].to_string(), "vip:front:80");
    // Container first, as a watcher needs it.
    let kinds: Vec<bool> = applied.changes.iter().map(|c| c.kind == ChangeKind::Created).collect();
    assert_eq!(kinds, [true; 4]);
}

#[test]
fn every_failing_part_is_named_and_nothing_is_changed() {
    let mut state = ClusterState::default();
    state.apply(1, &create_pool("there")).unwrap();
    let long = PoolSpec { queue_length: 1_000_000, ..PoolSpec::default() };
    let wrong = batch([
        create((pool("new"), PoolSpec::default())),
        create((pool("there"), PoolSpec::default())),
        create((pool("long"), long)),
        create((pool("gone"), backend("a"), at("10.0.0.1:80"))),
        create((listener("l"), listening(&["0.0.0.0:80"], "nowhere"))),
        Operation::delete(vip("none")),
        Operation::Put {
            document: (pool("there"), PoolSpec { connect_retries: 1, ..PoolSpec::default() }).into(),
            expected: Expected::Revision(9),
        },
    ]);
    let refusal = refused(&mut state, &wrong);
    let mut names = failed(&refusal);
    names.sort();
    let all =
        ["listeners/l", "pools/gone/backends/a", "pools/long", "pools/there", "pools/there", "vips/none"];
    assert_eq!(names, all);
    let text = refusal.to_string();
    for part in [
        "nothing was changed: ",
        "pools/there: pool \"there\" exists already (revision 1)",
        "must not be named twice",
        "pools/long: pool.queue_length \"1000000\": must be 0 to 100000",
        "pools/gone/backends/a: pool \"gone\" does not exist",
        "listeners/l: pool \"nowhere\" does not exist",
        "vips/none: vip \"none\" does not exist",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_refers_to_what_is_judged_by_the_end_alone() {
    let mut state = ClusterState::default();
    let mut operations = service();
    operations.remove(1);
    state.apply(1, &batch(operations)).unwrap();
    // A pool goes while its listener goes elsewhere, and two listeners change their addresses for each other's.
    let other = batch([
        Operation::delete(pool("web")),
        Operation::put((listener("web"), listening(&["0.0.0.0:81"], "other"))),
        create((listener("two"), listening(&["0.0.0.0:80"], "other"))),
        create((pool("other"), PoolSpec::default())),
    ]);
    let made = state.apply(2, &other).unwrap().outcome;
    let (new, old, gone) = (Some(ChangeKind::Created), Some(ChangeKind::Updated), Some(ChangeKind::Deleted));
    assert_eq!(made, Outcome::Batch([gone, old, new, new].into()));
    let swapped = [
        Operation::put((listener("two"), listening(&["0.0.0.0:81"], "other"))),
        Operation::put((listener("web"), listening(&["0.0.0.0:80"], "other"))),
    ];
    state.apply(3, &batch(swapped.clone())).unwrap();
    // Said again, it changes nothing.
    let again = state.apply(4, &batch(swapped)).unwrap();
    assert_eq!((again.revision, again.changes.len()), (3, 0));
    assert_eq!(again.outcome, Outcome::Batch([None, None].into()));
    // An address that two take is one too many.
    let both = refused(
        &mut state,
        &batch([
            Operation::put((listener("two"), listening(&["0.0.0.0:90-99"], "other"))),
            create((listener("three"), listening(&["0.0.0.0:95"], "other"))),
        ]),
    );
    assert!(both.to_string().contains("is bound by listener"), "{both}");
    assert_eq!(failed(&both).len(), 1);
}

#[test]
fn whoever_writes_a_backend_anew_leaves_what_an_operator_switched_by_hand() {
    let mut state = ClusterState::default();
    let mut operations = service();
    operations.remove(1);
    state.apply(1, &batch(operations)).unwrap();
    let drained = AdminState::Draining { timeout: None };
    let switch = Command::put((pool("web"), backend("a"), drained));
    let Outcome::Backend(_, a) = state.apply(2, &switch).unwrap().outcome else { panic!() };
    assert_eq!((a.admin_state, a.revision), (drained, 2));
    let anew = |weight| (pool("web"), backend("a"), BackendSpec { weight, ..at("10.0.0.1:80") });
    let Outcome::Backend(_, a) = state.apply(3, &Command::put(anew(7))).unwrap().outcome else { panic!() };
    assert_eq!((a.admin_state, a.spec.weight, a.revision), (drained, 7, 3));
    // Both at once are one change of one resource.
    let both =
        batch([Operation::put(anew(8)), Operation::put((pool("web"), backend("a"), AdminState::Enabled))]);
    let applied = state.apply(4, &both).unwrap();
    assert!(matches!(&applied.outcome, Outcome::Backend(_, a) if a.spec.weight == 8));
    assert_eq!(applied.changes.len(), 1);
    // A backend that is made anew is switched to nothing.
    state.apply(5, &switch).unwrap();
    state.apply(6, &Command::delete((pool("web"), backend("a")))).unwrap();
    state.apply(7, &Command::create(anew(1))).unwrap();
    assert_eq!(state.backend(&pool("web"), &backend("a")).unwrap().admin_state, AdminState::Enabled);
    let nobody = Command::put((pool("web"), backend("b"), drained));
    assert!(matches!(refused(&mut state, &nobody), Refusal::NotFound { kind: Kind::Backend, .. }));
    let alone = ResourceName::AdminState(pool("web"), backend("a"));
    assert!(matches!(refused(&mut state, &Command::delete(alone)), Refusal::Invalid(_)));
}

#[test]
fn a_listener_names_a_virtual_ip_which_stays_as_long() {
    let mut state = ClusterState::default();
    let mut operations = service();
    operations.remove(1);
    state.apply(1, &batch(operations)).unwrap();
    let used = refused(&mut state, &Command::delete(vip("front")));
    assert!(matches!(&used, Refusal::InUse { kind: Kind::Vip, listeners, .. } if listeners == &["web"]));
    // Beside a listener that stays it does not go either, and with it it does.
    let with_another = batch([Operation::delete(vip("front")), create((pool("p"), PoolSpec::default()))]);
    assert_eq!(failed(&refused(&mut state, &with_another)), ["vips/front"]);
    let moved = Command::put((vip("front"), vip_at("10.0.3.101/24")));
    let refusal = refused(&mut state, &moved).to_string();
    assert!(refusal.contains("is 10.0.3.100/24 and never changes"), "{refusal}");
    let unknown = create_listener("l", &["vip:back:80"], "web");
    let refusal = refused(&mut state, &unknown).to_string();
    assert!(refusal.starts_with("listener.binds \"vip:back:80\": must be an address"), "{refusal}");
    // The same address in other words.
    let twice = create_listener("l", &["10.0.3.100:80"], "web");
    assert!(matches!(refused(&mut state, &twice), Refusal::BindTaken { .. }));
    let gone = batch([Operation::delete(vip("front")), Operation::delete(listener("web"))]);
    state.apply(2, &gone).unwrap();
    assert!(state.vips.is_empty() && state.listeners.is_empty());
}

#[test]
fn a_batch_has_bounds() {
    let mut state = ClusterState::default();
    for count in [0, defaults::OPERATIONS_MAX + 1] {
        let operation = |n| Operation::delete(pool(&format!("p{n}")));
        let operations: Vec<_> = (0..count).map(operation).collect();
        let refusal = refused(&mut state, &batch(operations)).to_string();
        assert!(refusal.contains("must be 1 to 4096"), "{refusal}");
    }
}
