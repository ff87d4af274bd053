//! A data directory that is damaged, newer, or another cluster's.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trestle_testkit::{Cluster, Member, wait_until};

use crate::trestled;

/// Every file below a directory, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Turns over every bit of a file's middle half.
fn damage(path: &Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let quarter = bytes.len() / 4;
    let middle = if bytes.len() < 8 { 0..bytes.len() } else { quarter..3 * quarter };
    bytes[middle].iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, 0).unwrap();
}

/// The member must end with code 70, name a file below its data directory, and say how to rejoin.
fn refuses(member: &mut Member) -> String {
    member.spawn();
    let status = member.exited();
    let output = member.output();
    assert_eq!(status.code(), Some(70), "{output}");
    assert!(output.contains(&member.data_dir().display().to_string()), "no file is named: {output}");
    assert!(!output.contains("panicked"), "{output}");
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_named_and_the_member_can_be_replaced() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    for number in 0..50 {
        api.create_pool(&format!("pool-{number}"), None).await.unwrap();
    }
    cluster.agreed().await;
    cluster.members[2].stop();
    let database: Vec<PathBuf> = files(&cluster.members[2].data_dir())
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "db"))
        .collect();
    assert_eq!(database.len(), 1, "{:?}", files(&cluster.members[2].data_dir()));
    damage(&database[0]);
    let output = refuses(&mut cluster.members[2]);
    assert!(output.contains("trestle member remove m3"), "it says how to rejoin: {output}");

    // And doing what it says works.
    api.create_pool("meanwhile", None).await.unwrap();
    let request =
        trestle_api::v1::RemoveMemberRequest { name: "members/m3".to_owned(), ..Default::default() };
    api.members().remove_member(request).await.unwrap();
    cluster.members[2].wipe();
    cluster.members[2].start();
    cluster.take_in(2).await;
    assert_eq!(cluster.agreed().await.counts.unwrap().pools, 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_newer_identity_is_refused() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let member = &mut cluster.members[0];
    member.stop();
    let path = member.data_dir().join("identity");
    let intact = std::fs::read(&path).unwrap();
    damage(&path);
    refuses(member);

    // A record is a version, a checksum over version and content, and the content.
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[intact[0] + 1]);
    checksum.update(&intact[5..]);
    let newer = [&[intact[0] + 1], checksum.finalize().to_be_bytes().as_slice(), &intact[5..]].concat();
    std::fs::write(&path, newer).unwrap();
    assert!(refuses(member).contains("newer one"), "{}", member.output());

    std::fs::write(&path, intact).unwrap();
    member.start();
    cluster.agreed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_data_joins_nothing_and_disturbs_nobody() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut other = Cluster::start(trestled(), 1).await;
    cluster.api(0).create_pool("ours", None).await.unwrap();
    other.api(0).create_pool("theirs", None).await.unwrap();
    let before = cluster.agreed().await;
    other.agreed().await;
    other.members[0].stop();
    cluster.members[2].stop();

    // m3's machine comes up with the other cluster's disk.
    let kept = cluster.members[2].data_dir().with_extension("kept");
    std::fs::rename(cluster.members[2].data_dir(), &kept).unwrap();
    std::fs::rename(other.members[0].data_dir(), cluster.members[2].data_dir()).unwrap();
    cluster.members[2].spawn();
    cluster.api(0).create_pool("meanwhile", None).await.unwrap();
    let api = cluster.api(0);
    let stranger = wait_until("a word about the wrong cluster", Duration::from_secs(30), async || {
        let status = api.status().await.map_err(|status| status.to_string())?;
        let third =
            status.members.into_iter().find(|m| m.member.as_ref().is_some_and(|m| m.name == "members/m3"));
        let third = third.ok_or("m3 is gone")?;
        if third.error.contains(&before.cluster_id) { Ok(third) } else { Err(format!("{third:?}")) }
    })
    .await;
    assert!(!stranger.reachable, "a member of another cluster does not count as m3: {stranger:?}");

    // With its own disk back it is m3 again, with nothing of the other cluster.
    cluster.members[2].kill();
    std::fs::remove_dir_all(cluster.members[2].data_dir()).unwrap();
    std::fs::rename(&kept, cluster.members[2].data_dir()).unwrap();
    cluster.members[2].start();
    assert_eq!(cluster.agreed().await.counts.unwrap().pools, 2);
}
