//! Moves the virtual IPs, and leadership with them, on purpose.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::Status;
use tracing::{info, warn};
use trestle_api::status::{self, Failure};
use trestle_engine::ownership::{MoveRefusal, OwnershipEvent};
use trestle_model::MemberId;

use super::command::VipCommand;
use super::obstacles;
use super::succession::Succession;

/// How long to wait for a member that could take over: the leader may be new, and members may be busy.
const TARGETS_WAIT: Duration = Duration::from_secs(2);
const TARGETS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long the machine may take to begin. It begins once the last connections have had their time.
const BEGIN_WAIT: Duration = Duration::from_secs(1);

/// Longest wait for a hand-over: the old lease where there is no fence, an election or two, and some patience with a busy
/// machine. It is less than the 10 s after which the command line gives up.
const TRANSFER_WAIT: Duration = Duration::from_secs(6);

/// How long a member that stops waits for another leader when it found no successor. An election may happen all the same, but not
/// without a quorum.
const ELECTION_WAIT: Duration = Duration::from_secs(2);

fn refused(why: impl Into<String>) -> Status {
    status::failure(&Failure::Membership(why.into()))
}

/// Moves leadership and the virtual IPs on purpose. Clones share it.
#[derive(Clone)]
pub(crate) struct Transfers(Succession);

impl Transfers {
    pub(crate) fn new(succession: Succession) -> Self {
        Self(succession)
    }

    /// Hands leadership and the virtual IPs over, to the best member unless `to` names one. This member must lead. Answers the new
    /// leader and its term, once it holds them.
    ///
    /// # Errors
    /// When this member does not lead, no member can take over, or another member than `to` took over.
    pub(crate) async fn transfer(&self, to: Option<MemberId>) -> Result<(MemberId, u64), Status> {
        let term = self.0.local.consensus.status().term;
        if let (Some(to), Some(me)) = (to, self.0.local.id())
            && to == me
            && let Some(leads) = self.0.local.consensus.leadership().borrow().leads
        {
            let confirmed = leads.is_safe(self.0.local.consensus.timing().election_max);
            return confirmed.then_some((me, term)).ok_or_else(|| {
                let why = "this member takes itself for the leader, and no majority has confirmed it lately";
                status::failure(&Failure::NoLeader(why.to_owned()))
            });
        }
        let deadline = Instant::now() + TARGETS_WAIT;
        let _moving = self.0.vips.moving();
        loop {
            self.can_move(to, deadline).await?;
            // The targets that the machine knows may be as old as the last look.
            let targets = self.0.targets().await;
            self.0.vips.tell(VipCommand::Event(OwnershipEvent::Targets(targets)));
            self.0.vips.tell(VipCommand::Event(OwnershipEvent::Move { to }));
            match self.begins(to).await? {
                Ok(()) => break,
                // A busy member may have answered too late.
                Err(_) if Instant::now() < deadline => {}
                Err(refusal) => return Err(self.cannot(refusal).await),
            }
        }
        let arrived = self.successor(term, Instant::now() + TRANSFER_WAIT, true).await;
        let (leader, term) = arrived.ok_or_else(|| {
            refused(
                "leadership was not taken over in time; the cluster elects a leader by itself: see \"trestle leader show\"",
            )
        })?;
        match to {
            _ if Some(leader) == self.0.local.id() => Err(refused(match to {
                Some(to) => format!(
                    "member \"{}\" did not take over, so this member leads on and serves; see \"trestle status\", or name \
                     another member",
                    self.name_of(to)
                ),
                None => {
                    "nobody took over, so this member leads on and serves; see \"trestle status\"".to_owned()
                }
            })),
            Some(to) if to != leader => {
                let (to, leader) = (self.name_of(to), self.name_of(leader));
                Err(refused(format!("member \"{to}\" was to lead, but member \"{leader}\" was elected")))
            }
            _ => Ok((leader, term)),
        }
    }

    /// Waits until the machine has begun to hand over. It does not when the target has turned out unfit.
    async fn begins(&self, to: Option<MemberId>) -> Result<Result<(), MoveRefusal>, Status> {
        let deadline = Instant::now() + BEGIN_WAIT;
        while self.0.local.consensus.leadership().borrow().leads.is_some() && !self.0.vips.is_leaving() {
            match self.movable(to)? {
                // The hand-over was faster than this look.
                Err(MoveRefusal::NotLeading) => break,
                Err(refusal) => return Ok(Err(refusal)),
                Ok(()) => {}
            }
            if Instant::now() >= deadline {
                return Err(refused("the target was not fit for a moment; nothing was moved, try again"));
            }
            sleep(TARGETS_POLL_INTERVAL).await;
        }
        Ok(Ok(()))
    }

