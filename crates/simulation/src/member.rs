//! One member: its machine with disk, clock and kernel, and the process that runs there now.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use trestle_consensus::simulation::LogBounds;
use trestle_consensus::{ClusterView, Consensus, Leadership};
use trestle_engine::ownership::LeaseTiming;
use trestle_model::Revision;
use trestle_node::simulation::SimulatedOwner;

use crate::disk::{DiskContent, SimulatedDisk};
use crate::draws::Draws;
use crate::history::History;
use crate::interpose;
use crate::kernel::SimulatedMachine;
use crate::network::{MS, SimulatedNetwork};
use crate::platform::platform;
use crate::process::{MemberProcess, Start, name};

/// What a clock shows at the beginning: an hour, so that moments before the beginning can be named.
const BEGIN: u64 = 3_600_000 * MS;

/// Time between two looks of the lease thread.
const LEASE_TICK: u64 = 20 * MS;

/// A copy of a disk with the files beside the log.
pub(crate) struct DiskCopy {
    pub(crate) at: u64,
    content: DiskContent,
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// What a running process is watched by.
struct Watched {
    consensus: Consensus,
    view: watch::Receiver<Arc<ClusterView>>,
    leadership: watch::Receiver<Leadership>,
    /// Changes up to here have been seen.
    revision: Revision,
}

pub(crate) struct SimulatedMember {
    pub(crate) id: usize,
    dir: PathBuf,
    /// By how many millionths its clock is fast.
    fast: i64,
    /// A mistake: by how much its clock leaps while a process starts, which passes for the time that it would wait.
    pub(crate) leaps: u64,
    leapt: u64,
    pub(crate) disk: SimulatedDisk,
    pub(crate) machine: SimulatedMachine,
    pub(crate) process: Option<MemberProcess>,
    owner: Option<SimulatedOwner>,
    watched: Option<Watched>,
    pub(crate) paused_until: u64,
    /// When a process that ended is started again; none while it is not to be.
    pub(crate) starts_at: Option<u64>,
    processes: u64,
    lease_look: u64,
    pub(crate) copies: Vec<DiskCopy>,
}

impl SimulatedMember {
    pub(crate) fn new(id: usize, root: &Path, fast: i64, sync_ms: u64) -> Self {
        let disk = SimulatedDisk::default();
        disk.content().sync_ms = (0, sync_ms);
        Self {
            id,
            dir: root.join(format!("m{}", id + 1)),
            fast,
            leaps: 0,
            leapt: 0,
            disk,
            machine: SimulatedMachine::default(),
            process: None,
            owner: None,
            watched: None,
            paused_until: 0,
            starts_at: Some(0),
            processes: 0,
            lease_look: 0,
            copies: Vec::new(),
        }
    }

    /// What its clock shows, in nanoseconds.
    fn clock(&self, now: u64) -> u64 {
        let gained = i128::from(now) * i128::from(self.fast) / 1_000_000;
        let shown = i128::from(BEGIN + now + self.leapt + (self.id as u64) * 977 * MS) + gained;
        u64::try_from(shown).unwrap_or(0)
    }

    pub(crate) fn set_clock(&self, now: u64) {
        interpose::set_clock(self.clock(now));
    }

    pub(crate) fn consensus(&self) -> Option<&Consensus> {
        self.watched.as_ref().map(|watched| &watched.consensus)
    }

    pub(crate) fn runs(&self, now: u64) -> bool {
        self.process.is_some() && now >= self.paused_until
    }

    /// Whether packets to the virtual IP pass here.
    pub(crate) fn serves(&self, now: u64) -> bool {
        self.set_clock(now);
        self.machine.is_open(Instant::now())
    }

    /// Starts a process.
    pub(crate) fn start(&mut self, now: u64, network: &SimulatedNetwork, bounds: LogBounds) {
        self.set_clock(now);
        (self.processes, self.starts_at, self.paused_until) = (self.processes + 1, None, 0);
        self.disk.content().fails = false;
        let owner = SimulatedOwner::new(LeaseTiming::default());
        let start = Start {
            member: self.id,
            dir: self.dir.clone(),
            platform: platform(self.id, &self.disk, network, bounds),
            vote_guard: owner.vote_guard(),
            number: (self.id as u64 + 1) * 1_000 + self.processes,
        };
        self.owner = Some(owner);
        self.process = Some(MemberProcess::start(start, network));
    }

