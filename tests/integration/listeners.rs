//! Listeners come, change and go under traffic, and nobody else's connections notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost_types::FieldMask;
use trestle_api::v1::{
    DeleteListenerRequest, GetListenerHealthRequest, Listener, ListenerHealth, UpdateListenerRequest,
};
use trestle_testkit::{Api, Cluster, Origin, Traffic, fetch_http, wait_until};

use crate::trestled;

const LIMIT: Duration = Duration::from_secs(20);

async fn health(api: &Api, name: &str) -> ListenerHealth {
    let request = GetListenerHealthRequest { name: format!("listeners/{name}"), ..Default::default() };
    api.listeners().get_listener_health(request).await.unwrap().into_inner()
}

async fn update(api: &Api, listener: Listener, path: &str) {
    let update_mask = Some(FieldMask { paths: vec![path.to_owned()] });
    let request =
        UpdateListenerRequest { listener: Some(listener), update_mask, ..UpdateListenerRequest::default() };
    api.listeners().update_listener(request).await.unwrap();
}

fn refused(target: SocketAddr) -> bool {
    TcpStream::connect_timeout(&target, LIMIT)
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 256];
    let count = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_touch_no_other_connection() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let origins = ["one", "two"].map(|name| Origin::start((cluster.subnet.ip(11), 0), name));
    let api = cluster.api(2);
    for (name, origin) in ["one", "two"].iter().zip(&origins) {
        api.create_pool(name, None).await.unwrap();
        api.create_backend(name, "a", origin.address()).await.unwrap();
    }
    api.create_listener("steady", "0.0.0.0:8080", "one").await.unwrap();
    api.create_listener("moving", "0.0.0.0:8081", "one").await.unwrap();
    cluster.agreed().await;
    let at = |port: u16| -> Vec<SocketAddr> {
        cluster.members.iter().map(|member| (member.ip, port).into()).collect()
    };
    let (steady, moving, moved) = (at(8080), at(8081), at(8082));
    let traffic = Traffic::start(&steady, fetch_http);
    traffic.next(3);
    let mut open = TcpStream::connect(moving[0]).unwrap();
    open.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(ask(&mut open).contains("one"));

    // Another pool: from the next connection on.
    let name = "listeners/moving".to_owned();
    let listener = Listener { name: name.clone(), pool: "pools/two".to_owned(), ..Listener::default() };
    update(&api, listener, "pool").await;
    cluster.agreed().await;
    for target in &moving {
        assert_eq!(fetch_http(*target), Ok("two".to_owned()));
    }
    assert!(ask(&mut open).contains("one"), "an open connection stays where it is");

    // Another port as well: the address that stays is not closed in between.
    let stays = Traffic::start(&moving, fetch_http);
    let binds = vec!["0.0.0.0:8081".to_owned(), "0.0.0.0:8082".to_owned()];
    update(&api, Listener { name: name.clone(), binds, ..Listener::default() }, "binds").await;
    cluster.agreed().await;
    stays.next(3);
    stays.stop().assert_no_failure();
    for target in &moved {
        assert_eq!(fetch_http(*target), Ok("two".to_owned()));
    }
    let views = health(&api, "moving").await.views;
    let bound: Vec<&[String]> = views.iter().map(|view| &view.bound[..]).collect();
    let ranges: Vec<_> = cluster.members.iter().map(|member| [format!("{}:8081-8082", member.ip)]).collect();
    assert_eq!(bound, ranges, "neighbouring ports are told as one range");

    let request = DeleteListenerRequest { name, ..DeleteListenerRequest::default() };
    api.listeners().delete_listener(request).await.unwrap();
    cluster.agreed().await;
    assert!(moving.iter().chain(&moved).all(|target| refused(*target)), "a deleted listener accepts nothing");
    assert!(ask(&mut open).contains("one"), "an established connection goes on until it ends");
    traffic.next(3);
    traffic.stop().assert_no_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_the_address_says_so_and_others_go_on() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let api = cluster.api(0);
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    // Nobody has an address of TEST-NET-1 (RFC 5737); the second address is on this machine, so the first member to
    // bind it has it, and the others say that it is in use.
    api.create_listener("nowhere", "192.0.2.77:8080", "web").await.unwrap();
    let shared = SocketAddr::from((cluster.subnet.ip(50), 8080));
    api.create_listener("shared", shared, "web").await.unwrap();
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();
    cluster.agreed().await;

    let nowhere = health(&api, "nowhere").await;
    assert_eq!(nowhere.views.len(), 3, "{nowhere:?}");
    for view in &nowhere.views {
        assert!(view.bound.is_empty() && view.errors.len() == 1, "{view:?}");
        assert!(view.errors[0].contains("192.0.2.77:8080"), "{view:?}");
    }
    for member in &cluster.members {
        assert_eq!(fetch_http((member.ip, 8080).into()), Ok("origin".to_owned()), "other listeners go on");
    }
    let status = api.status().await.unwrap();
    assert!(status.members.iter().all(|member| member.listeners_failed >= 1), "{:?}", status.members);

    // Whoever has the shared address serves on it; when that member stops, another takes it over.
    let holder = |health: &ListenerHealth| {
        health.views.iter().find(|view| !view.bound.is_empty()).map(|view| view.member.clone())
    };
    let first = holder(&health(&api, "shared").await).expect("one member has bound it");
    assert_eq!(fetch_http(shared), Ok("origin".to_owned()));
    let number =
        cluster.members.iter().position(|member| first == format!("members/{}", member.name)).unwrap();
    cluster.members[number].stop();
    let other = cluster.api((number + 1) % 3);
    wait_until("another member on the address", LIMIT, async || {
        holder(&health(&other, "shared").await).filter(|name| *name != first).ok_or("nobody has it")
    })
    .await;
    assert_eq!(fetch_http(shared), Ok("origin".to_owned()));
}