    async fn cannot(&self, refusal: MoveRefusal) -> Status {
        match refusal {
            MoveRefusal::NotLeading => {
                refused("this member does not lead, so it holds no virtual IP; ask the leader")
            }
            MoveRefusal::Unfit(to) => refused(format!(
                "member \"{}\" cannot take over: it {}, or name another member",
                self.name_of(to),
                obstacles::of(&self.0, to).await
            )),
            MoveRefusal::NoTarget => refused(match obstacles::of_all(&self.0).await.as_slice() {
                [] => "nobody can take over: there is no other member".to_owned(),
                all => format!("nobody can take over: {}", all.join("; ")),
            }),
        }
    }

    /// The name of a member; its number when it is not known here.
    fn name_of(&self, id: MemberId) -> String {
        let state = self.0.local.consensus.view().borrow().state.clone();
        state.members.get(&id).map_or_else(|| id.to_string(), |member| member.spec.name.to_string())
    }

    /// Waits until the machine could move, at most until `deadline`.
    async fn can_move(&self, to: Option<MemberId>, deadline: Instant) -> Result<(), Status> {
        loop {
            match self.movable(to)? {
                Ok(()) => return Ok(()),
                Err(refusal @ MoveRefusal::NotLeading) => return Err(self.cannot(refusal).await),
                Err(refusal) if Instant::now() >= deadline => return Err(self.cannot(refusal).await),
                Err(_) => sleep_until(Instant::now() + TARGETS_POLL_INTERVAL).await,
            }
        }
    }

    fn movable(&self, to: Option<MemberId>) -> Result<Result<(), MoveRefusal>, Status> {
        let machine = self.0.vips.shared.machine();
        let can = machine.as_ref().map(|machine| machine.can_move(to));
        can.ok_or_else(|| status::failure(&Failure::NoCluster))
    }

    /// Waits for another leader of a later term, or with `or_self` for any, and until it has taken the virtual IPs, if there
    /// are any.
    async fn successor(&self, term: u64, deadline: Instant, or_self: bool) -> Option<(MemberId, u64)> {
        let mut role = self.0.local.consensus.role();
        let other = |role: &trestle_consensus::RaftRole| {
            role.term > term
                && role.leader.as_ref().is_some_and(|(id, _)| or_self || Some(*id) != self.0.local.id())
        };
        let arrived = timeout_at(deadline, role.wait_for(other)).await.ok()?.ok()?.clone();
        let (leader, term) = (arrived.leader?.0, arrived.term);
        let mut view = self.0.local.consensus.view();
        let taken = view.wait_for(|view| {
            let tenure = view.state.tenure.filter(|tenure| tenure.term >= term);
            view.state.vips.is_empty() || tenure.is_some()
        });
        timeout_at(deadline, taken).await.ok()?.ok()?;
        Some((leader, term))
    }

    /// Releases everything for good, before this process ends, and hands leadership over if a member can take it.
    pub(crate) async fn leave(&self) {
        let raft = self.0.local.consensus.status();
        let leads = self.0.local.consensus.leadership().borrow().leads.is_some();
        if leads && raft.voters.len() > 1 {
            let _moving = self.0.vips.moving();
            // A new leader learns in a moment which members can take over. Without any it releases all the same, and the others
            // elect a leader.
            let target = self.can_move(None, Instant::now() + TARGETS_WAIT).await;
            self.0.vips.tell(VipCommand::Event(OwnershipEvent::Stop));
            let wait = if target.is_ok() { TRANSFER_WAIT } else { ELECTION_WAIT };
            match self.successor(raft.term, Instant::now() + wait, false).await {
                Some((to, _)) => info!(%to, "handed leadership over"),
                None => warn!("leadership was not handed over; the others elect after the lease"),
            }
        } else {
            self.0.vips.tell(VipCommand::Event(OwnershipEvent::Stop));
        }
        self.end_vips().await;
    }

    /// Releases everything, and hands nothing over.
    pub(crate) async fn end_vips(&self) {
        let vips = self.0.vips.clone();
        // The thread ends even when it cannot be waited for.
        let _ = tokio::task::spawn_blocking(move || vips.end()).await;
    }
}
