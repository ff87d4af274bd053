#![allow(clippy::unwrap_used)]
//! Two members against one another, and a process that wants to be one, with what each side says of a refusal.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use trestle_model::{
    Authority, AuthorityState, ClusterId, ClusterState, HostPort, Member, MemberName, MemberSpec,
    TransportSecurity, UserName,
};

use super::*;
use crate::authority::CertificateAuthority;
use crate::private_key::PrivateKey;
use crate::request::CertificateRequest;
use crate::tls::ServerLeaf;
use crate::verify::{PeerStanding, check_peer};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn cluster(byte: &str) -> ClusterId {
    ClusterId::parse(&byte.repeat(16)).unwrap()
}

/// An authority, and a key for each of its members.
struct Side {
    byte: &'static str,
    authority: CertificateAuthority,
    keys: Vec<PrivateKey>,
}

fn now() -> VerificationTime {
    VerificationTime::by_clock(SystemTime::now())
}

impl Side {
    fn new(byte: &'static str) -> Self {
        let key = PrivateKey::generate().unwrap();
        let authority = CertificateAuthority::make(key, &cluster(byte), 1, SystemTime::now() - 500 * DAY);
        let keys = (0..4).map(|_| PrivateKey::generate().unwrap()).collect();
        Self { byte, authority: authority.unwrap(), keys }
    }

    fn request(key: &PrivateKey) -> CertificateRequest {
        CertificateRequest::read(&CertificateRequest::make(key).unwrap()).unwrap()
    }

    /// The certificate of the member `id`, for the key of the member `of`.
    fn leaf_of(&self, id: u64, of: usize, at: SystemTime) -> ServerLeaf {
        let key = &self.keys[of];
        let signed = self.authority.sign_member(&Self::request(key), MemberId(id), &[], at).unwrap();
        ServerLeaf::new(&signed, key).unwrap().with_authorities([self.authority.certificate()])
    }

    fn leaf(&self, id: u64) -> ServerLeaf {
        self.leaf_of(id, usize::try_from(id).unwrap(), SystemTime::now())
    }

    /// The state in which these are members, each with its own key; up to that revision.
    fn state(&self, ids: &[u64], revision: u64) -> ClusterState {
        let first = Authority {
            generation: 1,
            certificate: self.authority.certificate().into(),
            state: AuthorityState::Active,
            external: false,
            key_holders: vec![MemberId(1)],
            cross: None,
        };
        let member = |id: &u64| {
            let address = HostPort::parse(&format!("192.0.2.{id}:7481")).unwrap();
            let spec = MemberSpec {
                name: MemberName::parse(&format!("m{id}")).unwrap(),
                peer_address: address.clone(),
                admin_address: address,
                feature_level_max: 2,
            };
            let member =
                Member { id: MemberId(*id), spec, draining: false, drain_timeout: None, revision: 1 };
            (MemberId(*id), Arc::new(member))
        };
        let key = |id: &u64| (MemberId(*id), vec![self.keys[usize::try_from(*id).unwrap()].pin()]);
        ClusterState {
            cluster_id: Some(cluster(self.byte)),
            authorities: [(1, Arc::new(first))].into(),
            members: ids.iter().map(member).collect(),
            member_keys: ids.iter().map(key).collect(),
            transport: TransportSecurity::Require,
            revision,
            ..ClusterState::default()
        }
    }

    fn trust(&self, ids: &[u64], revision: u64) -> PeerTrust {
        PeerTrust::by_state(self.state(ids, revision).into()).unwrap()
    }
}

/// What the member that is called says of the caller, and the caller of the member. The member shows `leaf`.
async fn meet<T>(
    leaf: ServerLeaf,
    trust: PeerTrust,
    connect: impl AsyncFnOnce(tokio::io::DuplexStream) -> Result<T, PeerTlsError>,
    named: impl FnOnce(&T) -> String,
) -> (String, String) {
    let (client, server) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        match accept_member(server, &leaf, trust, now()).await {
            Ok((mut stream, identity)) => {
                stream.write_all(b"hello").await.unwrap();
                // Until the client has gone.
                let _ = stream.read(&mut [0; 10]).await;
                match identity {
                    PeerIdentity::Member(member) => format!("member {} is in", member.id),
                    PeerIdentity::Anonymous => "somebody is in".to_owned(),
                }
            }
            Err(failure) => failure.words,
        }
    });
    let connected = connect(client).await;
    let said = connected.as_ref().map_or_else(ToString::to_string, named);
    drop(connected);
    (serving.await.unwrap(), said)
}

/// The member that shows `own` calls the member 2 of `ours`, which shows `shown`.
async fn call(
    (shown, believes): (ServerLeaf, PeerTrust),
    (own, trust): (Option<ServerLeaf>, PeerTrust),
    wanted: Option<u64>,
) -> (String, String) {
    let tls = PeerTls::new(own, trust, wanted.map(MemberId), now());
    let connect = async |io| tls.connect(io).await;
    meet(shown, believes, connect, |(_, member)| format!("to member {}", member.id)).await
}

