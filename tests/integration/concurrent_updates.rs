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

/// 18 callers at a time that name no etag: by each member, half of them one setting and half another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_backend_at_a_time_are_all_accepted_and_keep_what_others_set() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let apis: Vec<Api> = (0..3).map(|member| cluster.api(member)).collect();
    apis[0].create_pool("web", None).await.unwrap();
    apis[0].create_backend("web", "a", "127.0.0.1:9").await.unwrap();
    let writers = apis.iter().flat_map(|api| (0..6).map(move |number| (api, number)));
    let answers = join_all(writers.map(async |(api, number)| {
        let path = if number % 2 == 0 { "weight" } else { "max_connections" };
        let mut answers = Vec::new();
        for round in 1..=3 {
            answers.push(update(api, path, 100 + round).await);
        }
        answers
    }))
    .await;
    let refused: Vec<Status> = answers.into_iter().flatten().filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{} of 54 refused: {:?}", refused.len(), refused[0]);
    let last = update(&apis[1], "weight", 1).await.unwrap();
    assert!((101..=103).contains(&last.max_connections), "{last:?}");
    cluster.agreed().await;
}