    /// The process ends at once, whatever it is doing.
    pub(crate) fn end_process(&mut self, now: u64, network: &SimulatedNetwork) {
        self.set_clock(now);
        self.watched = None;
        self.owner = None;
        if self.process.take().is_some() {
            network.state().process_ended(self.id);
        }
        self.machine.process_ends();
    }

    /// Runs what is due: first what has arrived, then the process, then the owner of the virtual IPs.
    pub(crate) fn step(&mut self, now: u64, network: &SimulatedNetwork) {
        self.set_clock(now);
        let Some(process) = &self.process else { return };
        if let Some(watched) = &self.watched {
            let id = watched.consensus.identity().map(|identity| identity.member_id);
            network.state().ids[self.id] = id;
        }
        let mut begins = None;
        process.step(|| {
            loop {
                let mut state = network.state();
                if !state.is_due(self.id) {
                    break;
                }
                let delivery = state.take(self.id, process.consensus().is_some());
                drop(state);
                if let Some(delivery) = delivery {
                    process.serve(delivery);
                }
            }
            if let Some(owner) = &mut self.owner {
                owner.run();
            }
            begins = process.consensus().filter(|_| self.watched.is_none());
        });
        if let Some(consensus) = begins {
            self.begin(consensus);
        }
        if now >= self.lease_look {
            self.lease_look = now + LEASE_TICK;
            self.machine.lease_tick(Instant::now());
        }
    }

    fn begin(&mut self, consensus: Consensus) {
        let (view, leadership) = (consensus.view(), consensus.leadership());
        if let (Some(owner), Some(process)) = (&mut self.owner, &self.process) {
            process.step(|| owner.begin(name(self.id), &consensus, Box::new(self.machine.clone())));
        }
        let standing = self.process.as_ref().map(|process| process.begin.clone());
        self.leapt += self.leaps;
        if let Some(begin) = standing {
            begin.notify_one();
        }
        self.watched = Some(Watched { consensus, view, leadership, revision: 0 });
    }

    /// An operator wants the virtual IPs elsewhere.
    pub(crate) fn move_to(&self, to: Option<trestle_model::MemberId>) {
        if let Some(owner) = &self.owner {
            owner.move_to(to);
        }
    }

    /// Notes what there is to see.
    pub(crate) fn observe(&mut self, history: &mut History) {
        let Some(watched) = &mut self.watched else { return };
        if watched.leadership.has_changed().unwrap_or(false) {
            let leadership = *watched.leadership.borrow_and_update();
            if let Some(leads) = leadership.leads {
                history.note_term(leads.term);
            }
        }
        if watched.view.has_changed().unwrap_or(false) {
            let view = watched.view.borrow_and_update().clone();
            for changes in watched.consensus.history().newest(watched.revision, 4_096) {
                history.note_changes(self.id, &changes);
            }
            watched.revision = view.state.revision;
            history.note_view(self.id, &view);
        }
    }

    /// Loses power: the process, and what was not synced.
    pub(crate) fn lose_power(&mut self, now: u64, network: &SimulatedNetwork, draws: &mut Draws) {
        self.end_process(now, network);
        self.machine.lose_power();
        self.disk.content().lose_power(draws);
    }

    /// Keeps a copy of the disk as it is.
    pub(crate) fn copy_disk(&mut self, now: u64) {
        let mut files = Vec::new();
        collect(&self.dir, &mut files);
        self.copies.push(DiskCopy { at: now, content: self.disk.content().clone(), files });
    }

    /// Puts the newest copy back that is not younger than `at`.
    pub(crate) fn put_back(&mut self, at: u64) -> bool {
        let Some(copy) = self.copies.iter().rev().find(|copy| copy.at <= at) else { return false };
        *self.disk.content() = copy.content.clone();
        let _ = std::fs::remove_dir_all(&self.dir);
        for (path, content) in &copy.files {
            let made = path.parent().map(std::fs::create_dir_all);
            made.transpose().and_then(|_| std::fs::write(path, content)).expect("files can be put back");
        }
        true
    }

    /// Draws by how much fences are late, beside `more`.
    pub(crate) fn set_fence_error(&self, draws: &mut Draws, more: Duration) {
        self.machine.set_fence_error(more + Duration::from_micros(draws.within(0, 12_000)));
    }
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .map(|all| all.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if let Ok(content) = std::fs::read(&path) {
            files.push((path, content));
        }
    }
}
