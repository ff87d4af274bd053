//! Names and addresses.

use tonic::Code;
use trestle_api::v1::{DeletePoolRequest, Pool};
use trestle_testkit::Api;

use super::{Case, at, backend, case, listener, pool};

pub(super) async fn names(api: &Api) -> Vec<Case> {
    let long = "x".repeat(300);
    let mut cases = Vec::new();
    for id in ["", long.as_str(), "a\nb", "a\u{7f}", "a/b", "..", "../../etc/passwd", "a b", "-a", "ü"] {
        let says = |field| ["1 to 63 characters", field];
        let answer = pool(api, id, Pool::default()).await;
        cases.push(case(format!("pool {id:?}"), answer, Code::InvalidArgument, &says("pool_id")));
        let answer = backend(api, id, at("10.0.0.1:80")).await;
        cases.push(case(format!("backend {id:?}"), answer, Code::InvalidArgument, &says("backend_id")));
        let answer = listener(api, id, &["127.0.0.1:1"], "pools/web").await;
        cases.push(case(format!("listener {id:?}"), answer, Code::InvalidArgument, &says("listener_id")));
    }
    for name in ["web", "pools", "pools/", "pools/web/", "pools/web/backends", "listeners/web", "/pools/web"]
    {
        let request = DeletePoolRequest { name: name.to_owned(), ..Default::default() };
        let answer = api.pools().delete_pool(request).await.map(drop);
        cases.push(case(format!("deletion of {name:?}"), answer, Code::InvalidArgument, &["name", "pools/"]));
    }
    cases
}

pub(super) async fn addresses(api: &Api) -> Vec<Case> {
    let mut cases = Vec::new();
    for address in [
        "",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "non sense",
        "2001:db8::1:443",
        "0.0.0.0:80",
        "10.0.0.1:",
        "[fe80::5]:80",
        "[::ffff:10.0.0.1]:80",
    ] {
        let answer = backend(api, "b", at(address)).await;
        cases.push(case(
            format!("backend at {address:?}"),
            answer,
            Code::InvalidArgument,
            &["address", address],
        ));
    }
    let answer = backend(api, "b", at("2001:db8::1:443")).await;
    cases.push(case("IPv6 without brackets", answer, Code::InvalidArgument, &["[2001:db8::1]"]));
    let answer = backend(api, "b", at("10.0.0.1")).await;
    cases.push(case(
        "no port, and a check that needs one",
        answer,
        Code::InvalidArgument,
        &["health_check.port"],
    ));
    for bind in
        ["", "127.0.0.1", "127.0.0.1:0", "::1:80", "eth0:80", "[fe80::5%eth0]:80", "[::ffff:10.0.0.1]:80"]
    {
        let answer = listener(api, "l", &[bind], "pools/web").await;
        cases.push(case(format!("listener on {bind:?}"), answer, Code::InvalidArgument, &["binds", bind]));
    }
    let answer = listener(api, "l", &[], "pools/web").await;
    cases.push(case("listener on nothing", answer, Code::InvalidArgument, &["binds"]));
    let answer = listener(api, "l", &["127.0.0.1:1", "127.0.0.1:1"], "pools/web").await;
    cases.push(case("one address twice in a listener", answer, Code::InvalidArgument, &["127.0.0.1:1"]));
    let answer = listener(api, "l", &["0.0.0.0:8080"], "pools/web").await;
    cases.push(case("another listener's address", answer, Code::AlreadyExists, &["0.0.0.0:8080", "front"]));
    let answer = listener(api, "l", &["127.0.0.1:1"], "pools/nothing").await;
    cases.push(case("listener to a pool that is not there", answer, Code::NotFound, &["nothing"]));
    cases
}
