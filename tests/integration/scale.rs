//! A thousand listeners and ten thousand backends.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use tonic::Code;
use trestle_api::v1::{GetListenerHealthRequest, GetPoolHealthRequest};
use trestle_testkit::{Api, Cluster, Origin, fetch_http, message_bytes};

use crate::trestled;

const LISTENERS: usize = 1_000;
const BACKENDS_PER_POOL: usize = 10;
/// Clients that write at the same time.
const WRITERS: usize = 32;
/// The first of the listeners' ports; below the range that the kernel picks client ports from.
const FIRST_PORT: usize = 20_000;

/// Bytes that no page has: a full one has 1 MiB and what it is wrapped in.
const PAGE_MAX: usize = (1 << 20) + 4096;

/// Backend `number` of all 10 000, on an address of its own: 127.128.0.1 and so on.
fn backend(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 128, 0, 1)) + u32::try_from(number).unwrap())
}

/// Creates pool, backends and listener `number`.
async fn create(api: &Api, number: usize, port: u16) {
    let pool = format!("pool-{number:04}");
    api.create_pool(&pool, None).await.unwrap();
    for place in 0..BACKENDS_PER_POOL {
        let address = SocketAddr::from((backend(number * BACKENDS_PER_POOL + place), port));
        api.create_backend(&pool, &format!("backend-{place}"), address).await.unwrap();
    }
    api.create_listener(&pool, format!("0.0.0.0:{}", FIRST_PORT + number), &pool).await.unwrap();
}

/// Dials each listener of one member until every backend behind it has answered.
fn balanced(ip: Ipv4Addr) {
    for number in 0..LISTENERS {
        let target = SocketAddr::from((ip, u16::try_from(FIRST_PORT + number).unwrap()));
        let first = number * BACKENDS_PER_POOL;
        let expected: BTreeSet<String> =
            (first..first + BACKENDS_PER_POOL).map(|number| backend(number).to_string()).collect();
        // One worker, equal weights: round robin meets each backend once.
        let mut seen = BTreeSet::new();
        for _ in 0..BACKENDS_PER_POOL {
            seen.insert(fetch_http(target).unwrap_or_else(|error| panic!("{target}: {error}")));
        }
        assert_eq!(seen, expected, "through {target}");
    }
}

/// Walks through what all members see of everything, with a client that takes messages of 4 MiB as any does.
async fn health_in_pages(api: &Api) {
    let (mut seen, mut token, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let (name, page_token) = ("pools/-".to_owned(), token);
        let request = GetPoolHealthRequest { name, page_token, ..Default::default() };
        let page = api.pools().get_pool_health(request).await.unwrap().into_inner();
        assert!(message_bytes(&page) < PAGE_MAX && page.unreachable_members.is_empty());
        for backend in &page.backends {
            let members: Vec<_> = backend.views.iter().map(|view| view.member.as_str()).collect();
            assert_eq!(members, ["members/m1", "members/m2", "members/m3"], "{}", backend.name);
            assert!(seen.insert(backend.name.clone()), "{} comes twice", backend.name);
        }
        pages += 1;
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(seen.len() == LISTENERS * BACKENDS_PER_POOL && pages > 1, "{} on {pages} pages", seen.len());
    let (mut listeners, mut token) = (Vec::new(), String::new());
    loop {
        let request = GetListenerHealthRequest { page_size: 400, page_token: token, ..Default::default() };
        let page = api.listeners().get_listener_health(request).await.unwrap().into_inner();
        assert!(message_bytes(&page) < PAGE_MAX && page.views.len() <= 3 * 400);
        listeners.extend(page.views.into_iter().map(|view| (view.listener, view.member)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(listeners.is_sorted() && listeners.len() == 3 * LISTENERS, "{} views", listeners.len());
    let request = GetListenerHealthRequest { page_token: "elsewhere".to_owned(), ..Default::default() };
    assert_eq!(api.listeners().get_listener_health(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_listeners_and_ten_thousand_backends() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let origin = Origin::everywhere();
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let port = origin.address().port();
    let writer = async |api: Api| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= LISTENERS {
                return;
            }
            create(&api, number, port).await;
        }
    };
    join_all((0..WRITERS).map(|place| writer(cluster.api(place % 3)))).await;
    let written = start.elapsed();
    let status = cluster.agreed().await;
    eprintln!("12 000 resources written in {written:?}, in force on all members after {:?}", start.elapsed());
    let counts = status.counts.unwrap();
    assert_eq!((counts.pools, counts.backends, counts.listeners), (1_000, 10_000, 1_000));
    for member in &status.members {
        assert_eq!((member.listeners_bound, member.listeners_failed), (1_000, 0), "{member:?}");
    }
    let threads =
        cluster.members.iter().map(|member| member.ip).map(|ip| std::thread::spawn(move || balanced(ip)));
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }

    health_in_pages(&cluster.api(0)).await;

    // And all of it is there again after a restart.
    let digest = status.members[0].digest.clone();
    cluster.members[2].kill();
    cluster.members[2].start();
    assert_eq!(cluster.agreed().await.members[2].digest, digest);
}
