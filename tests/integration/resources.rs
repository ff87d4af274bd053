//! What the services of all kinds of resources have in common: pages, freshness, revisions.

use prost_types::FieldMask;
use trestle_api::resource::{ListAnswer, ListCall, ResourceMessage};
use trestle_api::v1::vip_service_client::VipServiceClient;
use trestle_api::v1::{
    DeletePoolRequest, GetBackendRequest, GetPoolRequest, Pool, ReadInfo, UpdatePoolRequest,
};
use trestle_testkit::Cluster;

use crate::vips::restore_vip;
use crate::{trestle, trestled};

/// Reads a list in pages of two; answers the names of each page.
async fn pages<R: ResourceMessage>(
    parent: &str,
    list: impl AsyncFn(R::List) -> R::Listed,
) -> Vec<Vec<String>> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let call = ListCall { parent: parent.to_owned(), page_size: 2, page_token, consistency: 0 };
        let page: ListAnswer<R> = list(call.into()).await.into();
        assert!(page.read.is_some_and(|ReadInfo { possibly_stale, .. }| !possibly_stale));
        pages.push(page.resources.iter().map(|resource| resource.name().to_owned()).collect());
        assert!(pages.len() < 9, "{pages:?}");
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_and_none_is_left_out() {
    let cluster = Cluster::start(trestled(), 1).await;
    let (api, admin) = (cluster.api(0), cluster.members[0].admin());
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        restore_vip(&admin.to_string(), name, &format!("192.0.2.1{number}/24"));
    }
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        api.create_pool(name, None).await.unwrap();
        api.create_backend("a", name, format!("127.0.0.1:{}", 9 + number)).await.unwrap();
        let bind = format!("{}:{}", cluster.subnet.ip(50), 8000 + number);
        api.create_listener(name, bind, "a").await.unwrap();
    }
    let vips = VipServiceClient::connect(format!("http://{admin}")).await.unwrap();
    let of = |collection: &str| {
        let name = |name: &str| format!("{collection}/{name}");
        vec![vec![name("a"), name("b")], vec![name("c")]]
    };
    let list = async |call| api.pools().list_pools(call).await.unwrap().into_inner();
    assert_eq!(pages::<Pool>("", list).await, of("pools"));
    let list = async |call| api.pools().list_backends(call).await.unwrap().into_inner();
    assert_eq!(pages::<trestle_api::v1::Backend>("pools/a", list).await, of("pools/a/backends"));
    let list = async |call| api.listeners().list_listeners(call).await.unwrap().into_inner();
    assert_eq!(pages::<trestle_api::v1::Listener>("", list).await, of("listeners"));
    let list = async |call| vips.clone().list_vips(call).await.unwrap().into_inner();
    assert_eq!(pages::<trestle_api::v1::Vip>("", list).await, of("vips"));
}

/// A follower learns with the next heartbeat only of what was agreed on, so a read of its own state comes too early mostly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_answers_with_what_was_written_before_and_says_at_which_revision() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let leader = cluster.leader().await;
    let (writing, reading) = (cluster.api(leader), cluster.api((leader + 1) % 3));
    writing.create_pool("web", None).await.unwrap();
    for connect_retries in 0..10 {
        let name = "pools/web".to_owned();
        let pool = Pool { name: name.clone(), connect_retries: Some(connect_retries), ..Pool::default() };
        let update_mask = Some(FieldMask { paths: vec!["connect_retries".to_owned()] });
        let request = UpdatePoolRequest { pool: Some(pool), update_mask, ..Default::default() };
        let written = writing.pools().update_pool(request).await.unwrap().into_inner();
        let read = reading.pools().get_pool(GetPoolRequest { name, ..Default::default() }).await.unwrap();
        let revision: u64 =
            read.metadata().get("trestle-revision").unwrap().to_str().unwrap().parse().unwrap();
        assert!(revision >= written.revision && read.metadata().get("trestle-stale").is_none());
        assert_eq!(read.into_inner(), written);
    }
    let name = "pools/web/backends/none".to_owned();
    let missing = GetBackendRequest { name, ..Default::default() };
    let missing = reading.pools().get_backend(missing).await.unwrap_err();
    assert!(missing.message().contains("backend \"web/none\" does not exist"), "{missing}");
    let request = DeletePoolRequest { name: "pools/web".to_owned(), ..Default::default() };
    let deleted = reading.pools().delete_pool(request).await.unwrap().into_inner();
    let status = cluster.agreed().await;
    assert_eq!(deleted.revision, status.members[0].revision, "nothing came after it");
}

/// What a change was made from is what it changes, and with an etag that is old nothing is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_refuses_changes_of_what_has_moved_and_repeats_none() {
    let cluster = Cluster::start(trestled(), 1).await;
    let endpoint = cluster.members[0].admin().to_string();
    let run = |args: &[&str]| trestle(&endpoint, args);
    let shown = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&run(&[&["-o", "json"], args].concat()).expect_success()).unwrap()
    };
    run(&["pool", "create", "web"]).expect_success();
    let etag = shown(&["pool", "get", "web"])["etag"].as_str().unwrap().to_owned();
    run(&["pool", "update", "web", "--connect-retries", "1"]).expect_success();
    for change in [&["update", "web", "--connect-retries", "2"][..], &["delete", "web"]] {
        let refused = run(&[&["pool"], change, &["--etag", &etag]].concat());
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains("pool \"web\""), "{}", refused.stderr);
        let tried = run(&[&["pool"], change, &["--dry-run"]].concat());
        assert_eq!(tried.code, Some(0), "{}", tried.stderr);
        assert_eq!(shown(&["pool", "get", "web"])["connect_retries"], 1);
    }
    run(&["pool", "create", "other", "--dry-run"]).expect_success();
    assert_ne!(run(&["pool", "get", "other"]).code, Some(0));
    // The same request again is the first one, whatever has come in between.
    let named = |args: &[&str]| run(&[args, &["--request-id", args[1]]].concat()).expect_success();
    let created = named(&["pool", "create", "other"]);
    named(&["pool", "update", "web", "--connect-retries", "3"]);
    run(&["pool", "update", "web", "--connect-retries", "4"]).expect_success();
    named(&["pool", "update", "web", "--connect-retries", "3"]);
    assert_eq!(shown(&["pool", "get", "web"])["connect_retries"], 4);
    assert_eq!(named(&["pool", "create", "other"]), created);
    named(&["pool", "delete", "other"]);
    run(&["pool", "create", "other"]).expect_success();
    named(&["pool", "delete", "other"]);
    run(&["pool", "get", "other"]).expect_success();
}
