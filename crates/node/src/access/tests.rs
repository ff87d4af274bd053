#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use trestle_model::{
    Actor, CheckKind, ClientIdentity, Document, ExchangeCheck, HealthCheck, HttpCheck, Machine, MemberId,
    PoolName, PoolSpec, Proposal, ResourceName, TlsCheck, VipName,
};

use super::*;
use crate::accept::UnixCredentials;
use crate::config::{LocalAccount, SocketRole};

/// What each caller at an entrance may call. At the admin port: `v` from viewers on, `o` from operators on, `a` only admins; whoever comes
/// there over TCP without TLS counts as an admin. At the port of the peers: `j` anybody, `p` whoever comes without TLS, `f` members,
/// known or not yet or no more, `r` those that are known or not yet, `m` those that are known; whoever comes there without TLS counts as one.
const EXPECTED: &str = include_str!("callers.txt");

fn expected() -> BTreeMap<String, char> {
    let row = |line: &str| (format!("/{}", &line[2..]), line.chars().next().unwrap());
    EXPECTED.lines().filter(|line| !line.is_empty()).map(row).collect()
}

/// Every method of every service that is described, as "/package.Service/Method".
fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for described in [trestle_api::ALL_DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        for file in &prost_types::FileDescriptorSet::decode(described).unwrap().file {
            for service in &file.service {
                let of = |method: &prost_types::MethodDescriptorProto| {
                    format!("/{}.{}/{}", file.package(), service.name(), method.name())
                };
                methods.extend(service.method.iter().map(of));
            }
        }
    }
    methods
}

const VIEWER: u32 = 1000;
const OPERATOR: u32 = 1001;
const ADMIN: u32 = 1002;
const STRANGER: u32 = 1003;

fn access() -> AccessControl {
    let of = |uid, role| SocketRole { account: LocalAccount::User(uid), role };
    let roles = [of(VIEWER, Role::Viewer), of(OPERATOR, Role::Operator), of(ADMIN, Role::Admin)];
    AccessControl::new(LocalUsers::new(&roles))
}

fn tcp() -> ConnectionOrigin {
    ConnectionOrigin::Tcp("192.0.2.1:5000".parse().unwrap())
}

fn local(uid: u32) -> ConnectionOrigin {
    ConnectionOrigin::Unix(Some(UnixCredentials { uid, gid: 5, groups: [].into() }))
}

/// The caller of a call to a method, if it may make it.
fn call(entrance: Entrance, origin: &ConnectionOrigin, path: &str) -> Result<Caller, Status> {
    call_as(entrance, origin, Proof::None, path)
}

/// The same, of somebody who has proved that much.
fn call_as(
    entrance: Entrance,
    origin: &ConnectionOrigin,
    proof: Proof,
    path: &str,
) -> Result<Caller, Status> {
    let mut request = Request::builder().uri(path).body(()).unwrap();
    access().intercept(entrance, &Client { origin, proof }, &mut request)?;
    let caller = request.extensions().get::<Caller>().unwrap().clone();
    assert_eq!(request.extensions().get::<PeerCaller>().copied(), caller.peer());
    Ok(caller)
}

fn known(uid: u32, role: Role) -> Caller {
    let actor = Actor::LocalUser { uid, role };
    Caller { via: Via::UnixSocket, subject: Subject::Known(actor) }
}

#[test]
fn every_method_is_for_whom_the_table_says() {
    let expected = expected();
    let methods = methods();
    for path in &methods {
        assert!(expected.contains_key(path), "not in the table of this test: {path}");
    }
    assert!(methods.len() > 60 && expected.len() <= methods.len() + 1, "{methods:?}");
    for (path, least) in expected {
        for (who, origin, rank) in [
            ("nobody in particular", tcp(), 3),
            ("a stranger", local(STRANGER), 0),
            ("a viewer", local(VIEWER), 1),
            ("an operator", local(OPERATOR), 2),
            ("an admin", local(ADMIN), 3),
            ("local root", local(0), 3),
        ] {
            let answered = call(Entrance::Admin, &origin, &path).map_err(|status| status.code());
            let needed = match least {
                'v' => 1,
                'o' => 2,
                'a' => 3,
                _ => 4,
            };
            match answered {
                Ok(_) => assert!(rank >= needed, "{who} may call {path}"),
                // There is nothing of the peers' here, whoever asks.
                Err(Code::Unimplemented) => assert!("jpfrm".contains(least), "{who}: {path}"),
                Err(code) => {
                    assert!(code == Code::PermissionDenied && rank < needed, "{who}: {path} {code:?}")
                }
            }
        }
    }
}