#[tokio::test]
async fn two_members_of_one_cluster_meet_whatever_the_clocks_say() {
    let side = Side::new("0a");
    let trust = || side.trust(&[1, 2], 9);
    let now = SystemTime::now();
    for (signed, signed_there) in
        [(now, now), (now - 100 * DAY, now), (now, now - 100 * DAY), (now + 100 * DAY, now - 100 * DAY)]
    {
        let (own, shown) = (side.leaf_of(1, 1, signed), side.leaf_of(2, 2, signed_there));
        let met = call((shown, trust()), (Some(own), trust()), Some(2)).await;
        assert_eq!(met, ("member 1 is in".to_owned(), "to member 2".to_owned()));
    }
    let expired = side.leaf_of(1, 1, now - 100 * DAY);
    let member = AuthenticatedMember { id: MemberId(1), facts: expired.facts().clone(), unsigned: None };
    assert!(member.doubt(VerificationTime::by_clock(now)).unwrap().to_string().contains("expired at"));
    let met = call((side.leaf(2), trust()), (None, trust()), None).await;
    assert_eq!(met, ("somebody is in".to_owned(), "to member 2".to_owned()));
}

/// What each side says of the other when `own` calls the member 2, which believes `trust`.
async fn refused(ours: &Side, own: ServerLeaf, trust: PeerTrust, there: &str, here: &str) {
    let met = call((ours.leaf(2), trust), (Some(own), ours.trust(&[1, 2, 3], 9)), Some(2)).await;
    assert!(met.0.contains(there), "there: {:?} has no {there:?}", met.0);
    assert!(met.1.contains(here), "here: {:?} has no {here:?}", met.1);
}

#[tokio::test]
async fn both_sides_say_why_a_caller_is_refused() {
    let (ours, theirs, namesake) = (Side::new("0a"), Side::new("0b"), Side::new("0a"));
    let now = SystemTime::now();
    let trust = || ours.trust(&[1, 2], 9);
    refused(&ours, theirs.leaf(1), trust(), "is of cluster 0b", "of another cluster").await;
    refused(&ours, namesake.leaf(1), trust(), "is no authority of cluster 0a", "signed by no authority")
        .await;
    // The key of one member in a certificate for another.
    refused(&ours, ours.leaf_of(1, 3, now), trust(), "is none of member 1", "not the one that its record")
        .await;
    // Whom nothing but the certificate vouches for.
    let newer = || ours.trust(&[2], 0);
    refused(&ours, ours.leaf_of(1, 1, now - 100 * DAY), newer(), "its certificate expired at", "compare the")
        .await;
    refused(&ours, ours.leaf_of(1, 1, now + 100 * DAY), newer(), "is valid from", "compare the clocks").await;
    let met = call((ours.leaf(2), newer()), (Some(ours.leaf(1)), trust()), Some(2)).await;
    assert_eq!(met.0, "member 1 is in");
    refused(&ours, ours.leaf_of(3, 3, now - 100 * DAY), trust(), "its certificate expired at", "compare the")
        .await;
    // A user's.
    let name = UserName::parse("alice").unwrap();
    let signed = ours.authority.sign_user(&Side::request(&ours.keys[1]), &name, now, DAY).unwrap();
    let user = ServerLeaf::new(&signed, &ours.keys[1]).unwrap();
    refused(&ours, user, trust(), "which is no member", "of another cluster").await;
}

#[tokio::test]
async fn both_sides_say_why_a_called_member_is_refused() {
    let (ours, theirs) = (Side::new("0a"), Side::new("0b"));
    let trust = || ours.trust(&[1, 2, 3], 9);
    for (shown, why) in [
        (theirs.leaf(2), "believed to be member 2 of cluster 0a"),
        (ours.leaf(3), "is for member 3, and at this address member 2 is expected"),
        (ours.leaf_of(2, 3, SystemTime::now()), "is none of member 2"),
    ] {
        let met = call((shown, trust()), (Some(ours.leaf(1)), trust()), Some(2)).await;
        assert!(met.1.contains(why), "{:?} has no {why:?}", met.1);
        assert!(!met.0.ends_with("is in"), "{}", met.0);
    }
}

#[test]
fn how_far_a_member_is_known_is_told_by_the_state_of_that_moment() {
    let side = Side::new("0a");
    let member = |id| {
        let facts = side.leaf(id).facts().clone();
        AuthenticatedMember { id: MemberId(id), facts, unsigned: None }
    };
    let standing = |id, state: ClusterState| check_peer(&state, &member(id), now());
    assert_eq!(standing(3, side.state(&[1, 2], 2)), Ok(PeerStanding::Newer));
    assert_eq!(standing(3, side.state(&[1, 2, 3], 3)), Ok(PeerStanding::Known));
    assert_eq!(standing(3, side.state(&[1, 2], 4)), Ok(PeerStanding::Former));
}

