#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use rcgen::{CertificateParams, SanType};
use trestle_model::{Authority, AuthorityState, User, UserKey, UserSpec};

use super::*;
use crate::authority::CertificateAuthority;
use crate::private_key::PrivateKey;
use crate::request::CertificateRequest;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn now() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn at(clock: SystemTime) -> VerificationTime {
    VerificationTime::by_clock(clock)
}

fn cluster(byte: &str) -> ClusterId {
    ClusterId::parse(&byte.repeat(16)).unwrap()
}

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn authority(cluster: &ClusterId) -> CertificateAuthority {
    CertificateAuthority::make(PrivateKey::generate().unwrap(), cluster, 1, now()).unwrap()
}

fn request(key: &PrivateKey) -> CertificateRequest {
    CertificateRequest::read(&CertificateRequest::make(key).unwrap()).unwrap()
}

/// A cluster of that authority with these users.
fn state(authority: &CertificateAuthority, users: &[(&str, Role, KeyPin)]) -> ClusterState {
    let first = Authority {
        generation: 1,
        certificate: authority.certificate().into(),
        state: AuthorityState::Active,
        external: false,
        key_holders: vec![MemberId(1)],
        cross: None,
    };
    let user = |(text, role, pin): &(&str, Role, KeyPin)| {
        let keys = vec![UserKey { pin: *pin, not_after: 0, not_before: 0, authority: 0 }];
        (name(text), Arc::new(User { spec: UserSpec { name: name(text), role: *role, keys }, revision: 1 }))
    };
    ClusterState {
        cluster_id: Some(cluster("0a")),
        authorities: [(1, Arc::new(first))].into(),
        users: users.iter().map(user).collect(),
        ..ClusterState::default()
    }
}

#[test]
fn a_user_is_believed_by_its_key_and_has_the_role_of_the_state() {
    let (ca, key) = (authority(&cluster("0a")), PrivateKey::generate().unwrap());
    let leaf = ca.sign_user(&request(&key), &name("alice"), now(), YEAR).unwrap();
    let mut state = state(&ca, &[("alice", Role::Operator, key.pin())]);
    let user = verify_user(&state, ShownChain::alone(&leaf)).unwrap();
    assert_eq!((user.name.as_str(), user.pin), ("alice", key.pin()));
    assert_eq!(check_user(&state, &user, at(now())), Ok(Role::Operator));
    // What revokes is the state.
    state.users.clear();
    for refused in [
        verify_user(&state, ShownChain::alone(&leaf)).map(|_| ()),
        check_user(&state, &user, at(now())).map(|_| ()),
    ] {
        assert_eq!(refused, Err(CertificateRefusal::UnknownUser(name("alice"))));
    }
    let other = PrivateKey::generate().unwrap();
    let state = self::state(&ca, &[("alice", Role::Admin, other.pin())]);
    let rotated = CertificateRefusal::KeyNotPinned { user: name("alice"), pin: key.pin() };
    assert_eq!(verify_user(&state, ShownChain::alone(&leaf)), Err(rotated));
}

#[test]
fn each_refusal_says_what_is_wrong() {
    let (ours, theirs) = (authority(&cluster("0a")), authority(&cluster("0b")));
    let stranger = authority(&cluster("0a"));
    let key = PrivateKey::generate().unwrap();
    let state = state(&ours, &[("alice", Role::Admin, key.pin())]);
    let sign = |ca: &CertificateAuthority| ca.sign_user(&request(&key), &name("alice"), now(), YEAR).unwrap();
    let refused = |leaf: &[u8]| verify_user(&state, ShownChain::alone(leaf)).unwrap_err().to_string();
    let ids = (cluster("0a"), cluster("0b"));
    assert_eq!(
        refused(&sign(&theirs)),
        format!("its certificate is of cluster {}, and must be of cluster {}", ids.1, ids.0)
    );
    // The same name of an authority, with another key.
    assert_eq!(
        refused(&sign(&stranger)),
        format!(
            "its certificate was signed by \"CN=trestle {0} authority 1\", which is no authority of cluster {0}",
            ids.0
        )
    );
    // A certificate outside of its time is refused at each call, not in the handshake.
    let user = verify_user(&state, ShownChain::alone(&sign(&ours))).unwrap();
    let late = |clock| check_user(&state, &user, at(clock)).unwrap_err().to_string();
    assert_eq!(
        late(now() + YEAR + Duration::from_secs(1)),
        "its certificate expired at 2028-01-15T08:00:00Z, and it is 2028-01-15T08:00:01Z by the clock of this machine"
    );
    assert_eq!(check_user(&state, &user, at(now() + YEAR)), Ok(Role::Admin));
    assert_eq!(
        late(now() - YEAR / 4),
        "its certificate is valid from 2027-01-15T07:00:00Z, and it is 2026-10-16T02:00:00Z by the clock of this machine"
    );
    let member = ours.sign_member(&request(&key), MemberId(1), &[], now()).unwrap();
    assert_eq!(
        refused(&member),
        format!("its certificate is for \"spiffe://{}/member/1\", which is no user", ids.0)
    );
    assert!(refused(b"nonsense").starts_with("its certificate cannot be read: "));
    let trusted = [ours.certificate().to_vec()];
    assert_eq!(verify_member(&ids.0, &trusted, &member, at(now())), Ok(MemberId(1)));
    let user = verify_member(&ids.0, &trusted, &sign(&ours), at(now())).unwrap_err();
    assert!(user.to_string().ends_with("/user/alice\", which is no member"), "{user}");
    let other = verify_member(&ids.0, &[stranger.certificate().to_vec()], &member, at(now())).unwrap_err();
    assert!(matches!(other, CertificateRefusal::WrongAuthority { .. }), "{other}");
}

