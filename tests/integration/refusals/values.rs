//! Values out of bounds, and requests that make no sense.

use prost_types::{Duration as Time, FieldMask};
use tonic::Code;
use trestle_api::v1::{
    Backend, CreatePoolRequest, DeleteBackendRequest, DeletePoolRequest, HealthCheck, ListPoolsRequest, Pool,
    UpdateBackendRequest, UpdatePoolRequest,
};
use trestle_testkit::Api;

use super::{Case, at, backend, case, pool};

fn seconds(seconds: i64) -> Option<Time> {
    Some(Time { seconds, nanos: 0 })
}

pub(super) async fn values(api: &Api) -> Vec<Case> {
    let mut cases = Vec::new();
    let check = |check: HealthCheck| Pool { health_check: Some(check), ..Default::default() };
    let timeout = |connect_timeout| Pool { connect_timeout, ..Default::default() };
    for (field, value) in [
        ("connect_timeout", timeout(seconds(0))),
        ("connect_timeout", timeout(seconds(61))),
        ("connect_timeout", timeout(seconds(-1))),
        ("connect_timeout", timeout(seconds(i64::MAX))),
        ("connect_retries", Pool { connect_retries: Some(11), ..Default::default() }),
        ("algorithm", Pool { algorithm: 99, ..Default::default() }),
        ("on_primary_up", Pool { on_primary_up: 3, ..Default::default() }),
        ("close_spread_percent", Pool { close_spread_percent: Some(51), ..Default::default() }),
        ("health_check.interval", check(HealthCheck { interval: seconds(3601), ..Default::default() })),
        ("health_check.timeout", check(HealthCheck { timeout: seconds(0), ..Default::default() })),
        ("health_check.rise", check(HealthCheck { rise: Some(0), ..Default::default() })),
        ("health_check.fall", check(HealthCheck { fall: Some(u32::MAX), ..Default::default() })),
        (
            "health_check.jitter_percent",
            check(HealthCheck { jitter_percent: Some(51), ..Default::default() }),
        ),
        ("health_check.port", check(HealthCheck { port: 65_536, ..Default::default() })),
    ] {
        let answer = pool(api, "p", value).await;
        cases.push(case(field, answer, Code::InvalidArgument, &[field]));
    }
    for (field, value) in [
        ("weight", Backend { weight: Some(257), ..at("10.0.0.1:80") }),
        ("admin_state", Backend { admin_state: -1, ..at("10.0.0.1:80") }),
        (
            "drain_timeout",
            Backend { admin_state: 2, drain_timeout: seconds(8 * 86_400), ..at("10.0.0.1:80") },
        ),
    ] {
        let answer = backend(api, "b", value).await;
        cases.push(case(field, answer, Code::InvalidArgument, &[field]));
    }
    let several = Pool { connect_retries: Some(11), algorithm: 99, ..timeout(seconds(61)) };
    let answer = pool(api, "a/b", several).await;
    let all = ["pool_id", "connect_timeout", "connect_retries", "algorithm"];
    cases.push(case("all mistakes at once", answer, Code::InvalidArgument, &all));
    cases
}

pub(super) async fn requests(api: &Api) -> Vec<Case> {
    let mut cases = Vec::new();
    let update = |paths: &[&str], etag: &str, name: &str| UpdatePoolRequest {
        pool: Some(Pool { name: name.to_owned(), etag: etag.to_owned(), ..Default::default() }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    for (what, request, code, says) in [
        ("a mask of nothing", update(&[], "", "pools/web"), Code::InvalidArgument, "update_mask"),
        (
            "a mask of what is not there",
            update(&["colour"], "", "pools/web"),
            Code::InvalidArgument,
            "colour",
        ),
        (
            "an etag that is none",
            update(&["algorithm"], "no etag", "pools/web"),
            Code::InvalidArgument,
            "etag",
        ),
        ("an unknown pool", update(&["algorithm"], "", "pools/nothing"), Code::NotFound, "nothing"),
    ] {
        let answer = api.pools().update_pool(request).await.map(drop);
        cases.push(case(what, answer, code, &[says]));
    }
    let gone = Some(Backend { name: "pools/web/backends/gone".to_owned(), ..Default::default() });
    let update_mask = Some(FieldMask { paths: vec!["weight".to_owned()] });
    let request = UpdateBackendRequest { backend: gone, update_mask, ..Default::default() };
    let answer = api.pools().update_backend(request).await.map(drop);
    cases.push(case("an unknown backend", answer, Code::NotFound, &["gone"]));
    let request = DeleteBackendRequest { name: "pools/web/backends/gone".to_owned(), ..Default::default() };
    let answer = api.pools().delete_backend(request).await.map(drop);
    cases.push(case("an unknown backend", answer, Code::NotFound, &["gone"]));
    let answer = pool(api, "web", Pool::default()).await;
    cases.push(case("a pool that exists", answer, Code::AlreadyExists, &["web"]));
    let request = DeletePoolRequest { name: "pools/web".to_owned(), ..Default::default() };
    let answer = api.pools().delete_pool(request).await.map(drop);
    cases.push(case("a pool in use", answer, Code::FailedPrecondition, &["web", "front"]));
    for request_id in ["x".repeat(65), "ü".to_owned(), "a\n".to_owned()] {
        let request = CreatePoolRequest { pool_id: "p".to_owned(), request_id, ..Default::default() };
        let answer = api.pools().create_pool(request).await.map(drop);
        cases.push(case("a request id", answer, Code::InvalidArgument, &["request_id"]));
    }
    for (page_size, page_token) in [(-1, ""), (1, "no token")] {
        let request = ListPoolsRequest { page_size, page_token: page_token.to_owned(), ..Default::default() };
        let answer = api.pools().list_pools(request).await.map(drop);
        cases.push(case("a page", answer, Code::InvalidArgument, &["page_"]));
    }
    cases
}
