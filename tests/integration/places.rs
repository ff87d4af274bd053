//! One data directory on two machines, or on another one, or as it once was; and addresses that are somebody else's.

use std::time::Duration;

use trestle_api::v1::{ListMembersRequest, Member as Record, UpdateMemberRequest};
use trestle_testkit::{Api, Cluster, Member, get, wait_for, wait_until};

use crate::vips::restore_vip;
use crate::{copy_all, trestle, trestled};

const LIMIT: Duration = Duration::from_secs(60);

/// Prepares a machine with another address that has the data and the name of the stopped member `of`; answers its place.
fn copy_of(cluster: &mut Cluster, of: usize) -> usize {
    let copy = cluster.prepare();
    let (original, copy_) = (&cluster.members[of], &cluster.members[copy]);
    copy_all(&original.data_dir(), &copy_.data_dir());
    let config = std::fs::read_to_string(copy_.config()).unwrap();
    let own = format!("name = \"{}\"", copy_.name);
    assert!(config.contains(&own));
    std::fs::write(copy_.config(), config.replace(&own, &format!("name = \"{}\"", original.name))).unwrap();
    copy
}

/// Waits until the member says in its readiness why it is not ready.
fn says(member: &Member, why: &str) {
    wait_for(&format!("\"{why}\" from {}", member.ip), LIMIT, || {
        let page = get(member.http(), "/readyz")?;
        if page.status == 503 && page.body.contains(why) { Ok(()) } else { Err(page.body) }
    });
}

