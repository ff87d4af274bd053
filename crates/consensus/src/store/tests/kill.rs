use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use openraft::storage::RaftLogStorage;

use super::{Opened, entry, large_entry, log_id, vote};

const DIR: &str = "TRESTLE_TEST_APPEND_DIR";
const ROUNDS: usize = 4;
const ACKED_PER_ROUND: usize = 60;

/// The process that is killed: appends, truncates, purges and votes, and says what was acknowledged.
#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut opened = Opened::open(&PathBuf::from(dir)).unwrap();
    let (_, last, voted, _) = opened.content().await;
    let mut next = last.map_or(0, |last| last.index + 1);
    let mut term = voted.map_or(0, |vote| vote.leader_id.term) + 1;
    let mut out = std::io::stderr();
    loop {
        opened.log.save_vote(&vote(term)).await.unwrap();
        // Some in one piece, some in many.
        let written = |index: u64| {
            if index.is_multiple_of(7) { large_entry(term, index, 200_000) } else { entry(term, index) }
        };
        opened.append((next..next + 5).map(written)).await.unwrap();
        writeln!(out, "acked {} {term}", next + 4).unwrap();
        if term % 2 == 0 {
            // Entries that were acknowledged may only go when a new leader says so, so say what is left.
            writeln!(out, "truncating {}", next + 2).unwrap();
            opened.log.truncate_after(Some(log_id(term, next + 2))).await.unwrap();
            next += 3;
        } else {
            next += 5;
        }
        let kept = opened.content().await.3;
        if kept.len() > 50 {
            opened.log.purge(kept[10].log_id).await.unwrap();
        }
        term += 1;
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    Opened::create(dir.path()).close().await;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::kill::writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut acked, mut term, mut count) = (0, 0, 0);
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["acked", index, of_term] => {
                    (acked, term) = (index.parse::<u64>().unwrap(), of_term.parse::<u64>().unwrap());
                    count += 1;
                    if count == ACKED_PER_ROUND {
                        child.kill().unwrap();
                    }
                }
                ["truncating", index] => acked = index.parse().unwrap(),
                _ => {}
            }
        }
        child.wait().unwrap();
        assert!(count >= ACKED_PER_ROUND, "round {round}: the writer stopped by itself after {count}");
        let mut opened = Opened::open(dir.path()).unwrap();
        let (purged, last, voted, entries) = opened.content().await;
        opened.close().await;
        assert!(
            last.is_some_and(|last| last.index >= acked),
            "round {round}: {acked} was acknowledged, {last:?}"
        );
        assert!(voted.is_some_and(|vote| vote.leader_id.term >= term), "round {round}: {term}, {voted:?}");
        let first = purged.map_or(0, |purged| purged.index + 1);
        assert!(entries.iter().zip(first..).all(|(entry, index)| entry.log_id.index == index));
    }
}
