//! Members whose programs know different feature levels: a rolling upgrade, and what it holds back. Each member is a process of its
//! own, this test's program again, because what a program knows is no setting of a user's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::v1;
use trestle_api::v1::authority_service_client::AuthorityServiceClient;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::event_service_client::EventServiceClient;
use trestle_api::v1::member_service_client::MemberServiceClient;
use trestle_api::v1::rotate_authority_response::Step;
use trestle_model::MemberName;
use trestle_node::Node;
use trestle_node::config::Config;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells this program which member it is: its address, name, data directory and feature level, with spaces between.
const MEMBER: &str = "LEVELS_TEST_MEMBER";

/// The process of one member, and nothing where none was asked for. It ends with its standard input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member() {
    let Ok(asked) = std::env::var(MEMBER) else { return };
    let [host, name, dir, level] = asked.split(' ').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let mut config = Config::on_loopback(MemberName::parse(name).unwrap(), host.parse().unwrap(), dir.into());
    config.insecure = true;
    config.shutdown_grace = Duration::from_secs(1);
    config.feature_level_max = level.parse().unwrap();
    let node = match Node::start(config, Arc::new(|| 0)).await {
        Ok(node) => node,
        Err(error) => {
            println!("{error}");
            std::process::exit(error.exit_code().into());
        }
    };
    let stopped = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    stopped.await.unwrap().unwrap();
    node.shutdown().await;
}

struct Cluster {
    dir: TempDir,
    processes: [Option<Child>; 4],
}

/// An address of this test alone.
fn host(number: usize) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    // The testkit's subnets begin at 127.16.
    Ipv4Addr::new(127, 1 + high % 15, low, u8::try_from(number).unwrap())
}

fn channel(number: usize) -> Channel {
    let address = format!("{}:7480", host(number));
    Transport::plain().dialer(&address, &ChannelOptions::default()).unwrap().connect_lazy()
}

impl Cluster {
    /// Members 1 to 3, whose programs know the first level.
    async fn start() -> Self {
        let mut cluster = Self { dir: TempDir::new().unwrap(), processes: [const { None }; 4] };
        for number in 1..=3 {
            cluster.run(number, 1).await;
        }
        ClusterServiceClient::new(channel(1))
            .bootstrap_cluster(v1::BootstrapClusterRequest::default())
            .await
            .unwrap();
        for number in [2, 3] {
            add(number).await.unwrap();
            let request =
                v1::PromoteMemberRequest { name: format!("members/m{number}"), ..Default::default() };
            let promoted = MemberServiceClient::new(channel(1)).promote_member(request).await.unwrap();
            let mut progress = promoted.into_inner();
            while progress.message().await.unwrap().is_some() {}
        }
        cluster
    }

