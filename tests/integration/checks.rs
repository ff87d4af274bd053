//! TLS and HTTP checks as the documents of k0s, kubeadm and k3s have HAProxy do them, set up by the command line.

use std::net::SocketAddr;
use std::time::Duration;

use trestle_api::v1::{GetPoolHealthRequest, MemberView, Verdict};
use trestle_testkit::{
    Api, Authority, Certificate, Cluster, Nginx, Origin, fetch_tls, has_tools, wait_until,
};

use crate::{trestle, trestled};

/// Often, so that tests are short; users leave it at 2 s.
const OFTEN: [&str; 4] = ["--health-interval", "200ms", "--health-fast-interval", "100ms"];

/// Runs a command that must succeed.
fn run(cluster: &Cluster, arguments: &[&str]) -> String {
    trestle(&cluster.endpoints(), arguments).expect_success()
}

/// Waits until every member has the verdict on every backend of the pool, for a reason that contains these words.
async fn reason(api: &Api, pool: &str, verdict: Verdict, words: &str) {
    wait_until(&format!("{verdict:?} for {words:?}"), Duration::from_secs(60), async || {
        let request = GetPoolHealthRequest { name: format!("pools/{pool}"), ..Default::default() };
        let health = api.pools().get_pool_health(request).await.map_err(|status| status.to_string())?;
        let health = health.into_inner();
        let fits = |view: &MemberView| view.verdict() == verdict && view.reason.contains(words);
        let views: Vec<_> = health.backends.iter().flat_map(|backend| &backend.views).collect();
        if !views.is_empty() && views.iter().all(|view| fits(view)) {
            Ok(())
        } else {
            Err(format!("{views:?}"))
        }
    })
    .await;
}

/// k0s: three controllers with three ports each, `check check-ssl verify none`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k0s_controllers_are_checked_by_a_tls_handshake() {
    const SERVICES: [(&str, u16); 3] =
        [("kubeAPI", 6443), ("konnectivity", 8132), ("controllerJoinAPI", 9443)];
    if !has_tools(&["nginx", "curl", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 3).await;
    let certificate = Certificate::generate();
    let start = |number: u8| {
        let ports = SERVICES.map(|(_, port)| port);
        Nginx::start(&format!("controller{number}"), cluster.subnet.ip(10 + number), &ports, &certificate)
    };
    let mut controllers: Vec<Nginx> = (1..=3).map(start).collect();
    for (name, port) in SERVICES {
        run(&cluster, &[&["pool", "create", name, "--health", "tls"], &OFTEN[..]].concat());
        for number in 1..=3 {
            let address = SocketAddr::from((cluster.subnet.ip(10 + number), port)).to_string();
            run(&cluster, &["backend", "add", &format!("{name}/controller{number}"), &address]);
        }
        run(&cluster, &["listener", "create", name, "--bind", &format!("0.0.0.0:{port}"), "--pool", name]);
    }
    cluster.agreed().await;
    let api = cluster.api(0);
    for (name, port) in SERVICES {
        api.verdict(name, |_| true, Verdict::Healthy).await;
        for member in &cluster.members {
            assert!(fetch_tls((member.ip, port).into()).unwrap().starts_with("controller"));
        }
    }

    // It still takes connections, and nothing comes of them: a TCP check would call it healthy.
    controllers[0].freeze();
    for (name, port) in SERVICES {
        api.verdict(name, |backend| backend.ends_with("controller1"), Verdict::Unhealthy).await;
        api.verdict(name, |backend| !backend.ends_with("controller1"), Verdict::Healthy).await;
        let mut answers: Vec<String> =
            (0..4).map(|_| fetch_tls((cluster.members[1].ip, port).into()).unwrap()).collect();
        answers.sort();
        assert_eq!(answers, ["controller2", "controller2", "controller3", "controller3"]);
    }
    controllers[0].thaw();
    controllers[2].kill();
    for (name, _) in SERVICES {
        api.verdict(name, |backend| backend.ends_with("controller1"), Verdict::Healthy).await;
        api.verdict(name, |backend| backend.ends_with("controller3"), Verdict::Unhealthy).await;
    }
    controllers[2].restart();
    for (name, _) in SERVICES {
        api.verdict(name, |_| true, Verdict::Healthy).await;
    }
}