/// One that was off while the authority was replaced.
#[tokio::test]
async fn a_known_member_is_let_in_by_its_key_whoever_has_signed_for_it() {
    let side = Side::new("0a");
    let another = Side { keys: Vec::new(), ..Side::new("0a") };
    // Everybody's state has another authority than the one that has signed.
    let trust = |ids: &[u64], revision| {
        let mut state = side.state(ids, revision);
        let first = Authority {
            certificate: another.authority.certificate().into(),
            ..Authority::clone(&state.authorities[&1])
        };
        state.authorities.insert(1, first.into());
        state
    };
    let believing = |state: ClusterState| PeerTrust::by_state(state.into()).unwrap();
    let met = call(
        (side.leaf(2), believing(trust(&[1, 2], 9))),
        (Some(side.leaf(1)), believing(trust(&[1, 2], 9))),
        Some(2),
    )
    .await;
    assert_eq!(met, ("member 1 is in".to_owned(), "to member 2".to_owned()));
    let shown = side.leaf(1);
    let judge = |state: ClusterState, leaf: &ServerLeaf| {
        verify_peer(&believing(state), ShownChain::alone(leaf.certificate()), now())
    };
    let doubt = judge(trust(&[1, 2], 9), &shown).unwrap().doubt(now()).unwrap();
    assert!(doubt.to_string().contains("which is no authority of cluster"), "{doubt}");
    // With another key, or without a record, there is nothing else to know it by.
    let wrong = |judged: Result<AuthenticatedMember, CertificateRefusal>| {
        matches!(judged, Err(CertificateRefusal::WrongAuthority { .. }))
    };
    assert!(wrong(judge(trust(&[1, 2], 9), &side.leaf_of(1, 3, SystemTime::now()))));
    assert!(wrong(judge(trust(&[2], 0), &shown)));
    assert!(wrong(judge(trust(&[2], 9), &shown)));
    let mut without_key = trust(&[1, 2], 9);
    without_key.member_keys.remove(&MemberId(1));
    without_key.transport = TransportSecurity::Accept;
    assert!(wrong(judge(without_key, &shown)));
    // One that was removed meanwhile may ask what became of it, by an authority that is retired; one that is not known yet may not.
    let retired = |ids: &[u64], revision| {
        let mut state = trust(ids, revision);
        let mut old = Authority::clone(&side.state(&[], 0).authorities[&1]);
        (old.generation, old.state) = (9, AuthorityState::Retired);
        state.authorities.insert(9, old.into());
        state
    };
    assert!(judge(retired(&[2], 9), &shown).is_ok());
    assert!(wrong(judge(retired(&[2], 0), &shown)));
}

#[tokio::test]
async fn a_member_without_a_key_in_its_record_is_believed_until_tls_is_required() {
    let side = Side::new("0a");
    let trust = |transport| {
        let mut state = side.state(&[1, 2], 9);
        state.member_keys.remove(&MemberId(1));
        state.transport = transport;
        PeerTrust::by_state(state.into()).unwrap()
    };
    let own = || (Some(side.leaf(1)), side.trust(&[1, 2], 9));
    let met = call((side.leaf(2), trust(TransportSecurity::Accept)), own(), Some(2)).await;
    assert_eq!(met.0, "member 1 is in");
    let met = call((side.leaf(2), trust(TransportSecurity::Require)), own(), Some(2)).await;
    assert!(met.0.contains("is none of member 1"), "{met:?}");
}

#[tokio::test]
async fn a_process_that_joins_believes_the_authority_of_its_token_and_nobody_else() {
    let (ours, theirs) = (Side::new("0a"), Side::new("0b"));
    let pin = crate::certificate::CertificateFacts::read(ours.authority.certificate()).unwrap().pin;
    let join = async |leaf: ServerLeaf| {
        let trust = ours.trust(&[2], 9);
        let connect = async |io| connect_to_authority(io, pin, now()).await;
        meet(leaf, trust, connect, |(_, found)| {
            assert_eq!(found.certificate, ours.authority.certificate());
            format!("to member {} of {}", found.member, found.cluster)
        })
        .await
    };
    let met = join(ours.leaf(2)).await;
    assert_eq!(met, ("somebody is in".to_owned(), format!("to member 2 of {}", cluster("0a"))));
    let met = join(theirs.leaf(2)).await;
    assert!(met.1.contains("no certificate of an authority with the key"), "{met:?}");
    // The right authority beside a certificate that it has not signed.
    let met = join(theirs.leaf(2).with_authorities([ours.authority.certificate()])).await;
    assert!(met.1.contains("which is no authority of cluster"), "{met:?}");
    // Whose time is over.
    let met = join(ours.leaf_of(2, 2, SystemTime::now() - 100 * DAY)).await;
    assert!(met.1.contains("expired at"), "{met:?}");
}
