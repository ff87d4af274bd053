//! A state that is put together from a watch is the members' own.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use trestle_api::convert::{cluster_facts, current_event, event};
use trestle_api::v1;
use trestle_api::watched::{WatchError, WatchedCluster};
use trestle_model::{
    AdminState, Backend, BackendAddress, BackendName, BackendSpec, Change, ChangeKind, ClusterId,
    ClusterState, Command, HostPort, ListenerName, MemberId, MemberName, MemberSpec, Pool, PoolName,
    PoolSpec, Resource, Revision, VipName,
};

use crate::strategies::{command, fitting, member_sockets};

/// A member that answers watches.
#[derive(Default)]
struct Server {
    state: ClusterState,
    /// The revisions with their changes, and the state after each.
    history: Vec<(Revision, Vec<Change>, ClusterState)>,
}

/// Events in messages of `size`, the last one without `more` unless something follows.
fn cut(revision: Revision, events: &[v1::Event], size: usize, more: bool) -> Vec<v1::WatchClusterResponse> {
    let pieces = events.chunks(size.max(1));
    let last = pieces.len();
    let message = |(number, piece): (usize, &[v1::Event])| v1::WatchClusterResponse {
        revision,
        events: piece.to_vec(),
        more: more || number + 1 < last,
        facts: None,
    };
    pieces.enumerate().map(message).collect()
}

impl Server {
    fn apply(&mut self, index: Revision, command: &Command) {
        let Ok(applied) = self.state.apply(index, command) else { return };
        if !applied.changes.is_empty() {
            self.history.push((applied.revision, applied.changes, self.state.clone()));
        }
    }

    fn bookmark(&self, revision: Revision) -> v1::WatchClusterResponse {
        let facts = Some(cluster_facts(&self.state));
        v1::WatchClusterResponse { revision, facts, ..Default::default() }
    }

    /// Everything that a watch has sent by now.
    fn answer(&self, request: &v1::WatchClusterRequest, size: usize) -> Vec<v1::WatchClusterResponse> {
        let mut messages = Vec::new();
        let mut from = request.start_revision;
        if request.include_current {
            let current = ClusterState::default().diff(&self.state);
            let events: Vec<v1::Event> = current.iter().map(current_event).collect();
            from = self.state.revision + 1;
            messages.extend(cut(self.state.revision, &events, size, true));
        }
        messages.push(self.bookmark(from.saturating_sub(1)));
        for (revision, changes, _) in self.history.iter().filter(|(revision, ..)| *revision >= from) {
            let events: Vec<v1::Event> = changes.iter().map(event).collect();
            messages.extend(cut(*revision, &events, size, false));
        }
        messages
    }
}

/// What a data plane uses of both is the same.
fn same(watched: &ClusterState, own: &ClusterState) -> Result<(), TestCaseError> {
    prop_assert_eq!(&watched.pools, &own.pools);
    prop_assert_eq!(&watched.listeners, &own.listeners);
    prop_assert_eq!(&watched.members, &own.members);
    prop_assert_eq!(&watched.vips, &own.vips);
    Ok(())
}

fn founded() -> Command {
    let address = HostPort::parse("m1.example:7481").unwrap();
    let member = MemberSpec {
        name: MemberName::parse("m1").unwrap(),
        peer_address: address.clone(),
        admin_address: address,
        feature_level_max: 2,
    };
    Command::FoundCluster {
        cluster_id: ClusterId::parse(&"5a".repeat(16)).unwrap(),
        member,
        identities: None,
    }
}

/// Commands of all kinds, of which many are accepted. What is drawn of each is on the heap: the stack of a test has not room for all.
fn commands() -> BoxedStrategy<Command> {
    let id = || (1..25_u64).prop_map(MemberId);
    prop_oneof![
        6 => fitting().boxed(),
        1 => command(),
        1 => id().prop_map(Command::RemoveMember),
        1 => (id(), any::<u64>(), member_sockets()).prop_map(|(member, start, sockets)| Command::NoteStart {
            member,
            start,
            replaces: 0,
            sockets: Some(Arc::new(sockets)),
            feature_level_max: 2,
        }),
        1 => "[ab]".prop_map(|name| Command::delete(PoolName::parse(&name).unwrap())),
        1 => "[ab]".prop_map(|name| Command::delete(ListenerName::parse(&name).unwrap())),
        1 => "[ab]".prop_map(|name| Command::delete(VipName::parse(&name).unwrap())),
        1 => any::<bool>().prop_map(|draining| Command::DrainMember {
            name: MemberName::parse("m1").unwrap(),
            draining,
            timeout: draining.then_some(std::time::Duration::from_millis(1500)),
        }),
    ]
    .boxed()
}

