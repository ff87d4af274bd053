//! What goes wrong and when, by the seed alone.

use crate::draws::Draws;
use crate::network::MS;

/// When faults begin, counted from the moment at which the cluster serves, and when they end.
pub(crate) const FAULTS: (u64, u64) = (200 * MS, 4_000 * MS);

/// How long a disk that went back in time is left to be filled again before anything else goes wrong.
const REFILL: u64 = 2_500 * MS;

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScheduledFault {
    /// The process is killed; the machine stays up.
    Kill { member: usize, down: u64 },
    /// The machine loses power, and what was not synced.
    PowerCut { members: Vec<usize>, down: u64 },
    /// The process is stopped and goes on later.
    Pause { member: usize, time: u64 },
    /// Nothing gets from one of the first to one of the second, and the other way as well unless it is `one_way`.
    Cut { from: Vec<usize>, to: Vec<usize>, one_way: bool, time: u64 },
    /// Everything between two members is late, and lost at times.
    Bad { a: usize, b: usize, loss: u64, delay: u64, time: u64 },
    /// Syncs take long.
    SlowDisk { member: usize, sync_ms: u64, time: u64 },
    /// A sync fails, by which the process ends.
    DiskError { member: usize, down: u64 },
    /// The disk is put back to how it was so long ago.
    PutBack { member: usize, age: u64 },
    /// An operator hands leadership to this member.
    Transfer { to: usize },
}

/// A plan.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) members: usize,
    /// By how many millionths each member's clock is fast.
    pub(crate) fast: Vec<i64>,
    /// Calls of a thousand that are made twice.
    pub(crate) twice: u64,
    /// Parcels of a thousand that are lost throughout, and the longest usual delay in microseconds.
    pub(crate) loss: u64,
    pub(crate) delay: u64,
    pub(crate) snapshot_every: u64,
    /// Milliseconds that a sync takes at the most.
    pub(crate) sync_ms: u64,
    /// In the order of their times.
    pub(crate) faults: Vec<(u64, ScheduledFault)>,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let members = if draws.chance(700) { 3 } else { 5 };
        let mut plan = Self {
            members,
            fast: (0..members).map(|_| draws.within(0, 1001).cast_signed() - 500).collect(),
            twice: if draws.chance(300) { draws.within(1, 200) } else { 0 },
            loss: if draws.chance(200) { draws.within(1, 30) } else { 0 },
            delay: draws.within(500, 6_000),
            snapshot_every: if draws.chance(500) { draws.within(5, 40) } else { 10_000 },
            sync_ms: draws.within(0, 4),
            faults: Vec::new(),
        };
        plan.draw_faults(&mut draws);
        plan
    }

    fn draw_faults(&mut self, draws: &mut Draws) {
        let mut at = FAULTS.0;
        let pace = draws.within(100, 1_500);
        while at < FAULTS.1 {
            let fault = self.draw_fault(draws);
            let put_back = matches!(fault, ScheduledFault::PutBack { .. });
            // A lost disk is a lost voter: whoever knows what was on it stays up until it is filled again.
            if put_back {
                if !self.faults.is_empty() {
                    continue;
                }
                at = MS * draws.within(500, 1_500);
            }
            self.faults.push((at, fault));
            at += if put_back { REFILL } else { MS * draws.within(20, pace) };
        }
    }

    fn draw_fault(&self, draws: &mut Draws) -> ScheduledFault {
        let member = draws.below(self.members);
        let other = (member + 1 + draws.below(self.members - 1)) % self.members;
        // Long enough for an election at times, and shorter than the lease at others.
        let time = MS * if draws.chance(400) { draws.within(10, 330) } else { draws.within(300, 2_500) };
        let down = time;
        match draws.below(100) {
            0..18 => ScheduledFault::Kill { member, down },
            18..30 => ScheduledFault::PowerCut { members: self.some(draws), down },
            30..42 => ScheduledFault::Pause { member, time },
            42..64 => self.cut(draws, member, other, time),
            64..72 => ScheduledFault::Bad {
                a: member,
                b: other,
                loss: draws.within(50, 300),
                delay: draws.within(5, 300),
                time,
            },
            72..80 => ScheduledFault::SlowDisk { member, sync_ms: draws.within(20, 700), time },
            80..84 => ScheduledFault::DiskError { member, down },
            84..92 => ScheduledFault::PutBack { member, age: MS * draws.within(50, 1_400) },
            _ => ScheduledFault::Transfer { to: member },
        }
    }

    /// One member, some, or all.
    fn some(&self, draws: &mut Draws) -> Vec<usize> {
        match draws.below(4) {
            0 => (0..self.members).collect(),
            1 => (0..self.members).filter(|_| draws.chance(500)).collect(),
            _ => vec![draws.below(self.members)],
        }
    }

    fn cut(&self, draws: &mut Draws, member: usize, other: usize, time: u64) -> ScheduledFault {
        let one_way = draws.chance(350);
        match draws.below(3) {
            0 => ScheduledFault::Cut { from: vec![member], to: vec![other], one_way, time },
            1 => {
                let rest = (0..self.members).filter(|rest| *rest != member).collect();
                match draws.chance(500) {
                    true => ScheduledFault::Cut { from: vec![member], to: rest, one_way, time },
                    false => ScheduledFault::Cut { from: rest, to: vec![member], one_way, time },
                }
            }
            _ => {
                let (from, to) = (0..self.members).partition(|_| draws.chance(500));
                ScheduledFault::Cut { from, to, one_way, time }
            }
        }
    }
}

impl Plan {
    /// Whether a disk goes back in time, so that copies of it must be there.
    pub(crate) fn puts_back(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, ScheduledFault::PutBack { .. }))
    }
}
