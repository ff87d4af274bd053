//! Several members that agree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Code, Status};
use trestle_api::v1::{BootstrapClusterRequest, ClusterStatus, RaftState};

use crate::api::Api;
use crate::member::Member;
use crate::subnet::Subnet;
use crate::wait::wait_until;

/// Long enough for elections and restarts on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster on a subnet of its own: member `m1` on .1, and so on.
#[derive(Debug)]
pub struct Cluster {
    /// Its members; those that a test removes stay here, stopped.
    pub members: Vec<Member>,
    /// Its addresses; 1 to 9 are for members.
    pub subnet: Subnet,
    binary: PathBuf,
    more: String,
}

/// Repeats a call for as long as no leader with a quorum takes it.
async fn persist(what: &str, mut call: impl AsyncFnMut() -> Result<(), Status>) {
    wait_until(what, LIMIT, async || match call().await {
        Ok(()) => Ok(()),
        Err(status) if status.code() == Code::Unavailable => Err(status.to_string()),
        Err(status) => panic!("{what}: {status}"),
    })
    .await;
}

impl Cluster {
    /// Starts `size` empty members, founds a cluster on the first, and adds and promotes the others.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn start(binary: impl AsRef<Path>, size: u8) -> Self {
        Self::start_with(binary, size, "").await
    }

    /// As [`Cluster::start`], with lines for every member's configuration file.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn start_with(binary: impl AsRef<Path>, size: u8, more: &str) -> Self {
        let binary = binary.as_ref().to_owned();
        let mut cluster =
            Self { members: Vec::new(), subnet: Subnet::claim(), binary, more: more.to_owned() };
        for _ in 0..size {
            cluster.prepare();
        }
        cluster.members.iter_mut().for_each(Member::start);
        cluster.api(0).cluster().bootstrap_cluster(BootstrapClusterRequest {}).await.unwrap();
        cluster.leader().await;
        for number in 1..usize::from(size) {
            cluster.take_in(number).await;
        }
        cluster.agreed().await;
        cluster
    }

    /// Prepares one more member, which is started and added by the caller; answers its place in `members`.
    pub fn prepare(&mut self) -> usize {
        self.prepare_with("")
    }

    /// As [`Cluster::prepare`], with lines for the configuration file of that member alone.
    pub fn prepare_with(&mut self, more: &str) -> usize {
        let number = self.members.len() + 1;
        let ip = self.subnet.ip(u8::try_from(number).unwrap());
        let more = format!("{}{more}", self.more);
        self.members.push(Member::new(&self.binary, &format!("m{number}"), ip, &more));
        number - 1
    }

    /// Adds and promotes a member that runs.
    ///
    /// # Panics
    /// When the cluster refuses, or has no leader for long.
    pub async fn take_in(&self, number: usize) {
        let (api, member) = (self.api(0), &self.members[number]);
        // Both go on where an earlier call stopped; on a busy machine a leader may lose its quorum for a moment.
        persist(&format!("add {}", member.name), async || api.add_member(member.peer()).await.map(drop))
            .await;
        let promoted = async || api.promote_member(&member.name).await.map(drop);
        persist(&format!("promote {}", member.name), promoted).await;
    }

    /// Clients of a member, by its place.
    pub fn api(&self, number: usize) -> Api {
        self.members[number].api()
    }

    /// Clients of the first member that runs.
    ///
    /// # Panics
    /// When none does.
    pub fn running(&mut self) -> Api {
        self.members
            .iter_mut()
            .find_map(|member| member.is_running().then(|| member.api()))
            .expect("no member runs")
    }

    /// Waits until the members that run know a leader among themselves; answers its place in `members`.
    ///
    /// # Panics
    /// When that takes more than 60 s.
    pub async fn leader(&mut self) -> usize {
        let api = self.running();
        let name = wait_until("a leader", LIMIT, async || {
            let status = api.status().await.map_err(|status| status.to_string())?;
            let leads = status.members.iter().find(|m| m.reachable && m.raft_state() == RaftState::Leader);
            let name = leads.and_then(|m| m.member.as_ref()).map(|member| member.name.clone());
            name.filter(|name| *name == status.leader).ok_or_else(|| format!("{status:?}"))
        });
        let name = name.await;
        let place = self.members.iter().position(|member| format!("members/{}", member.name) == name);
        place.unwrap_or_else(|| panic!("the leader {name} is none of the members"))
    }

    /// Waits until every member of the cluster answers and all have the same revision, applied and in force, and the
    /// same digest.
    ///
    /// # Panics
    /// When that takes more than 60 s.
    pub async fn agreed(&mut self) -> ClusterStatus {
        let api = self.running();
        wait_until("agreement of all members", LIMIT, async || {
            let status = api.status().await.map_err(|status| status.to_string())?;
            let first = status.members.first().ok_or("no members")?;
            let same = |m: &trestle_api::v1::MemberStatus| {
                m.reachable
                    && m.revision == first.revision
                    && m.in_force_revision == first.revision
                    && m.digest == first.digest
            };
            let all =
                !first.digest.is_empty() && !status.leader.is_empty() && status.members.iter().all(same);
            if all { Ok(status) } else { Err(format!("{:#?}", status.members)) }
        })
        .await
    }

    /// As [`Cluster::agreed`] while writes go on: every member answers and has in force what was committed before.
    ///
    /// # Panics
    /// When that takes more than 60 s.
    pub async fn agreed_under_load(&mut self) {
        let api = self.running();
        let mut goal = 0;
        wait_until("all members catching up", LIMIT, async || {
            let status = api.status().await.map_err(|status| status.to_string())?;
            if goal == 0 {
                goal = status.revision;
            }
            let all = status.members.iter().all(|m| m.reachable && m.in_force_revision >= goal);
            if all { Ok(()) } else { Err(format!("goal {goal}: {:#?}", status.members)) }
        })
        .await;
    }

    /// The endpoints of all members, as `trestle --endpoint` takes them.
    pub fn endpoints(&self) -> String {
        let endpoints: Vec<String> = self.members.iter().map(|member| member.admin().to_string()).collect();
        endpoints.join(",")
    }
}
