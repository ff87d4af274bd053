#![allow(clippy::unwrap_used)]
//! Both sides against one another, with what each of them says of a refusal.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use trestle_model::{
    Authority, AuthorityState, ClusterId, ClusterState, MemberId, Role, User, UserKey, UserName, UserSpec,
};

use super::*;
use crate::authority::CertificateAuthority;
use crate::certificate::to_pem;
use crate::private_key::PrivateKey;
use crate::request::CertificateRequest;
use crate::verification_time::VerificationTime;

const HOUR: Duration = Duration::from_secs(3600);

struct Side {
    authority: CertificateAuthority,
    key: PrivateKey,
}

impl Side {
    fn new(byte: &str) -> Self {
        let cluster = ClusterId::parse(&byte.repeat(16)).unwrap();
        let authority =
            CertificateAuthority::make(PrivateKey::generate().unwrap(), &cluster, 1, SystemTime::now())
                .unwrap();
        Self { authority, key: PrivateKey::generate().unwrap() }
    }

    fn request(&self) -> CertificateRequest {
        CertificateRequest::read(&CertificateRequest::make(&self.key).unwrap()).unwrap()
    }

    fn leaf(&self) -> ServerLeaf {
        let signed =
            self.authority.sign_member(&self.request(), MemberId(1), &[], SystemTime::now()).unwrap();
        ServerLeaf::new(&signed, &self.key).unwrap()
    }

    fn user(&self, believes: &CertificateAuthority, signed_at: SystemTime) -> ClientTls {
        let name = UserName::parse("alice").unwrap();
        let signed = self.authority.sign_user(&self.request(), &name, signed_at, HOUR).unwrap();
        ClientTls::new(&to_pem(believes.certificate()), &to_pem(&signed), self.key.to_pem().expose()).unwrap()
    }

    /// The state of the cluster of this authority, in which that key is alice's.
    fn state(&self, byte: &str, key: &PrivateKey) -> Arc<ClusterState> {
        let first = Authority {
            generation: 1,
            certificate: self.authority.certificate().into(),
            state: AuthorityState::Active,
            external: false,
            key_holders: vec![MemberId(1)],
            cross: None,
        };
        let name = UserName::parse("alice").unwrap();
        let keys = vec![UserKey { pin: key.pin(), not_after: 0, not_before: 0, authority: 0 }];
        let user = User { spec: UserSpec { name: name.clone(), role: Role::Admin, keys }, revision: 1 };
        Arc::new(ClusterState {
            cluster_id: Some(ClusterId::parse(&byte.repeat(16)).unwrap()),
            authorities: [(1, Arc::new(first))].into(),
            users: [(name, Arc::new(user))].into(),
            ..ClusterState::default()
        })
    }
}

/// What the server and the client say of one another.
async fn meet(
    leaf: ServerLeaf,
    state: Arc<ClusterState>,
    user: &ClientTls,
    now: SystemTime,
) -> (String, String) {
    let (client, server) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        match accept(server, &leaf, state).await {
            Ok((mut stream, user)) => {
                stream.write_all(b"hello").await.unwrap();
                // Until the client has gone.
                let _ = stream.read(&mut [0; 10]).await;
                format!("{} is in", user.name)
            }
            Err(failure) => failure.words,
        }
    });
    let said = match user.connect(client, VerificationTime::by_clock(now)).await {
        Ok(mut stream) => {
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await.unwrap();
            String::from_utf8(greeting.to_vec()).unwrap()
        }
        Err(error) => error.to_string(),
    };
    (serving.await.unwrap(), said)
}

#[tokio::test]
async fn a_user_and_a_member_of_one_cluster_meet() {
    let side = Side::new("0a");
    let now = SystemTime::now();
    let user = side.user(&side.authority, now);
    let met = meet(side.leaf(), side.state("0a", &side.key), &user, now).await;
    assert_eq!(met, ("alice is in".to_owned(), "hello".to_owned()));
}

#[tokio::test]
async fn both_sides_say_why_they_do_not_meet() {
    let (ours, theirs) = (Side::new("0a"), Side::new("0b"));
    let now = SystemTime::now();
    let state = ours.state("0a", &ours.key);
    let check = async |state: &Arc<ClusterState>, user: &ClientTls, now, server: &str, client: &str| {
        let (said, told) = meet(ours.leaf(), state.clone(), user, now).await;
        assert!(said.contains(server), "server: {said:?} has no {server:?}");
        assert!(told.contains(client), "client: {told:?} has no {client:?}");
    };
    // The member of another cluster than the context's.
    let stranger = theirs.user(&theirs.authority, now);
    check(&state, &stranger, now, "", "is not believed to be a member of cluster 0b").await;
    // A context that believes this cluster, and whose own certificate is of another.
    let stranger = theirs.user(&ours.authority, now);
    let met = meet(ours.leaf(), state.clone(), &stranger, now).await;
    assert!(met.1.contains("its certificate is of cluster 0a"), "{met:?}");
    let user = ours.user(&ours.authority, now);
    let mut gone = ClusterState::clone(&state);
    gone.users.clear();
    check(&gone.into(), &user, now, "user \"alice\" does not exist", "there is no such user").await;
    let rotated = ours.state("0a", &PrivateKey::generate().unwrap());
    check(&rotated, &user, now, "was rotated", "its key was rotated; use the context").await;
    let late = ours.user(&ours.authority, now - 3 * HOUR);
    check(&state, &late, now, "", "its certificate expired at ").await;
    // By the clock of the client it has not. The member's own counts, and is told when the user calls.
    let just_over = ours.user(&ours.authority, now - HOUR * 3 / 2);
    let met = meet(ours.leaf(), state.clone(), &just_over, now - HOUR * 3 / 4).await;
    assert_eq!(met, ("alice is in".to_owned(), "hello".to_owned()));
    let early = ours.user(&ours.authority, now + 3 * HOUR);
    check(&state, &early, now, "", "its certificate is valid from ").await;
}

#[tokio::test]
async fn what_is_no_handshake_is_told() {
    let side = Side::new("0a");
    let now = SystemTime::now();
    let (mut client, server) = duplex(16 * 1024);
    client.write_all(&[0x16; 400]).await.unwrap();
    let failure = accept(server, &side.leaf(), side.state("0a", &side.key)).await.unwrap_err();
    assert_eq!(failure.kind, "its TLS handshake is none", "{}", failure.words);
    let (client, mut server) = duplex(16 * 1024);
    server.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    let user = side.user(&side.authority, now);
    let refused = user.connect(client, VerificationTime::by_clock(now)).await.unwrap_err();
    assert!(matches!(refused, TlsError::NotTls(_)), "{refused}");
    assert!(!format!("{user:?}").contains("PRIVATE"), "{user:?}");
}
