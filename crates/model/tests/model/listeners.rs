//! Listeners as the state keeps them: how old they are, and how many ports they have.

use std::sync::Arc;

use trestle_model::{ClusterState, Command, Configuration, ListenerSpec, PoolSpec, Refusal};

use crate::make::{create_listener, create_pool, listener, listening, pool, refused};

/// A state with pool web (revision 1) and listener web (3).
fn web() -> ClusterState {
    let mut state = ClusterState::default();
    state.apply(1, &create_pool("web")).unwrap();
    state.apply(3, &create_listener("web", &["0.0.0.0:80"], "web")).unwrap();
    state
}

#[test]
fn a_listener_is_as_old_as_its_creation_however_often_it_changes() {
    let mut state = web();
    let created = |state: &ClusterState, name| state.listeners[&listener(name)].created;
    assert_eq!(created(&state, "web"), 3);
    let spec = state.listeners[&listener("web")].spec.clone();
    let update =
        |max_connections| Command::put((listener("web"), ListenerSpec { max_connections, ..spec.clone() }));
    state.apply(7, &update(7)).unwrap();
    let web = &state.listeners[&listener("web")];
    assert_eq!((web.revision, web.created), (7, 3));
    // A restore keeps what stays, changed or not.
    let new = listening(&["10.0.0.1:81"], "web");
    let web = state.listeners[&listener("web")].spec.clone();
    let configuration = Configuration(vec![
        (pool("web"), PoolSpec::default()).into(),
        (listener("new"), new).into(),
        (listener("web"), web).into(),
    ]);
    let restore = Command::Restore { configuration: Arc::new(configuration), replace: true };
    state.apply(9, &update(9)).unwrap();
    state.apply(11, &restore).unwrap();
    let web = &state.listeners[&listener("web")];
    assert_eq!((web.revision, web.created, created(&state, "new")), (11, 3, 11));
    state.apply(12, &Command::delete(listener("web"))).unwrap();
    state.apply(13, &create_listener("web", &["0.0.0.0:443"], "web")).unwrap();
    assert_eq!(created(&state, "web"), 13);
}

#[test]
fn ports_of_listeners_are_bounded_alone_and_together() {
    let mut state = web();
    let ports = |name: &str, binds: &[&str]| create_listener(name, binds, "web");
    // Kubernetes' NodePorts, and what one listener may have at most.
    state.apply(4, &ports("nodes", &["0.0.0.0:30000-32767", "[::]:30000-32767"])).unwrap();
    let Refusal::Invalid(found) = refused(&mut state, &ports("all", &["10.0.0.1:1-8193"])) else { panic!() };
    assert_eq!(
        found.to_string(),
        "listener.binds \"8193 ports\": must be at most 8192 over all addresses; name only ports that clients use, or \
         several listeners"
    );
    state.apply(5, &ports("most", &["10.0.0.1:1-8192"])).unwrap();
    // 5536 and 8192 are taken, and one by "web".
    let more = ports("more", &["10.0.0.2:1-2656"]);
    assert_eq!(
        refused(&mut state, &more).to_string(),
        "listener \"more\" would have 2656 ports beside 13729 of the other listeners, and all together may have 16384; \
         name fewer ports, or delete a listener that nobody needs"
    );
    state.apply(6, &ports("more", &["10.0.0.2:1-2655"])).unwrap();
    let rebind = |name: &str, bind: &str| {
        let spec = listening(&[bind], "web");
        Command::put((listener(name), spec))
    };
    assert!(matches!(
        refused(&mut state, &rebind("more", "10.0.0.2:1-2656")),
        Refusal::TooManyPorts { ports: 2656, others: 13_729, .. }
    ));
    // Other ports, and other settings, take no more.
    state.apply(7, &rebind("more", "10.0.0.2:2-2656")).unwrap();
    state.apply(8, &rebind("more", "10.0.0.2:2-3")).unwrap();
    state.apply(9, &ports("other", &["10.0.0.3:1-2653"])).unwrap();
}