async fn record(api: &Api, name: &str) -> Result<Record, String> {
    let list = api.members().list_members(ListMembersRequest::default()).await.map_err(|e| e.to_string())?;
    let name = format!("members/{name}");
    list.into_inner().members.into_iter().find(|m| m.name == name).ok_or_else(|| format!("no {name}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_of_a_member_stays_out_of_elections_and_says_so() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    cluster.members[1].stop();
    let clone = copy_of(&mut cluster, 1);
    cluster.members[1].start();
    cluster.agreed().await;
    cluster.members[clone].start();
    says(&cluster.members[clone], "another process answers as this member");
    // Two elections in which it could take part.
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        let next = cluster.leader().await;
        assert_ne!(next, clone);
        let metrics = get(cluster.members[clone].http(), "/metrics").unwrap().body;
        assert!(!metrics.contains("state=\"leader\"} 1"), "the clone leads");
        cluster.members[leader].start();
        cluster.agreed().await;
    }
    assert!(cluster.members[1].output().contains("raft"), "the member itself took part");
    says(&cluster.members[clone], "another process answers as this member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_moved_is_found_again_and_its_old_machine_stays_out() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    let before = cluster.members[2].peer().to_string();
    cluster.members[2].stop();
    let moved = copy_of(&mut cluster, 2);
    cluster.members[moved].start();
    let (peer, admin) =
        (cluster.members[moved].peer().to_string(), cluster.members[moved].admin().to_string());
    wait_until("the new address in the record", LIMIT, async || {
        let found = record(&api, "m3").await?;
        if (&found.peer_address, &found.admin_address) == (&peer, &admin) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    api.create_pool("after", None).await.unwrap();
    cluster.agreed().await;
    let log = cluster.members[moved].output();
    let told =
        log.lines().any(|line| line.contains("WARN") && line.contains(&before) && line.contains(&peer));
    assert!(told, "{log}");
    // Whoever switches the old machine on again has two of them.
    cluster.members[2].start();
    says(&cluster.members[2], "another process answers as this member");
    cluster.agreed().await;
    assert_eq!(record(&api, "m3").await.unwrap().peer_address, peer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_at_one_address_the_older_steps_down() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let before = cluster.members[1].peer();
    // As if it were cut off and not dead: it goes on when another one has taken its place.
    cluster.members[1].stop();
    let other = copy_of(&mut cluster, 1);
    cluster.members[1].start();
    cluster.agreed().await;
    cluster.members[1].process().freeze();
    cluster.members[other].start();
    let (api, peer) = (cluster.api(0), cluster.members[other].peer().to_string());
    wait_until("the other one in the record", LIMIT, async || {
        let found = record(&api, "m2").await?;
        if found.peer_address == peer { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    cluster.members[1].process().thaw();
    says(&cluster.members[1], "another process answers as this member");
    cluster.agreed().await;
    assert_ne!(before.to_string(), record(&api, "m2").await.unwrap().peer_address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_say_where_a_member_is() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    cluster.members[2].stop();
    let update = |peer_address: String, admin_address: String| UpdateMemberRequest {
        name: "members/m3".to_owned(),
        peer_address,
        admin_address,
    };
    let changed =
        api.members().update_member(update(String::new(), "m3.example:7480".to_owned())).await.unwrap();
    assert_eq!(changed.into_inner().admin_address, "m3.example:7480");
    let taken = cluster.members[1].peer().to_string();
    let refused = api.members().update_member(update(taken, String::new())).await.unwrap_err();
    assert!(refused.message().contains("is the peer address of member \"m2\" already"), "{refused}");
    let refused = api.members().update_member(update(String::new(), String::new())).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    // A member that is back says itself where it is.
    cluster.members[2].start();
    let admin = cluster.members[2].admin().to_string();
    wait_until("its own word in the record", LIMIT, async || {
        let found = record(&api, "m3").await?;
        if found.admin_address == admin { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_put_back_is_filled_again() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let leader = cluster.leader().await;
    let (victim, api) = ((leader + 1) % 3, cluster.api(leader));
    cluster.members[victim].stop();
    let old = copy_of(&mut cluster, victim);
    cluster.members[victim].start();
    for pool in ["a", "b", "c", "d"] {
        api.create_pool(pool, None).await.unwrap();
    }
    cluster.agreed().await;
    cluster.members[victim].stop();
    cluster.members[victim].wipe();
    copy_all(&cluster.members[old].data_dir(), &cluster.members[victim].data_dir());
    cluster.members[victim].start();
    cluster.agreed().await;
    let log = cluster.members[victim].output();
    assert!(log.contains("its disk went back in time"), "{log}");
    assert!(log.contains("has everything again"), "{log}");
    wait_for("its readiness", LIMIT, || match get(cluster.members[victim].http(), "/readyz")? {
        page if page.status == 200 => Ok(()),
        page => Err(page.body),
    });
}

/// Adds a line to a member's file.
fn configure(member: &Member, line: &str) {
    let config = std::fs::read_to_string(member.config()).unwrap();
    std::fs::write(member.config(), format!("{config}{line}\n")).unwrap();
}

/// The documents that a cluster refuses: a backup with another address of its virtual IP.
fn refuses_restore(endpoint: &str, address: &str, why: &str) {
    let saved = trestle(endpoint, &["backup"]).expect_success();
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("document.json").display().to_string();
    std::fs::write(&path, saved.replace("192.0.2.10/24", address)).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let finished = trestle(endpoint, &[&["restore", "--replace", &path], more].concat());
        assert_eq!(finished.code, Some(1), "{}{}", finished.stdout, finished.stderr);
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
    }
    assert_eq!(trestle(endpoint, &["backup"]).expect_success(), saved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_ip_and_an_address_of_a_member_are_not_the_same_whichever_comes_first() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let (api, endpoint) = (cluster.api(0), cluster.members[0].admin().to_string());
    // Of documentation (RFC 5737), so that no machine has it; and on an interface that cannot hold it.
    restore_vip(&endpoint, "front", "192.0.2.10/24");
    let of_vip = "192.0.2.10:7480 is the address of vip \"front\", so it cannot be a member's own";

    let new = cluster.prepare();
    configure(&cluster.members[new], "advertise_admin_address = \"192.0.2.10:7480\"");
    cluster.members[new].start();
    let refused = api.add_member(cluster.members[new].peer()).await.unwrap_err();
    assert!(refused.message().contains(of_vip), "{refused}");

    cluster.members[2].stop();
    let update = |peer: &str, admin: &str| UpdateMemberRequest {
        name: "members/m3".to_owned(),
        peer_address: peer.to_owned(),
        admin_address: admin.to_owned(),
    };
    for (peer, admin) in [("192.0.2.10:7481", ""), ("", "192.0.2.10:7480")] {
        let refused = api.members().update_member(update(peer, admin)).await.unwrap_err();
        assert!(refused.message().contains("is the address of vip \"front\""), "{refused}");
    }
    api.members().update_member(update("", "192.0.2.33:7480")).await.unwrap();
    let why = "must not be the admin address of member \"m3\": two hosts would answer for it";
    refuses_restore(&endpoint, "192.0.2.33/24", why);
    refuses_restore(&endpoint, "192.0.2.255/24", "it is the broadcast address of its network");

    // One that comes up with the address of a virtual IP says so, and is not recorded there.
    configure(&cluster.members[2], "advertise_admin_address = \"192.0.2.10:7480\"");
    cluster.members[2].start();
    says(&cluster.members[2], of_vip);
    wait_until("the problem in the status", LIMIT, async || {
        let status = api.status().await.map_err(|status| status.to_string())?;
        let told = status.members.iter().flat_map(|member| &member.problems);
        let found = told.filter(|problem| problem.contains("virtual IP 192.0.2.10 is its admin address"));
        if found.count() == 1 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let log = cluster.members[2].output();
    assert!(
        log.lines().any(|line| line.contains("ERROR") && line.contains("a virtual IP is its admin address")),
        "{log}"
    );
    assert_eq!(record(&api, "m3").await.unwrap().admin_address, "192.0.2.33:7480");
    api.create_pool("after", None).await.unwrap();
    // In good order, so that no fence stays in this machine's network.
    cluster.members.iter_mut().for_each(|member| assert!(member.stop().success()));
}