#[test]
fn at_the_port_of_the_peers_every_method_is_for_whom_the_table_says() {
    let (known, newer) = (PeerCaller::Member(MemberId(2)), PeerCaller::Newer(MemberId(9)));
    for (path, least) in expected() {
        for (proof, allowed) in [
            (Proof::None, "jpfrm"),
            (Proof::Peer(PeerCaller::Unproven), "jpfrm"),
            (Proof::Peer(PeerCaller::Anonymous), "j"),
            (Proof::Peer(PeerCaller::Former(MemberId(3))), "jf"),
            (Proof::Peer(newer), "jfr"),
            (Proof::Peer(known), "jfrm"),
        ] {
            let peer = match &proof {
                Proof::Peer(peer) => *peer,
                Proof::None | Proof::User(_) => PeerCaller::Unproven,
            };
            match call_as(Entrance::Peer, &tcp(), proof, &path).map_err(|status| status.code()) {
                Ok(caller) => {
                    assert!(allowed.contains(least), "{peer:?} may call {path}");
                    assert_eq!(caller.subject, Subject::Peer(peer), "{path}");
                }
                // There is nothing of the users' here.
                Err(Code::Unimplemented) => assert!("voa".contains(least), "{peer:?}: {path}"),
                Err(code) => {
                    let refused = code == Code::PermissionDenied && !allowed.contains(least);
                    assert!(refused, "{peer:?}: {path} {code:?}");
                }
            }
        }
    }
}

#[test]
fn what_reads_is_told_from_what_writes_by_its_name() {
    for path in methods().iter().filter(|path| path.starts_with("/trestle.v1.")) {
        let (action, _) = rules::rule(path).unwrap();
        let name = path.rsplit('/').next().unwrap_or_default();
        let reads = ["Get", "List", "Watch", "Wait", "Backup"].iter().any(|verb| name.starts_with(verb));
        assert_eq!(action == Action::Read, reads, "{path}");
        for (verb, wanted) in
            [("Create", Action::Create), ("Update", Action::Update), ("Delete", Action::Delete)]
        {
            assert!(!name.starts_with(verb) || action == wanted, "{path}: {action:?}");
        }
    }
}

#[test]
fn a_method_without_a_rule_is_refused_and_the_others_get_their_caller() {
    let caller = call(Entrance::Admin, &tcp(), "/trestle.v1.PoolService/ListPools").unwrap();
    assert_eq!(caller.client(), Some("192.0.2.1".parse().unwrap()));
    assert_eq!((caller.actor(), caller.to_string()), (None, "192.0.2.1".to_owned()));
    let caller = call(Entrance::Admin, &local(OPERATOR), "/trestle.v1.PoolService/ListPools").unwrap();
    assert_eq!((caller.client(), caller.to_string()), (None, "uid 1001 (operator)".to_owned()));
    let refused = call(Entrance::Admin, &tcp(), "/trestle.v1.PoolService/DropPools").unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[test]
fn a_refusal_says_who_may_not_do_what_and_what_it_takes() {
    let refused = call(Entrance::Admin, &local(VIEWER), "/trestle.v1.PoolService/CreatePool").unwrap_err();
    assert!(
        refused.message().starts_with("uid 1000 (viewer) may not create pools: that takes the role operator"),
        "{refused}"
    );
    let refused = call(Entrance::Admin, &local(STRANGER), "/trestle.v1.PoolService/ListPools").unwrap_err();
    assert!(refused.message().contains("uid 1003 has no role"), "{refused}");
}

fn pool(check: CheckKind) -> Document {
    let name = PoolName::parse("web").unwrap();
    (name, PoolSpec { health: HealthCheck { kind: check, ..HealthCheck::default() }, ..PoolSpec::default() })
        .into()
}

fn state_with(check: CheckKind) -> ClusterState {
    let mut machine = Machine::default();
    let command = Command::create(pool(check));
    machine.apply(1, &Proposal { request: None, origin: None, command }).unwrap();
    machine.state
}

fn exchange(send: &[u8]) -> CheckKind {
    let expect = Arc::from(&b"+"[..]);
    CheckKind::Exchange(ExchangeCheck { send: send.into(), expect, ..ExchangeCheck::default() })
}

#[test]
fn an_operator_changes_a_check_but_not_what_it_sends_or_reads() {
    let http = |change: fn(&mut HttpCheck)| {
        let mut check = HttpCheck::default();
        change(&mut check);
        CheckKind::Http(check)
    };
    let token = || http(|check| check.token_file = Some("/etc/trestle/checks/token".into()));
    let headers = || http(|check| check.headers = vec![("Accept".into(), "*/*".into())]);
    let identity = || {
        let identity = ClientIdentity { certificate_file: "/c".into(), key_file: "/k".into() };
        CheckKind::Tls(TlsCheck { identity: Some(identity), ..TlsCheck::default() })
    };
    let operator = known(OPERATOR, Role::Operator);
    let may = |caller: &Caller, before: CheckKind, after: CheckKind| {
        authorize_command(caller, &Command::put(pool(after)), &state_with(before))
    };
    for (guarded, field) in [
        (exchange(b"PING\r\n"), "exchange"),
        (token(), "http.token_file"),
        (headers(), "http.headers"),
        (identity(), "tls.client_certificate_file"),
    ] {
        for (before, after) in [
            (CheckKind::Tcp, guarded.clone()),
            (guarded.clone(), CheckKind::Tcp),
            (exchange(b"QUIT\r\n"), guarded.clone()),
        ] {
            let refused = may(&operator, before.clone(), after.clone()).unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert!(refused.message().contains(field) || before != CheckKind::Tcp, "{refused}");
            may(&known(ADMIN, Role::Admin), before, after).unwrap();
        }
        // As it is, it stays while other settings change.
        may(&operator, guarded.clone(), guarded).unwrap();
    }
    let mut with_path = HttpCheck { path: "/readyz".into(), ..HttpCheck::default() };
    with_path.token_file = Some("/etc/trestle/checks/token".into());
    may(&operator, token(), CheckKind::Http(with_path)).unwrap();
    may(&operator, CheckKind::Tcp, http(|check| check.path = "/healthz".into())).unwrap();
    let state = state_with(exchange(b"PING\r\n"));
    let gone = Command::delete(ResourceName::Pool(PoolName::parse("web").unwrap()));
    authorize_command(&operator, &gone, &state).unwrap();
}

#[test]
fn each_operation_of_a_batch_is_decided_for_itself() {
    let operator = known(OPERATOR, Role::Operator);
    let state = ClusterState::default();
    authorize_command(&operator, &Command::put(pool(CheckKind::Tcp)), &state).unwrap();
    let vip = Command::delete(ResourceName::Vip(VipName::parse("front").unwrap()));
    let refused = authorize_command(&operator, &vip, &state).unwrap_err();
    assert!(refused.message().contains("may not delete vips/front: that takes the role admin"), "{refused}");
    let viewer = known(VIEWER, Role::Viewer);
    assert!(authorize_command(&viewer, &Command::put(pool(CheckKind::Tcp)), &state).is_err());
}

#[test]
fn a_user_has_its_own_certificate_renewed_and_nobody_elses() {
    let name = |text: &str| trestle_model::UserName::parse(text).unwrap();
    let alice = |role| Caller {
        via: Via::UnixSocket,
        subject: Subject::Known(Actor::User { name: name("alice"), role }),
    };
    let key = trestle_model::UserKey {
        pin: trestle_model::KeyPin([1; 32]),
        not_after: 9,
        not_before: 1,
        authority: 1,
    };
    let note = |user: &str| Command::NoteUserCertificate { user: name(user), key };
    let state = ClusterState::default();
    authorize_command(&alice(Role::Viewer), &note("alice"), &state).unwrap();
    for other in [alice(Role::Admin), known(ADMIN, Role::Admin)] {
        let refused = authorize_command(&other, &note("bob"), &state).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("may not renew the certificate of users/bob"), "{refused}");
    }
}

