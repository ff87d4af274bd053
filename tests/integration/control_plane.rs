//! In front of a highly available Kubernetes control plane: TLS controllers on three addresses, as k0s documents it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use trestle_api::v1::{AdminState, GetPoolHealthRequest, Verdict};
use trestle_testkit::{Api, Certificate, Cluster, Nginx, Traffic, fetch_tls, has_tools, wait_until};

use crate::{finish, programs, trestled};

/// k0s' three frontends, each with a backend section and a port of its own.
const SERVICES: [(&str, &str, u16); 3] = [
    ("kubeAPI", "kubeAPI_backend", 6443),
    ("konnectivity", "konnectivity_backend", 8132),
    ("controllerJoinAPI", "controllerJoinAPI_backend", 9443),
];

/// Checks often, so that the test is short; users leave it at 2 s.
const INTERVAL: Duration = Duration::from_millis(200);

fn controllers(cluster: &Cluster, ports: &[u16]) -> Vec<Nginx> {
    let certificate = Certificate::generate();
    let start = |number: u8| {
        Nginx::start(&format!("k0s-controller{number}"), cluster.subnet.ip(10 + number), ports, &certificate)
    };
    (1..=3).map(start).collect()
}

fn targets(cluster: &Cluster, ports: &[u16]) -> Vec<SocketAddr> {
    let of = |ip| ports.iter().map(move |port| SocketAddr::from((ip, *port)));
    cluster.members.iter().flat_map(|member| of(member.ip)).collect()
}

async fn verdicts(api: &Api, concerns: &str, verdict: Verdict) {
    for (_, pool, _) in SERVICES {
        api.verdict(pool, |backend| backend.ends_with(concerns), verdict).await;
    }
}

async fn set_states(api: &Api, backend: &str, state: AdminState) {
    for (_, pool, _) in SERVICES {
        api.set_state(&format!("pools/{pool}/backends/{backend}"), state).await.unwrap();
    }
}

/// Waits until no member has a connection to the backend in any pool.
async fn drained(api: &Api, backend: &str) {
    for (_, pool, _) in SERVICES {
        wait_until(&format!("end of {backend}'s connections"), Duration::from_secs(30), async || {
            let request = GetPoolHealthRequest { name: format!("pools/{pool}"), ..Default::default() };
            let health = api.pools().get_pool_health(request).await.map_err(|status| status.to_string())?;
            let health = health.into_inner();
            let open = health.backends.iter().filter(|b| b.name.ends_with(backend)).flat_map(|b| &b.views);
            let open: u64 = open.map(|view| view.active_connections).sum();
            if open == 0 { Ok(()) } else { Err(format!("{open} in {pool}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_are_killed_drained_and_brought_back() {
    if !has_tools(&["nginx", "curl", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 3).await;
    let ports = SERVICES.map(|(_, _, port)| port);
    let mut controllers = controllers(&cluster, &ports);
    let api = cluster.api(1);
    for (listener, pool, port) in SERVICES {
        api.create_pool(pool, Some(INTERVAL)).await.unwrap();
        for number in 1..=3 {
            let address = SocketAddr::from((cluster.subnet.ip(10 + number), port));
            api.create_backend(pool, &format!("k0s-controller{number}"), address).await.unwrap();
        }
        api.create_listener(listener, format!("0.0.0.0:{port}"), pool).await.unwrap();
    }
    cluster.agreed().await;
    verdicts(&api, "", Verdict::Healthy).await;

    let traffic = Traffic::start(&targets(&cluster, &ports), fetch_tls);
    let all_serve = |report: trestle_testkit::TrafficReport| {
        report.assert_no_failure();
        for by_answer in report.answers.values() {
            assert_eq!(by_answer.len(), 3, "each client is served by every controller: {:?}", report.answers);
        }
    };
    all_serve(traffic.next(9));

    let killed = Instant::now();
    controllers[0].kill();
    verdicts(&api, "k0s-controller1", Verdict::Unhealthy).await;
    // Requests that had begun before the verdict may still fail.
    traffic.next(1);
    let detected = Instant::now();
    let after = traffic.next(6);
    after.assert_no_failure();
    assert_eq!(after.answered("k0s-controller1"), 0);
    traffic.report().assert_no_failure_outside(killed, detected);

    controllers[0].restart();
    verdicts(&api, "", Verdict::Healthy).await;
    traffic.next(1);
    all_serve(traffic.next(9));

    set_states(&api, "k0s-controller2", AdminState::Draining).await;
    cluster.agreed().await;
    traffic.next(1);
    assert_eq!(traffic.next(6).answered("k0s-controller2"), 0);
    drained(&api, "k0s-controller2").await;
    controllers[1].kill();
    traffic.next(6);
    controllers[1].restart();
    set_states(&api, "k0s-controller2", AdminState::Enabled).await;
    cluster.agreed().await;
    verdicts(&api, "", Verdict::Healthy).await;
    traffic.next(1);
    all_serve(traffic.next(9));
    traffic.stop().assert_no_failure_outside(killed, detected);
}

/// k0s' older example: four frontends lead to one backend section whose servers have no ports. The example script that
/// is shipped sets it up, with this test's addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_frontends_share_servers_without_ports() {
    const PORTS: [u16; 4] = [6443, 8132, 8133, 9443];
    if !has_tools(&["nginx", "curl", "openssl"]) {
        return;
    }
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut script = include_str!("../../deploy/examples/control-plane.sh").to_owned();
    for number in 1..=3 {
        let ip = cluster.subnet.ip(10 + number).to_string();
        script = script.replace(&format!("{number} 10.0.0.{number}"), &format!("{number} {ip}"));
    }
    // Each controller names the port that it was reached on.
    let certificate = Certificate::generate();
    let start = |(number, port): (u8, u16)| {
        Nginx::start(&format!("c{number}:{port}"), cluster.subnet.ip(10 + number), &[port], &certificate)
    };
    let pairs = (1..=3).flat_map(|number| PORTS.map(|port| (number, port)));
    let _controllers: Vec<Nginx> = pairs.map(start).collect();

    let path = std::env::join_paths([programs(), "/usr/bin".into(), "/bin".into()]).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("PATH", path).env("TRESTLE_ENDPOINT", cluster.endpoints());
    finish(&mut shell).expect_success();
    cluster.agreed().await;
    cluster.api(0).verdict("back", |_| true, Verdict::Healthy).await;

    for target in targets(&cluster, &PORTS) {
        // Round robin, and nobody else asks: three requests meet three controllers.
        let mut answers: Vec<String> = (0..3).map(|_| fetch_tls(target).unwrap()).collect();
        answers.sort();
        let expected: Vec<String> = (1..=3).map(|number| format!("c{number}:{}", target.port())).collect();
        assert_eq!(answers, expected, "through {target}");
    }
}
