//! Virtual IPs as listeners and health see them; that nobody holds them here, because their interface is no
//! Ethernet. Such a one is refused when it is created, and taken from a document.

use prost_types::FieldMask;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use trestle_api::v1::vip_service_client::VipServiceClient;
use trestle_api::v1::{
    CreateListenerRequest, CreateVipRequest, DeleteListenerRequest, DeleteVipRequest, DrainMemberRequest,
    EnableMemberRequest, GetListenerHealthRequest, Listener, UpdateListenerRequest, Vip,
};
use trestle_testkit::{Cluster, get};

use crate::{trestle, trestled};

/// Brings a virtual IP that nobody can hold into the configuration: at an address of documentation (RFC 5737), and on an
/// interface where it cannot be announced.
pub(crate) fn restore_vip(endpoint: &str, name: &str, address: &str) {
    let saved = trestle(endpoint, &["backup"]).expect_success();
    let mut document: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let vip = serde_json::json!({"name": format!("vips/{name}"), "address": address, "interface": "lo"});
    let mut vips = document["vips"].as_array().cloned().unwrap_or_default();
    vips.push(vip);
    document["vips"] = vips.into();
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("document.json");
    std::fs::write(&path, document.to_string()).unwrap();
    trestle(endpoint, &["restore", "--replace", &path.display().to_string()]).expect_success();
}

async fn create_vip(cluster: &Cluster, name: &str, address: &str) {
    restore_vip(&cluster.members[0].admin().to_string(), name, address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interface_without_an_ethernet_address_is_refused_where_no_member_could_hold_it() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let create = |interface: &str, validate_only| CreateVipRequest {
        vip_id: "front".to_owned(),
        vip: Some(Vip {
            address: "192.0.2.10/24".to_owned(),
            interface: interface.to_owned(),
            ..Vip::default()
        }),
        validate_only,
        ..CreateVipRequest::default()
    };
    for (interface, why) in [
        ("lo", "m1: the interface lo has no Ethernet address, so a virtual IP on it cannot be announced"),
        ("nowhere0", "m1: there is no interface nowhere0, but "),
    ] {
        for validate_only in [true, false] {
            let status = vips(&cluster).create_vip(create(interface, validate_only)).await.unwrap_err();
            refused(&status, why);
            let field = format!("vip.interface \"{interface}\": must be one that a member could hold");
            refused(&status, &field);
        }
    }
    let endpoint = cluster.members[0].admin().to_string();
    assert_eq!(trestle(&endpoint, &["-o", "json", "vip", "list"]).expect_success().trim(), "[]");
    assert!(cluster.members[0].stop().success());
}

fn vips(cluster: &Cluster) -> VipServiceClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.members[0].admin())).unwrap();
    VipServiceClient::new(endpoint.connect_lazy())
}

fn create(bind: &str, request_id: &str, validate_only: bool) -> CreateListenerRequest {
    let listener =
        Listener { binds: vec![bind.to_owned()], pool: "pools/p".to_owned(), ..Listener::default() };
    CreateListenerRequest {
        listener_id: "front".to_owned(),
        listener: Some(listener),
        request_id: request_id.to_owned(),
        validate_only,
        ..CreateListenerRequest::default()
    }
}

fn refused(status: &Status, words: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains(words), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_may_name_a_virtual_ip() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let api = cluster.api(0);
    api.create_pool("p", None).await.unwrap();
    create_vip(&cluster, "api", "192.0.2.10/24").await;
    let mut listeners = api.listeners();

    let unknown = "there is no vip \"web\"; see \"trestle vip list\"";
    for validate_only in [true, false] {
        let status = listeners.create_listener(create("web:6443", "", validate_only)).await.unwrap_err();
        refused(&status, unknown);
    }
    let tried = listeners.create_listener(create("api:6443", "", true)).await.unwrap().into_inner();
    let on_vip = (vec!["vip:api:6443".to_owned()], vec!["192.0.2.10:6443".to_owned()]);
    assert_eq!((tried.binds, tried.addresses), on_vip);
    let first = listeners.create_listener(create("api:6443", "once", false)).await.unwrap().into_inner();
    assert_eq!((first.binds.clone(), first.addresses.clone()), on_vip);
    let delete = DeleteVipRequest { name: "vips/api".to_owned(), ..DeleteVipRequest::default() };
    let used = vips(&cluster).delete_vip(delete).await.unwrap_err();
    assert_eq!(used.code(), Code::FailedPrecondition, "{used}");

    // It is ready before any member has the address.
    cluster.agreed().await;
    let request = GetListenerHealthRequest { name: first.name.clone(), ..Default::default() };
    let health = listeners.get_listener_health(request).await.unwrap().into_inner();
    assert_eq!(health.views[0].bound, ["192.0.2.10:6443"], "{:?}", health.views);

    let update = |bind: &str| UpdateListenerRequest {
        listener: Some(Listener {
            name: first.name.clone(),
            binds: vec![bind.to_owned(), "127.0.0.1:1".to_owned()],
            ..Listener::default()
        }),
        update_mask: Some(FieldMask { paths: vec!["binds".to_owned()] }),
        ..UpdateListenerRequest::default()
    };
    let status = listeners.update_listener(update("web:1-2")).await.unwrap_err();
    refused(&status, unknown);
    refused(&status, "listener.binds[0]");
    let mut good = update("api:30000-30001");
    good.listener.as_mut().unwrap().binds.truncate(1);
    let updated = listeners.update_listener(good).await.unwrap().into_inner();
    assert_eq!(updated.binds, ["vip:api:30000-30001"]);
    assert_eq!(updated.addresses, ["192.0.2.10:30000-30001"]);

    // The same request again gets its first answer, though the name stands for another address by now.
    let delete = DeleteListenerRequest { name: first.name.clone(), ..DeleteListenerRequest::default() };
    listeners.delete_listener(delete).await.unwrap();
    let delete = DeleteVipRequest { name: "vips/api".to_owned(), ..DeleteVipRequest::default() };
    vips(&cluster).delete_vip(delete).await.unwrap();
    create_vip(&cluster, "api", "192.0.2.20/24").await;
    let again = listeners.create_listener(create("api:6443", "once", false)).await.unwrap().into_inner();
    assert_eq!(again, first);
    // In good order, so that its fence does not stay in this machine's network.
    assert!(cluster.members[0].stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_member_is_not_ready() {
    let cluster = Cluster::start(trestled(), 1).await;
    let (api, http) = (cluster.api(0), cluster.members[0].http());
    assert_eq!(get(http, "/readyz").unwrap().status, 200);
    let name = format!("members/{}", cluster.members[0].name);
    let drain = DrainMemberRequest { name: name.clone(), ..DrainMemberRequest::default() };
    api.members().drain_member(drain).await.unwrap();
    let page = get(http, "/readyz").unwrap();
    assert_eq!((page.status, page.body.trim()), (503, "draining"));
    assert_eq!(get(http, "/livez").unwrap().status, 200);
    let enable = EnableMemberRequest { name, ..EnableMemberRequest::default() };
    api.members().enable_member(enable).await.unwrap();
    assert_eq!(get(http, "/readyz").unwrap().status, 200);
}
