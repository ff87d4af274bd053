//! Several members that agree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Code, Status};
use trestle_api::v1::{
    BootstrapClusterRequest, ClusterStatus, CreateTokenRequest, MemberRole, MemberStatus, RaftState, Token,
    UserRole,
};
use trestle_identity::tls::ClientTls;

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
    /// Whom its members let in, where they require TLS.
    user: Option<ClientTls>,
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
            Self { members: Vec::new(), subnet: Subnet::claim(), binary, more: more.to_owned(), user: None };
        for _ in 0..size {
            cluster.prepare();
        }
        cluster.members.iter_mut().for_each(Member::start);
        cluster.api(0).cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
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
        Api::of(self.members[number].admin(), self.user.as_ref())
    }

    /// As [`Cluster::start`], of members that prove who they are: the first is founded over its admin socket, and the others join by a
    /// token. [`Cluster::api`] is an admin.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn start_secure(binary: impl AsRef<Path>, size: u8) -> Self {
        let binary = binary.as_ref().to_owned();
        let subnet = Subnet::claim();
        let member = |number: u8| Member::secure(&binary, &format!("m{number}"), subnet.ip(number), "");
        let mut members: Vec<Member> = (1..=size).map(member).collect();
        members[0].start();
        let root = members[0].local_api();
        root.cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
        let user =
            wait_until("a first user", LIMIT, async || root.new_user("tester", UserRole::Admin).await).await;
        if size > 1 {
            let token = Token { uses: u32::from(size) - 1, ..Token::default() };
            let wanted = CreateTokenRequest { token: Some(token), lifetime: None };
            let token = root.tokens().create_token(wanted).await.unwrap().into_inner().text;
            for member in &mut members[1..] {
                member.start_with_token(&token);
            }
        }
        let mut cluster = Self { members, subnet, binary, more: String::new(), user: Some(user) };
        let api = cluster.api(0);
        wait_until("as many voters as members", LIMIT, async || {
            let status = api.status().await.map_err(|status| status.to_string())?;
            let is_voter =
                |m: &&MemberStatus| m.member.as_ref().is_some_and(|m| m.role() == MemberRole::Voter);
            match status.members.iter().filter(is_voter).count() {
                voters if voters == usize::from(size) => Ok(()),
                voters => Err(format!("{voters} of {size}")),
            }
        })
        .await;
        cluster.agreed().await;
        cluster
    }

    /// Clients of the first member that runs.
    ///
    /// # Panics
    /// When none does.
    pub fn running(&mut self) -> Api {
        let place = self.members.iter_mut().position(Member::is_running).expect("no member runs");
        self.api(place)
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
