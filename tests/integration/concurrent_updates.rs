//! Many who change one resource at a time.

use futures_util::future::join_all;
use prost_types::FieldMask;
use tonic::Status;
use trestle_api::v1::{Backend, UpdateBackendRequest};
use trestle_testkit::{Api, Cluster};

use crate::trestled;

/// Changes one setting of pools/web/backends/a.
async fn update(api: &Api, path: &str, value: u32) -> Result<Backend, Status> {
    let mut backend = Backend { name: "pools/web/backends/a".to_owned(), ..Backend::default() };
    match path {
        "weight" => backend.weight = Some(value),
        _ => backend.max_connections = value,
    }
    let update_mask = Some(FieldMask { paths: vec![path.to_owned()] });
    let request = UpdateBackendRequest { backend: Some(backend), update_mask, ..Default::default() };
    api.pools().update_backend(request).await.map(tonic::Response::into_inner)
}

/// Each answer has what the one before had but for the setting that its call named: no update was made from what another one had
/// replaced since.
fn assert_one_after_another(mut answers: Vec<(&str, Backend)>) {
    answers.sort_by_key(|(_, backend)| backend.revision);
    for pair in answers.windows(2) {
        let [(_, before), (path, after)] = pair else { unreachable!() };
        let kept = match *path {
            "weight" => before.max_connections == after.max_connections,
            _ => before.weight == after.weight,
        };
        assert!(kept, "{path}: {before:?}, then {after:?}");
    }
}

/// 18 callers at a time that name no etag: by each member, half of them one setting and half another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_backend_at_a_time_are_all_accepted_and_keep_what_others_set() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let apis: Vec<Api> = (0..3).map(|member| cluster.api(member)).collect();
    apis[0].create_pool("web", None).await.unwrap();
    apis[0].create_backend("web", "a", "127.0.0.1:9").await.unwrap();
    let answers = join_all((0..18).map(async |writer: u32| {
        let path = if writer.is_multiple_of(2) { "weight" } else { "max_connections" };
        let mut answers = Vec::new();
        for round in 0..3 {
            // Each of them changes something: what changes nothing answers the revision of another.
            answers.push((path, update(&apis[writer as usize / 6], path, 100 + 3 * writer + round).await));
        }
        answers
    }))
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().flatten().partition(|(_, a)| a.is_ok());
    assert!(refused.is_empty(), "{} of 54 refused: {:?}", refused.len(), refused[0]);
    assert_one_after_another(accepted.into_iter().map(|(path, answer)| (path, answer.unwrap())).collect());
    cluster.agreed().await;
}

/// The leader's own updates have the shortest way to its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_by_the_leader_without_a_pause_let_another_members_through() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let leader = cluster.leader().await;
    let (busy, other) = (cluster.api(leader), cluster.api((leader + 1) % 3));
    busy.create_pool("web", None).await.unwrap();
    busy.create_backend("web", "a", "127.0.0.1:9").await.unwrap();
    let writing = (0..4).map(async |writer: u32| {
        for round in 0.. {
            update(&busy, "max_connections", 1 + 4 * round + writer).await.unwrap();
        }
    });
    let answers = async {
        let mut answers = Vec::new();
        for weight in 101..111 {
            answers.push(update(&other, "weight", weight).await);
        }
        answers
    };
    let answers = tokio::select! {
        answers = answers => answers,
        _ = join_all(writing) => unreachable!(),
    };
    let refused: Vec<&Status> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} of 10 refused: {:?}", refused.len(), refused[0]);
    cluster.agreed().await;
}
