//! Who is taken for removed, and who is not.

use super::cluster::{Cluster, create_pool, proposal, until};
use crate::{DEFAULT_WAIT, RaftState, RemovalOutcome};

/// Four voters, of which the last one was removed and goes on answering, while one of the others was off and knows nothing
/// of it; the rest is off too. Answers the one that was off, then those that know.
async fn after_a_power_cut() -> (Cluster, usize, [usize; 2]) {
    let mut cluster = Cluster::of(4).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..4).filter(|at| *at != leader).collect();
    let (off, knows, gone) = (others[0], others[1], others[2]);
    cluster.stop(off).await;
    let id = cluster.id(gone);
    assert!(matches!(cluster.at(leader).remove(id, None).await.unwrap(), RemovalOutcome::Done { .. }));
    until("the removal", || cluster.at(gone).was_removed().then_some(())).await;
    cluster.stop(knows).await;
    cluster.stop(leader).await;
    (cluster, off, [leader, knows])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_that_answers_takes_nobody_along() {
    let (mut cluster, off, know) = after_a_power_cut().await;
    // One after the other, each with the time to ask the removed one for its vote.
    for at in [off, know[0], know[1]] {
        cluster.start(at).await;
        tokio::time::sleep(3 * super::cluster::TIMING.patience()).await;
    }
    let members = [off, know[0], know[1]];
    for at in members {
        assert!(!cluster.at(at).was_removed(), "member {at} believes that it was removed");
    }
    let leader = cluster.leader_among(&members).await;
    cluster.at(leader).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    cluster.converged(&members).await;
    for at in members {
        assert_ne!(cluster.at(at).status().state, RaftState::Removed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_added_again_as_another_one_and_its_old_data_is_kept() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let gone = (leader + 1) % 3;
    for round in 0..2 {
        let old = cluster.id(gone);
        cluster.at(leader).propose(proposal(create_pool(&format!("p{round}"))), DEFAULT_WAIT).await.unwrap();
        cluster.converged(&[0, 1, 2]).await;
        if round == 1 {
            // Nobody tells it: it was off, and is added again before it has found out.
            cluster.stop(gone).await;
        }
        assert!(matches!(cluster.at(leader).remove(old, None).await.unwrap(), RemovalOutcome::Done { .. }));
        if round == 1 {
            cluster.start(gone).await;
        }
        let new = cluster.join(gone).await;
        assert!(new > old);
        assert_eq!(cluster.id(gone), new);
        assert!(!cluster.at(gone).was_removed());
        cluster.converged(&[0, 1, 2]).await;
        assert_eq!(cluster.pools(gone).len(), round + 1);
        let aside = cluster.dir(gone).join(format!("removed-member-{old}"));
        assert!(aside.join("identity").is_file() && aside.join("store").is_dir(), "{}", aside.display());
        // It is the new member after a restart too, and counts as one.
        cluster.stop(gone).await;
        cluster.start(gone).await;
        assert_eq!(cluster.id(gone), new);
        cluster.leader().await;
        cluster.converged(&[0, 1, 2]).await;
    }
    cluster.at(gone).propose(proposal(create_pool("after")), DEFAULT_WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_missed_its_removal_finds_out() {
    let mut cluster = Cluster::of(1).await;
    let learner = cluster.place().await;
    let id = cluster.at(0).add(cluster.spec(learner), None, &super::cluster::unwatched()).await.unwrap().id;
    cluster.converged(&[0, learner]).await;
    cluster.stop(learner).await;
    assert!(matches!(cluster.at(0).remove(id, None).await.unwrap(), RemovalOutcome::Done { .. }));
    cluster.start(learner).await;
    until("the removal", || cluster.at(learner).was_removed().then_some(())).await;
}
