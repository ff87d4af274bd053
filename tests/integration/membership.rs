//! Members come and go, one explicit step at a time.

use std::time::Duration;

use tonic::Code;
use trestle_api::v1;
use trestle_api::v1::{BootstrapClusterRequest, ListMembersRequest, MemberRole, RemoveMemberRequest};
use trestle_testkit::{Api, Cluster, Member, Origin, Subnet, fetch_http, wait_until};

use crate::{trestle, trestled};

async fn roles(api: &Api) -> Vec<(String, MemberRole)> {
    let list = api.members().list_members(ListMembersRequest::default()).await.unwrap().into_inner();
    list.members.iter().map(|member| (member.name.clone(), member.role())).collect()
}

/// Removes a member; repeats the call while an election is under way.
async fn remove(api: &Api, name: &str) {
    wait_until(&format!("removal of {name}"), Duration::from_secs(20), async || {
        let request = RemoveMemberRequest { name: format!("members/{name}"), ..Default::default() };
        match api.members().remove_member(request).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => Err(status),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => panic!("remove {name}: {status}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_member_is_added_and_removed_under_writes() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();

    let fourth = cluster.prepare();
    cluster.members[fourth].start();
    let added = api.add_member(cluster.members[fourth].peer()).await.unwrap();
    let member = added.member.unwrap();
    assert_eq!((member.name.as_str(), member.role()), ("members/m4", MemberRole::Learner));
    cluster.agreed().await;
    let target = (cluster.members[fourth].ip, 8080).into();
    assert_eq!(fetch_http(target), Ok("origin".to_owned()), "a learner serves");

    let promoted = api.promote_member("m4").await.unwrap();
    assert_eq!(promoted.member.unwrap().role(), MemberRole::Voter);
    assert!(
        !promoted.warnings.is_empty(),
        "four voters bear no more failures than three, which is worth a warning"
    );
    api.create_pool("while-four", None).await.unwrap();
    assert_eq!(cluster.agreed().await.members.len(), 4);

    remove(&api, "m4").await;
    cluster.members[fourth].stop();
    let status = cluster.agreed().await;
    assert_eq!(status.members.len(), 3);
    assert_eq!(roles(&api).await.len(), 3);
    api.create_pool("after", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_member_is_replaced_under_its_old_name() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    api.create_pool("before", None).await.unwrap();
    let id = |status: &trestle_api::v1::ClusterStatus, name: &str| {
        let members = status.members.iter().filter_map(|status| status.member.as_ref());
        members.filter(|member| member.name == name).map(|member| member.id).next()
    };
    let lost = id(&cluster.agreed().await, "members/m3");
    cluster.members[2].kill();
    cluster.members[2].wipe();
    remove(&api, "m3").await;
    api.create_pool("without", None).await.unwrap();

    cluster.members[2].start();
    cluster.take_in(2).await;
    let status = cluster.agreed().await;
    assert_eq!(status.members.len(), 3);
    assert!(roles(&api).await.iter().all(|(_, role)| *role == MemberRole::Voter));
    let found = id(&status, "members/m3");
    assert!(
        found.is_some() && found != lost,
        "the id of a lost member is never used again: {lost:?}, {found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_comes_back_with_its_data_and_catches_up() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    cluster.members[2].kill();
    for number in 0..20 {
        api.create_pool(&format!("pool-{number}"), None).await.unwrap();
    }
    cluster.members[2].start();
    assert_eq!(cluster.agreed().await.counts.unwrap().pools, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_would_harm_are_refused() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut other = Cluster::start(trestled(), 1).await;
    let api = cluster.api(0);

    let again = api.cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition, "{again}");

    let taken = api.add_member(other.members[0].peer()).await.unwrap_err();
    assert_eq!(taken.code(), Code::FailedPrecondition, "{taken}");
    assert!(
        taken.message().contains("cluster") && taken.message().contains("empty data directory"),
        "{taken}"
    );

    let nobody = api.add_member((cluster.subnet.ip(99), 7481).into()).await.unwrap_err();
    assert!(nobody.message().contains(&cluster.subnet.ip(99).to_string()), "{nobody}");

    // m1 alone with a dead m3 could decide nothing.
    let leader = cluster.leader().await;
    let (dead, removed) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.members[dead].kill();
    // For 450 ms, the lease and the shortest election, a member that has just died counts as one that answers.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let request = RemoveMemberRequest { name: format!("members/m{}", removed + 1), ..Default::default() };
    let mut members = cluster.api(leader).members();
    let refused = wait_until("a refusal", Duration::from_secs(20), async || {
        let status =
            members.remove_member(request.clone()).await.expect_err("the removal would lose the quorum");
        if status.code() == Code::Unavailable { Err(status.to_string()) } else { Ok(status) }
    });
    let refused = refused.await;
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    cluster.members[dead].start();
    assert_eq!(cluster.agreed().await.members.len(), 3);
    other.agreed().await;
}

/// Replaces the timing profile in the file of a member.
fn set_profile(member: &Member, profile: &str) {
    let text = std::fs::read_to_string(member.config()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("profile"));
    let lines: Vec<String> = lines.map(|line| format!("{line}\n")).collect();
    std::fs::write(member.config(), format!("profile = \"{profile}\"\n{}", lines.concat())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_another_timing_is_neither_taken_in_nor_heard() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let fourth = cluster.prepare();
    set_profile(&cluster.members[fourth], "fast");
    cluster.members[fourth].start();
    let refused = cluster.api(0).add_member(cluster.members[fourth].peer()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let words = "has election timeouts of up to 125 ms, and this cluster of up to 300 ms; start it with the same profile";
    assert!(refused.message().ends_with(words), "{refused}");
    cluster.members[fourth].stop();

    // A voter that comes back with another one: the others go on without it.
    cluster.members[2].stop();
    set_profile(&cluster.members[2], "wide");
    let leader = cluster.leader().await;
    cluster.api(leader).create_pool("without", None).await.unwrap();
    cluster.members[2].start();
    wait_until("refused calls", Duration::from_secs(20), async || {
        let output = cluster.members[2].output();
        if output.contains("give all members the same profile") { Ok(()) } else { Err(output) }
    })
    .await;
    let status = cluster.api(leader).status().await.unwrap();
    let revision = |name: &str| {
        let members = status.members.iter().filter(|m| m.reachable);
        members.filter(|m| m.member.as_ref().is_some_and(|m| m.name == name)).map(|m| m.revision).next()
    };
    assert!(revision("members/m3") < revision("members/m1"), "{status:#?}");
    cluster.members[2].stop();
    set_profile(&cluster.members[2], "default");
    cluster.members[2].start();
    cluster.agreed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_told_whom_to_ask_joins_by_itself() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let (subnet, peer) = (Subnet::claim(), cluster.members[0].peer());
    // The first one to ask is nobody.
    let join = format!("join = [\"{}:7481\", \"{peer}\"]\n", subnet.ip(9));
    let mut member = Member::new(trestled(), "m2", subnet.ip(2), &join);
    member.start();
    let api = cluster.api(0);
    wait_until("m2 as a learner", Duration::from_secs(30), async || {
        let roles = roles(&api).await;
        if roles.contains(&("members/m2".to_owned(), MemberRole::Learner)) {
            Ok(())
        } else {
            Err(format!("{roles:?}"))
        }
    })
    .await;
    api.promote_member("m2").await.unwrap();
    assert_eq!(cluster.agreed().await.members.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_a_change_of_members_changes_nothing() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let learner = cluster.prepare();
    cluster.members[learner].start();
    let api = cluster.api(0);
    // A leader that loses its quorum on a busy machine has changed nothing, or what goes on where it stopped.
    wait_until("a learner", Duration::from_secs(60), async || {
        api.add_member(cluster.members[learner].peer()).await.map(drop).map_err(|status| status.to_string())
    })
    .await;
    let empty = cluster.prepare();
    cluster.members[empty].start();
    let empty = cluster.members[empty].peer().to_string();
    let drained = v1::DrainMemberRequest { name: "members/m3".to_owned(), ..Default::default() };
    api.members().drain_member(drained).await.unwrap();
    let before = cluster.agreed().await;

    let endpoints = cluster.endpoints();
    for (line, told) in [
        (format!("member add {empty} --dry-run"), format!("member m5 at {empty} would be added as learner")),
        ("member promote m4 --dry-run".to_owned(), "member m4 would be promoted to voter".to_owned()),
        ("member remove m2 --dry-run".to_owned(), "member m2 would be removed".to_owned()),
        ("member drain m2 --deadline 5m --dry-run".to_owned(), "member m2 would be draining".to_owned()),
        ("member enable m3 --dry-run".to_owned(), "member m3 would be enabled".to_owned()),
    ] {
        let said = trestle(&endpoints, &line.split(' ').collect::<Vec<_>>()).expect_success();
        assert_eq!(said, format!("{told} (dry run)\n"), "{line}");
    }
    let unknown = trestle(&endpoints, &["member", "drain", "m9", "--dry-run"]);
    assert_eq!(unknown.code, Some(1), "a dry run finds the mistakes of a real one: {}", unknown.stdout);

    let after = cluster.agreed().await;
    let members = |status: &v1::ClusterStatus| {
        let members = status.members.iter().filter_map(|member| member.member.clone());
        // Who leads may change at any time.
        members.map(|member| v1::Member { leader: false, ..member }).collect::<Vec<_>>()
    };
    assert_eq!((after.revision, members(&after)), (before.revision, members(&before)));
}