#[test]
fn a_call_that_a_member_passes_on_has_the_rights_of_its_caller() {
    let member = call(Entrance::Peer, &tcp(), "/trestle.peer.v1.PeerService/Propose").unwrap();
    let put = Command::put(pool(CheckKind::Tcp));
    let may = |actor: Option<Actor>, client: Option<&str>| {
        let client = client.map(|ip| ip.parse().unwrap());
        let caller = member.clone().on_behalf_of(Some(MemberId(2)), client, actor)?;
        authorize_command(&caller, &put, &ClusterState::default()).map(|()| caller)
    };
    assert!(may(Some(Actor::LocalUser { uid: 7, role: Role::Viewer }), None).is_err());
    let caller = may(Some(Actor::LocalUser { uid: 7, role: Role::Operator }), None).unwrap();
    assert_eq!((caller.taken_by(), caller.to_string()), (Some(MemberId(2)), "uid 7 (operator)".to_owned()));
    assert_eq!(may(Some(Actor::LocalRoot), None).unwrap().actor(), Some(&Actor::LocalRoot));
    // As ever: a client of the admin port over TCP, and the member itself.
    assert_eq!(may(None, Some("192.0.2.9")).unwrap().subject, Subject::Unproven);
    assert_eq!(may(None, None).unwrap().subject, Subject::Peer(PeerCaller::Unproven));
    // One that has proved who it is passes on what it has taken itself.
    let proof = |id| Proof::Peer(PeerCaller::Member(MemberId(id)));
    let proved = |id| {
        let path = "/trestle.peer.v1.PeerService/Propose";
        call_as(Entrance::Peer, &tcp(), proof(id), path).unwrap().on_behalf_of(Some(MemberId(2)), None, None)
    };
    assert_eq!(proved(2).unwrap().to_string(), "member 2");
    let refused = proved(3).unwrap_err();
    assert!(refused.message().contains("member 3 calls in the name of member 2"), "{refused}");
    // Nobody else passes calls on.
    let viewer = known(VIEWER, Role::Viewer);
    let claimed = viewer.clone().on_behalf_of(Some(MemberId(2)), None, Some(Actor::LocalRoot)).unwrap();
    assert_eq!(claimed, viewer);
}

#[test]
fn a_stranger_has_one_line_a_minute() {
    let access = Arc::new(access());
    let source = ClientSource::from(&local(STRANGER));
    assert_eq!(source.to_string(), "uid 1003");
    let told =
        (0..1000).filter(|_| access.refusals.tells(source, "refused", Instant::now()).is_some()).count();
    assert_eq!(told, 1);
}