    /// Where a member has its data.
    fn data(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("m{number}"))
    }

    /// The process of a member whose program knows so much.
    fn member(&self, number: usize, level: u32) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let asked = format!("{} m{number} {} {level}", host(number), self.data(number).display());
        command.args(["--exact", "one_member", "--nocapture"]).env(MEMBER, asked);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a member, and waits until it answers.
    async fn run(&mut self, number: usize, level: u32) {
        self.processes[number - 1] = Some(self.member(number, level).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while alone(number).await.is_none() {
            assert!(Instant::now() < deadline, "member {number} does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn stop(&mut self, number: usize) {
        let mut process = self.processes[number - 1].take().unwrap();
        drop(process.stdin.take());
        assert!(process.wait().unwrap().success());
    }

    async fn upgrade(&mut self, number: usize) {
        self.stop(number);
        self.run(number, 2).await;
    }
}

/// What a member says of itself.
async fn alone(number: usize) -> Option<v1::MemberStatus> {
    let request = v1::GetClusterStatusRequest { local_only: true };
    let status = ClusterServiceClient::new(channel(number)).get_cluster_status(request).await;
    status.ok()?.into_inner().members.pop()
}

/// Takes a member in, as whoever leads.
async fn add(number: usize) -> Result<(), Status> {
    let request =
        v1::AddMemberRequest { peer_address: format!("{}:7481", host(number)), ..Default::default() };
    let mut progress = MemberServiceClient::new(channel(1)).add_member(request).await?.into_inner();
    while progress.message().await?.is_some() {}
    Ok(())
}

/// The feature level, and what each member's program knows, by the word of a member.
async fn levels(of: usize) -> Option<(u32, Vec<u32>)> {
    let request = v1::GetClusterStatusRequest::default();
    let status = ClusterServiceClient::new(channel(of)).get_cluster_status(request).await.ok()?.into_inner();
    let known = |status: &v1::MemberStatus| status.member.as_ref().map_or(0, |m| m.feature_level_max);
    Some((status.feature_level, status.members.iter().map(known).collect()))
}

async fn until(of: usize, expected: (u32, &[u32])) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = levels(of).await;
        if now.as_ref().is_some_and(|(level, known)| (*level, known.as_slice()) == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{now:?} and not {expected:?} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The kinds of all events.
async fn kinds() -> Vec<String> {
    let asked = EventServiceClient::new(channel(2)).list_events(v1::ListEventsRequest::default()).await;
    let (mut parts, mut kinds) = (asked.unwrap().into_inner(), Vec::new());
    while let Some(part) = parts.message().await.unwrap() {
        kinds.extend(part.events.into_iter().map(|event| event.kind));
    }
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_level_rises_once_every_member_is_upgraded_and_answers() {
    let mut cluster = Cluster::start().await;
    until(2, (1, &[1, 1, 1])).await;
    cluster.upgrade(1).await;
    cluster.upgrade(2).await;
    until(2, (1, &[2, 2, 1])).await;
    // The last one is upgraded, but a member is off, and may come back as anything.
    cluster.stop(1);
    cluster.stop(3);
    copy(&cluster.data(3), &cluster.data(9));
    cluster.run(3, 2).await;
    until(2, (1, &[2, 2, 2])).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    until(2, (1, &[2, 2, 2])).await;
    assert!(!kinds().await.contains(&"feature-level-raised".to_owned()));
    cluster.run(1, 2).await;
    for number in [1, 2, 3] {
        until(number, (2, &[2, 2, 2])).await;
    }
    let told = kinds().await;
    assert_eq!(told.iter().filter(|kind| *kind == "feature-level-raised").count(), 1, "{told:?}");
    // Who knows less is not taken in from now on.
    cluster.run(4, 1).await;
    let refused = add(4).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("member \"m4\" runs a program that knows feature level 1 at most")
            && refused.message().contains("upgrade its program"),
        "{refused}"
    );
    cluster.upgrade(4).await;
    add(4).await.unwrap();
    until(2, (2, &[2, 2, 2, 2])).await;
    a_member_that_is_put_back(&mut cluster).await;
    a_cluster_of_before_gets_its_first_authority().await;
}

/// Made by a rotation, as any other; then users can be made, and the cluster can go over to TLS.
async fn a_cluster_of_before_gets_its_first_authority() {
    let mut authorities = AuthorityServiceClient::new(channel(2));
    let asked = authorities.rotate_authority(v1::RotateAuthorityRequest::default()).await;
    let (mut steps, mut last) = (asked.unwrap().into_inner(), None);
    while let Some(step) = steps.message().await.unwrap() {
        last = Some(step);
    }
    let last = last.unwrap();
    assert_eq!((last.step(), last.generation, last.former_generation), (Step::Done, 1, 0));
    assert_eq!((last.members.len(), last.unanswering_members.len()), (4, 0), "{last:?}");
    let listed = authorities.list_authorities(v1::ListAuthoritiesRequest::default()).await;
    let first = listed.unwrap().into_inner().authorities.remove(0);
    assert_eq!((first.state(), first.certified_members.len()), (v1::AuthorityState::Active, 4));
    let request =
        v1::SecureClusterRequest { transport: v1::TransportSecurity::Accept.into(), ..Default::default() };
    ClusterServiceClient::new(channel(1)).secure_cluster(request).await.unwrap();
}

/// A member that comes back with an older program and a disk from before is no part of what it does not know.
async fn a_member_that_is_put_back(cluster: &mut Cluster) {
    cluster.stop(3);
    let refused = cluster.member(3, 1).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(70), "{said}");
    assert!(said.contains("upgrade this member to the version that the others run"), "{said}");
    std::fs::rename(cluster.data(3), cluster.data(8)).unwrap();
    copy(&cluster.data(9), &cluster.data(3));
    cluster.run(3, 1).await;
    let told =
        |problems: &[String]| problems.iter().any(|problem| problem.contains("its program is too old"));
    until_problems(told).await;
    let unready = ready();
    assert!(
        unready.starts_with("HTTP/1.1 503") && unready.contains("upgrade this member's program"),
        "{unready}"
    );
    cluster.upgrade(3).await;
    until_problems(<[String]>::is_empty).await;
    until(3, (2, &[2, 2, 2, 2])).await;
}

/// Waits until what the third member finds wrong with itself is as expected.
async fn until_problems(expected: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let problems = alone(3).await.map(|status| status.problems);
        if problems.as_ref().is_some_and(|problems| expected(problems)) {
            return;
        }
        assert!(Instant::now() < deadline, "{problems:?} after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the third member says of its readiness.
fn ready() -> String {
    let mut stream = TcpStream::connect((host(3), 7482)).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: m3\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Copies the files of a member that has stopped.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => assert!(std::fs::copy(from, to).is_ok()),
        }
    }
}
