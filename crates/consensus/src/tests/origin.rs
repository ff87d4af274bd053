//! What the log says of where a change comes from.

use std::sync::Arc;
use std::time::SystemTime;

use trestle_model::{
    Actor, BackendAddress, BackendName, BackendSpec, Command, Configuration, Document, Origin, PoolName,
    PoolSpec, Proposal, RevisionRecord, Role,
};

use super::cluster::{Cluster, create_pool, named};
use crate::DEFAULT_WAIT;

/// The newest record of a member.
fn newest(cluster: &Cluster, at: usize) -> Arc<RevisionRecord> {
    cluster.at(at).view().borrow().state.records.back().unwrap().clone()
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A pool with so many backends that its document takes several entries.
fn several_entries() -> Command {
    let pool = PoolName::parse("large").unwrap();
    let mut documents: Vec<Document> = vec![(pool.clone(), PoolSpec::default()).into()];
    documents.extend((0..20_000_u32).map(|number| {
        let name = BackendName::parse(&format!("backend-{number}")).unwrap();
        let address = format!("backend-with-a-long-name-{number}.of.a.long.domain.example:80");
        (pool.clone(), name, BackendSpec::at(BackendAddress::parse(&address).unwrap())).into()
    }));
    Command::Restore { configuration: Arc::new(Configuration(documents)), replace: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_has_the_leaders_time_whoever_took_the_request() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let client = Some([192, 0, 2, 9].into());
    let actor = Some(Actor::LocalUser { uid: 1000, role: Role::Operator });
    // The clocks of those that forward are in 1970.
    let origin =
        |at: usize| Some(Origin { time_ms: 5, member: Some(cluster.id(at)), client, actor: actor.clone() });
    let commands = [create_pool("a"), create_pool("b"), create_pool("c"), several_entries()];
    for (number, (at, command)) in [0, 1, 2, (leader + 1) % 3].into_iter().zip(commands).enumerate() {
        let before = now_ms();
        let proposal = Proposal { origin: origin(at), ..named(&format!("r{number}"), command) };
        cluster.at(at).propose(proposal.clone(), DEFAULT_WAIT).await.unwrap();
        let record = newest(&cluster, leader);
        let written = record.origin.clone().unwrap();
        assert!((before..=now_ms()).contains(&written.time_ms), "{number}: {written:?}, asked at {before}");
        assert_eq!((written.member, written.client), (Some(cluster.id(at)), client), "{number}");
        assert_eq!(written.actor, actor, "{number}");
        // Repeated, it is the same request.
        let last = cluster.at(leader).status().last_log_index;
        let again = Proposal { origin: origin(leader), ..proposal };
        if number < 3 {
            cluster.at(at).propose(again, DEFAULT_WAIT).await.unwrap();
            assert_eq!(cluster.at(leader).status().last_log_index, last, "{number}");
        }
    }
    cluster.converged(&[0, 1, 2]).await;
    for at in 0..3 {
        assert_eq!(newest(&cluster, at), newest(&cluster, leader), "at {at}");
    }
}
