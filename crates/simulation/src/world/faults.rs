//! Carrying out what goes wrong, and ending it.

use super::{End, Planted, Simulation};
use crate::network::{Link, MS};
use crate::plan::ScheduledFault;

/// How often each disk is copied, for a copy to be put back.
const COPY_EVERY: u64 = 150 * MS;

impl Simulation {
    pub(super) fn apply(&mut self, fault: ScheduledFault) {
        match fault {
            ScheduledFault::Kill { member, down } => self.kill(member, down),
            ScheduledFault::PowerCut { members, down } => self.cut_power(&members, down),
            ScheduledFault::Pause { member, time } => {
                let member = &mut self.members[member];
                member.paused_until = member.paused_until.max(self.now + time);
            }
            ScheduledFault::Cut { from, to, one_way, time } => self.cut(&from, &to, one_way, time),
            ScheduledFault::Bad { a, b, loss, delay, time } => {
                for (from, to) in [(a, b), (b, a)] {
                    let link = &mut self.network.state().links[from][to];
                    (link.loss, link.delay) = (loss, (100, 1000 * delay));
                }
                self.ends.push((self.now + time, End::Links(vec![(a, b), (b, a)])));
            }
            ScheduledFault::SlowDisk { member, sync_ms, time } => {
                self.members[member].disk.content().sync_ms = (sync_ms / 2, sync_ms);
                self.ends.push((self.now + time, End::SlowDisk(member)));
            }
            ScheduledFault::DiskError { member, .. } => self.members[member].disk.content().fails = true,
            ScheduledFault::PutBack { member, age } => self.put_back(member, age),
            ScheduledFault::Transfer { to } => {
                let id = self.members[to].consensus().and_then(|consensus| consensus.identity());
                let to = id.map(|identity| identity.member_id);
                self.members.iter().for_each(|member| {
                    member.set_clock(self.now);
                    member.move_to(to);
                });
            }
        }
    }

    fn kill(&mut self, member: usize, down: u64) {
        self.members[member].end_process(self.now, &self.network);
        self.members[member].starts_at = Some(self.now + down);
    }

    fn cut_power(&mut self, members: &[usize], down: u64) {
        for id in members {
            let member = &mut self.members[*id];
            member.lose_power(self.now, &self.network, &mut self.draws);
            member.starts_at = Some(self.now + down + MS * self.draws.within(0, 100));
            self.network.state().answers[*id] = false;
            self.ends.push((self.now + down, End::Machine(*id)));
        }
    }

    fn cut(&mut self, from: &[usize], to: &[usize], one_way: bool, time: u64) {
        let mut ways: Vec<(usize, usize)> = Vec::new();
        for a in from {
            for b in to.iter().filter(|b| *b != a) {
                ways.push((*a, *b));
                if !one_way {
                    ways.push((*b, *a));
                }
            }
        }
        for (a, b) in &ways {
            self.network.state().links[*a][*b].cut = true;
        }
        self.ends.push((self.now + time, End::Links(ways)));
    }

    /// Puts a disk back. Whoever knows what was on it is up and reached then, and stays so.
    fn put_back(&mut self, member: usize, age: u64) {
        if self.members.iter().any(|other| !other.runs(self.now)) {
            return;
        }
        let count = self.members.len();
        let at = self.now.saturating_sub(age).max(self.began);
        let lost = if self.planted == Some(Planted::MajorityGoesBack) { count / 2 + 1 } else { 1 };
        for id in (0..lost).map(|more| (member + more) % count) {
            self.members[id].end_process(self.now, &self.network);
            self.members[id].put_back(at);
            self.members[id].starts_at = Some(self.now + MS * self.draws.within(1, 200));
        }
    }

    pub(super) fn end_faults(&mut self) {
        if self.began > 0 && self.now.is_multiple_of(COPY_EVERY) && self.plan.puts_back() {
            self.members.iter_mut().for_each(|member| member.copy_disk(self.now));
        }
        let now = self.now;
        let mut ended = Vec::new();
        self.ends.retain_mut(|(at, end)| {
            let over = *at <= now;
            if over {
                ended.push(std::mem::replace(end, End::Machine(usize::MAX)));
            }
            !over
        });
        ended.into_iter().for_each(|end| self.end(end));
    }

    fn end(&mut self, end: End) {
        let usual = Link::new(self.plan.loss, self.plan.delay);
        match end {
            End::Links(ways) => {
                for (a, b) in ways {
                    self.network.state().links[a][b] = usual;
                }
            }
            End::SlowDisk(member) => self.members[member].disk.content().sync_ms = (0, self.plan.sync_ms),
            End::Machine(member) => {
                if let Some(answers) = self.network.state().answers.get_mut(member) {
                    *answers = true;
                }
            }
        }
    }

    /// Ends everything that is wrong.
    pub(super) fn heal(&mut self) {
        let ends = std::mem::take(&mut self.ends);
        ends.into_iter().for_each(|(_, end)| self.end(end));
        self.plan.loss = 0;
        self.plan.delay = self.plan.delay.min(3_000);
        self.usual_links();
        self.network.state().twice = 0;
        for member in &mut self.members {
            member.paused_until = member.paused_until.min(self.now);
            member.disk.content().sync_ms = (0, 2);
            if member.process.is_none() {
                member.starts_at = Some(self.now + MS);
            }
        }
    }
}