#[test]
fn one_name_is_needed_and_no_more_than_one_is_taken() {
    let ca = authority(&cluster("0a"));
    let key = PrivateKey::generate().unwrap();
    let state = state(&ca, &[("alice", Role::Admin, key.pin())]);
    let refused = |uris: &[&str]| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let leaf = params.self_signed(key.pair()).unwrap().der().to_vec();
        verify_user(&state, ShownChain::alone(&leaf)).unwrap_err()
    };
    let alice = format!("spiffe://{}/user/alice", cluster("0a"));
    assert_eq!(refused(&[]), CertificateRefusal::NoName);
    assert_eq!(refused(&[&alice, &alice]), CertificateRefusal::ManyNames(2));
    assert!(matches!(refused(&["https://example.com"]), CertificateRefusal::BadName { .. }));
    // Its own authority, which nobody believes.
    assert!(matches!(refused(&[&alice]), CertificateRefusal::WrongAuthority { .. }));
}

#[test]
fn a_user_of_a_retired_authority_is_known_by_the_key_of_its_record_and_its_end() {
    let (ca, key) = (authority(&cluster("0a")), PrivateKey::generate().unwrap());
    let leaf = ca.sign_user(&request(&key), &name("alice"), now(), YEAR).unwrap();
    let mut state = state(&ca, &[("alice", Role::Viewer, key.pin())]);
    let first = Authority { state: AuthorityState::Retired, ..Authority::clone(&state.authorities[&1]) };
    state.authorities.insert(1, first.into());
    assert!(verify_user(&state, ShownChain::alone(&leaf)).is_ok());
    // Whoever has stolen the key of that authority makes certificates, and no key of a user.
    let stolen = PrivateKey::generate().unwrap();
    let forged = ca.sign_user(&request(&stolen), &name("alice"), now(), YEAR).unwrap();
    assert!(matches!(
        verify_user(&state, ShownChain::alone(&forged)),
        Err(CertificateRefusal::KeyNotPinned { .. })
    ));
    // Nor more time for the key of one.
    let end = now() + YEAR / 2;
    let not_after = end.duration_since(NOW).unwrap().as_secs();
    let mut alice = User::clone(&state.users[&name("alice")]);
    alice.spec.keys = vec![UserKey { pin: key.pin(), not_after, not_before: 0, authority: 1 }];
    state.users.insert(name("alice"), alice.into());
    let shown = verify_user(&state, ShownChain::alone(&leaf)).unwrap();
    assert_eq!(shown.not_after, end);
    let late = check_user(&state, &shown, at(end + YEAR / 4));
    assert!(matches!(late, Err(CertificateRefusal::Expired { .. })));
    // One that is forgotten is not believed.
    state.authorities.clear();
    assert!(matches!(
        verify_user(&state, ShownChain::alone(&leaf)),
        Err(CertificateRefusal::WrongAuthority { .. })
    ));
}

#[test]
fn who_knows_an_old_authority_believes_a_member_of_a_newer_one_that_it_leads_to() {
    let id = cluster("0a");
    let make = |generation, at| {
        CertificateAuthority::make(PrivateKey::generate().unwrap(), &id, generation, at).unwrap()
    };
    // The clock of whoever signs is behind the one of whoever made the authority.
    let [first, second, third] = [make(1, now() - YEAR), make(2, now()), make(3, now() + YEAR)];
    let (by_first, by_second) =
        (first.cross_sign(&second, 2).unwrap(), second.cross_sign(&third, 3).unwrap());
    let key = PrivateKey::generate().unwrap();
    let at = now() + YEAR - Duration::from_secs(7200);
    let leaf = third.sign_member(&request(&key), MemberId(1), &[], at).unwrap();
    let others: [&[u8]; 3] = [&by_second, &by_first, first.certificate()];
    let verify = |known: &CertificateAuthority, others: &[&[u8]]| {
        let shown = ShownChain { leaf: &leaf, others };
        let now = VerificationTime::by_clock(at);
        verify_called_member(&id, &[known.certificate().to_vec()], shown, now)
    };
    assert_eq!(verify(&first, &others), Ok(()));
    assert_eq!(verify(&second, &others), Ok(()));
    assert_eq!(verify(&third, &others), Ok(()));
    assert!(matches!(verify(&first, &others[..1]), Err(CertificateRefusal::WrongAuthority { .. })));
    assert!(matches!(verify(&make(1, now()), &others), Err(CertificateRefusal::WrongAuthority { .. })));
    // As for a token that was made under the first one.
    let pin = CertificateFacts::read(first.certificate()).unwrap().pin;
    let found =
        verify_authority(pin, ShownChain { leaf: &leaf, others: &others }, VerificationTime::by_clock(at))
            .unwrap();
    assert_eq!((found.member, found.certificate), (MemberId(1), first.certificate().to_vec()));
}

#[test]
fn fuzz_user_certificate() {
    let (ca, key) = (authority(&cluster("0a")), PrivateKey::generate().unwrap());
    let leaf = ca.sign_user(&request(&key), &name("alice"), now(), YEAR).unwrap();
    let state = state(&ca, &[("alice", Role::Viewer, key.pin()), ("alicd", Role::Admin, KeyPin([0; 32]))]);
    let real = verify_user(&state, ShownChain::alone(&leaf)).unwrap();
    let target = trestle_fuzz::FuzzTarget {
        name: "user_certificate",
        seeds: vec![leaf],
        words: &[b"spiffe://", b"/user/", b"alicd"],
        len_max: 2048,
        repair: None,
    };
    trestle_fuzz::fuzz(&target, |input| match verify_user(&state, ShownChain::alone(input)) {
        Ok(user) => {
            assert_eq!(user, real);
            "believed"
        }
        Err(refusal) => refusal.kind(),
    });
}