proptest! {
    /// The watch is lost and asked for again after any message, and now and then begun anew.
    #[test]
    fn a_watched_state_is_the_members_own(
        steps in vec((vec(commands(), 0..6), 0..12_usize, any::<bool>(), 1..4_usize), 1..12),
    ) {
        let (mut server, mut watched, mut index) = (Server::default(), WatchedCluster::default(), 1);
        server.apply(index, &founded());
        let mut last = None;
        for (commands, taken, restart, size) in steps {
            if restart {
                watched.restart();
            }
            let request = watched.request();
            prop_assert!(request.include_current || !restart);
            for command in commands {
                index += 1;
                server.apply(index, &command);
            }
            for message in server.answer(&request, size).iter().take(taken) {
                let Some(state) = watched.take(message).unwrap() else { continue };
                // Whole revisions only: each is one that the member has had.
                let of_revision = server.history.iter().rev().find(|(revision, ..)| *revision <= state.revision);
                same(&state, &of_revision.unwrap().2)?;
                last = Some(state);
            }
        }
        let request = watched.request();
        for message in server.answer(&request, 3) {
            last = watched.take(&message).unwrap().or(last);
        }
        // The end of every watch: what is agreed on beside the resources is told then too.
        let state = watched.take(&server.bookmark(server.state.revision)).unwrap().or(last).unwrap();
        same(&state, &server.state)?;
        prop_assert_eq!(&state.sockets, &server.state.sockets);
        prop_assert_eq!(
            (&state.cluster_id, state.recovery, state.feature_level, state.revision),
            (&server.state.cluster_id, server.state.recovery, server.state.feature_level, server.state.revision)
        );
    }
}

#[test]
fn what_a_newer_member_sends_is_refused_and_not_guessed_at() {
    let mut server = Server::default();
    server.apply(1, &founded());
    let mut watched = WatchedCluster::default();
    let request = watched.request();
    for message in server.answer(&request, 1) {
        watched.take(&message).unwrap();
    }
    let message = |event: v1::Event| v1::WatchClusterResponse {
        revision: 2,
        events: vec![event],
        ..Default::default()
    };
    let unknown_kind = v1::Event { r#type: 2, resource: None };
    let unknown_change = v1::Event { r#type: 99, ..unknown_kind.clone() };
    let mut pool = v1::Pool { name: "pools/a".to_owned(), ..Default::default() };
    pool.algorithm = 99;
    let unknown_value = v1::Event { r#type: 2, resource: Some(v1::event::Resource::Pool(pool)) };
    for event in [unknown_kind, unknown_change, unknown_value] {
        let error = watched.take(&message(event)).unwrap_err();
        assert!(error.to_string().contains("upgrade this program"), "{error}");
        assert!(matches!(error, WatchError::Newer(_) | WatchError::Invalid(_)));
    }
    assert_eq!(watched.request().start_revision, 2, "it asks for the same again");
}

#[test]
fn what_was_accepted_before_a_rule_was_tightened_is_followed() {
    let name = PoolName::parse("web").unwrap();
    let pool = Pool { name: name.clone(), spec: PoolSpec::default(), revision: 1 };
    let backend = Backend {
        name: BackendName::parse("a").unwrap(),
        spec: BackendSpec::at(BackendAddress::decode("[::ffff:10.0.0.1]:80").unwrap()),
        admin_state: AdminState::Enabled,
        revision: 1,
    };
    let made =
        [Resource::Pool(Arc::new(pool), 1), Resource::Backend(name.clone(), Arc::new(backend.clone()))];
    let events = made.map(|resource| event(&Change::new(ChangeKind::Created, resource)));
    let mut watched = WatchedCluster::default();
    watched.request();
    let message = v1::WatchClusterResponse { revision: 1, events: events.to_vec(), ..Default::default() };
    let state = watched.take(&message).unwrap().unwrap();
    assert_eq!(state.backend(&name, &backend.name), Some(&Arc::new(backend)));
}