/// kubeadm: `option httpchk`, `http-check send meth GET uri /healthz`, `http-check expect status 200`, over TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeadms_api_servers_are_asked_for_their_health() {
    if !has_tools(&["nginx", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 1).await;
    let server = Nginx::start("api", cluster.subnet.ip(11), &[6443], &Certificate::generate());
    let check = ["--health", "https", "--health-path", "/healthz", "--health-expect", "200"];
    run(&cluster, &[&["pool", "create", "api"], &check[..], &OFTEN[..]].concat());
    let address = SocketAddr::from((cluster.subnet.ip(11), 6443)).to_string();
    run(&cluster, &["backend", "add", "api/one", &address]);
    cluster.agreed().await;
    let api = cluster.api(0);
    api.verdict("api", |_| true, Verdict::Healthy).await;
    let listed = run(&cluster, &["pool", "list"]);
    assert!(listed.contains("https GET /healthz expect 200 every 200ms"), "{listed}");

    server.set_healthy(false);
    reason(&api, "api", Verdict::Unhealthy, "HTTP 503, wanted 200").await;
    let listed = run(&cluster, &["backend", "list", "api"]);
    assert!(listed.contains("HTTP 503, wanted 200"), "{listed}");
    server.set_healthy(true);
    api.verdict("api", |_| true, Verdict::Healthy).await;

    // One setting changes and the others stay: another status is wanted, of the same path, still over TLS.
    run(&cluster, &["pool", "update", "api", "--health-expect", "204,300-399"]);
    reason(&api, "api", Verdict::Unhealthy, "HTTP 200, wanted 204").await;
    let shown = run(&cluster, &["pool", "get", "api"]);
    assert!(shown.contains("https GET /healthz expect 204,300-399 every 200ms"), "{shown}");
    run(&cluster, &["pool", "update", "api", "--health-expect", "200", "--health-body", "ok"]);
    api.verdict("api", |_| true, Verdict::Healthy).await;
    run(&cluster, &["pool", "update", "api", "--health-body", "not there"]);
    api.verdict("api", |_| true, Verdict::Unhealthy).await;

    // A backend that is known by name shows where it was checked.
    run(&cluster, &[&["pool", "create", "named"], &OFTEN[..]].concat());
    run(&cluster, &["backend", "add", "named/one", "localhost.:1"]);
    reason(&api, "named", Verdict::Unhealthy, "127.0.0.1: connection refused").await;
    let listed = run(&cluster, &["backend", "list", "named"]);
    assert!(listed.contains("localhost.:1 (127.0.0.1)"), "{listed}");
    let shown = run(&cluster, &["backend", "get", "named/one", "-o", "json"]);
    assert!(shown.contains("\"address\": \"127.0.0.1\""), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_verified_when_an_authority_is_given() {
    if !has_tools(&["nginx", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 1).await;
    let (ours, others) = (Authority::generate("ours"), Authority::generate("others"));
    let ip = cluster.subnet.ip(11);
    let names = format!("IP:{ip},DNS:api.example");
    let mut server = Nginx::start("api", ip, &[6443], &ours.sign(&names, 10));
    let ours_pem = ours.cert().to_str().unwrap().to_owned();
    let verify = ["--health", "tls", "--health-ca", &ours_pem];
    let address = SocketAddr::from((ip, 6443)).to_string();
    let by_name = |name: &'static str| ["--health-server-name", name];
    for (pool, more) in [
        ("address", &[][..]),
        ("name", &by_name("api.example")[..]),
        ("wrong-name", &by_name("other.example")[..]),
        ("too-short", &["--health-min-days", "20"][..]),
    ] {
        run(&cluster, &[&["pool", "create", pool], &verify[..], more, &OFTEN[..]].concat());
        run(&cluster, &["backend", "add", &format!("{pool}/one"), &address]);
    }
    cluster.agreed().await;
    let api = cluster.api(0);
    for pool in ["address", "name"] {
        api.verdict(pool, |_| true, Verdict::Healthy).await;
    }
    for pool in ["wrong-name", "too-short"] {
        reason(&api, pool, Verdict::Unhealthy, "certificate").await;
    }

    server.restart_with(&others.sign(&names, 10));
    for pool in ["address", "name"] {
        reason(&api, pool, Verdict::Unhealthy, "certificate").await;
    }
    // Without an authority nothing is verified.
    run(&cluster, &["pool", "update", "name", "--health", "tls"]);
    api.verdict("name", |_| true, Verdict::Healthy).await;
    server.restart_with(&ours.sign(&names, 10));
    api.verdict("address", |_| true, Verdict::Healthy).await;
}

/// k3s: `check inter 10s` on plain TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3s_servers_are_checked_by_a_connect() {
    let mut cluster = Cluster::start(trestled(), 1).await;
    let mut servers = [11, 12].map(|host| Origin::start((cluster.subnet.ip(host), 6443), "server"));
    run(&cluster, &["pool", "create", "k3s", "--health", "tcp", "--health-interval", "10s"]);
    for (name, server) in ["a", "b"].iter().zip(&servers) {
        run(&cluster, &["backend", "add", &format!("k3s/{name}"), &server.address().to_string()]);
    }
    cluster.agreed().await;
    let api = cluster.api(0);
    api.verdict("k3s", |_| true, Verdict::Healthy).await;
    servers[0].stop();
    api.verdict("k3s", |backend| backend.ends_with("/a"), Verdict::Unhealthy).await;
    api.verdict("k3s", |backend| backend.ends_with("/b"), Verdict::Healthy).await;
}
