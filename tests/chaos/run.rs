//! One run: a new cluster, clients of all kinds, a plan of faults, and what is left of it all.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use trestle_testkit::Member;
use trestle_testkit::faults::{Episode, FaultKind, Menu, plan};
use trestle_testkit::history::{Judgement, RecordedCall, judge};
use trestle_testkit::lab::{Capture, Dual, Injector, Lab, MEMBERS, Prober, Trestle, dual};

use crate::dials::{self, Calm};
use crate::findings::{Finding, Findings, Invariant};
use crate::ledger::Ledger;
use crate::log_sink::BlockedSinks;
use crate::registers::Registers;
use crate::streams::Streams;
use crate::surroundings::Surroundings;
use crate::tally::Tally;
use crate::turns::Turn;

/// The program of each member.
const DAEMON: &str = env!("CARGO_BIN_EXE_trestled");
/// Names the file for the command that repeats a failed run.
const AGAIN: &str = "TRESTLE_CHAOS_AGAIN";
/// Settings of each member: a stop that waits for streams of half a minute would be all that a run does.
const SETTINGS: &str = "shutdown_grace = \"5s\"\n";
/// The timing for slow networks, where it is not the default one that is tried: members that wait for a processor are not taken for dead.
const UNHURRIED: &str = "profile = \"wide\"\n";
/// Bound on service at the virtual IP once everything has healed: members that start, an election, a lease, and a machine that does
/// other things.
const SERVED: Duration = Duration::from_secs(40);
/// Connections in a row that show it.
const ENOUGH: usize = 20;
/// Bound on all members taking part again.
const WHOLE: Duration = Duration::from_secs(60);
/// How long nothing is broken between two episodes.
const CALM: Duration = Duration::from_secs(2);

/// How long a line of a log may be on its way.
const LOGGED: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    /// Of the faults.
    pub(crate) name: String,
    /// What tells this run from others, and what its clients do.
    pub(crate) seed: u64,
    /// What may break.
    pub(crate) kinds: Vec<FaultKind>,
    pub(crate) episodes: Vec<Episode>,
    /// Whether members have the default timing.
    pub(crate) hurried: bool,
    /// Whether nobody reads the members' logs.
    pub(crate) unread: bool,
    /// The command that does it again.
    pub(crate) repeat: String,
}

impl Mix {
    /// As many episodes as a seed gives. Odd ones have the default timing.
    pub(crate) fn of_seed(
        (name, kinds): (&str, &[FaultKind]),
        seed: u64,
        episodes: usize,
        repeat: String,
    ) -> Self {
        let menu = Menu { kinds: kinds.to_vec(), members: MEMBERS };
        Self {
            name: name.to_owned(),
            seed,
            kinds: kinds.to_vec(),
            episodes: plan(seed, &menu, episodes),
            hurried: seed % 2 == 1,
            unread: false,
            repeat,
        }
    }
}

/// A cluster under test, and who uses it.
struct Stage {
    // Disks go before the files of the members that they are mounted on.
    injector: Injector,
    product: Trestle,
    findings: Findings,
    tally: Tally,
    calms: Vec<Calm>,
    said: Vec<String>,
    // The network goes last.
    lab: Lab,
}

/// Who uses it.
struct Clients {
    capture: Capture,
    prober: Prober,
    registers: Registers,
    ledger: Ledger,
    streams: Streams,
}

/// Runs a mix; `None` where that cannot be had here.
///
/// # Panics
/// When something does not hold that must. Where everything is kept is printed, and last how to do it again.
pub(crate) fn run(mix: &Mix) -> Option<Tally> {
    let _turn = Turn::wait(mix.hurried);
    let lab = Lab::build()?;
    let mut sinks = mix.unread.then(|| BlockedSinks::new(Path::new(DAEMON)));
    let daemon = sinks.as_ref().map_or_else(|| PathBuf::from(DAEMON), BlockedSinks::daemon);
    let timing = if mix.hurried { "" } else { UNHURRIED };
    let mut product = Trestle::secure(&lab, &daemon, |_| format!("{SETTINGS}{timing}"));
    sinks.iter_mut().for_each(|sinks| sinks.open(&mut product));
    let injector = Injector::prepare(&mut product, &mix.kinds)?;
    let (findings, tally) = (Findings::default(), Tally { runs: 1, ..Tally::default() });
    let mut stage = Stage { product, injector, findings, tally, calms: vec![], said: vec![], lab };
    let kept =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos").join(format!("{}-{}", mix.name, mix.seed));
    let mut histories = Vec::new();
    // What a helper expects and does not get is a finding like others: everything is kept.
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        stage.play(mix, &kept, &mut histories);
        sinks.iter_mut().for_each(|sinks| sinks.were_full(&mut stage.findings));
    }));
    if played.is_ok() && stage.findings.0.is_empty() {
        return Some(stage.tally);
    }
    stage.keep(&kept, &histories);
    eprintln!("{}", stage.tally);
    if let Some(file) = std::env::var_os(AGAIN) {
        std::fs::write(file, &mix.repeat).unwrap();
    }
    match played {
        Err(panic) => {
            eprintln!("everything is kept in {}\nrepeat it by: {}", kept.display(), mix.repeat);
            std::panic::resume_unwind(panic);
        }
        Ok(()) => {
            let found: Vec<String> = stage.findings.0.iter().map(Finding::to_string).collect();
            panic!(
                "{}\neverything is kept in {}\nrepeat it by: {}",
                found.join("\n"),
                kept.display(),
                mix.repeat
            );
        }
    }
}

impl Stage {
    fn play(&mut self, mix: &Mix, kept: &Path, histories: &mut Vec<Vec<RecordedCall>>) {
        let start = Instant::now();
        self.product.found(&self.lab);
        let surroundings = Surroundings::arrange(&self.lab);
        let clients = Clients {
            capture: self.lab.capture(),
            prober: dials::start(&self.lab),
            registers: Registers::start(&self.lab, &self.product, mix.seed),
            ledger: Ledger::start(&self.lab, &self.product, mix.seed),
            streams: Streams::start(&self.lab, &self.product, mix.seed),
        };
        self.say(format!("seed {}: set up in {:.1} s", mix.seed, start.elapsed().as_secs_f64()));
        self.heal(&clients.prober, Instant::now());
        let first = self.term();
        for episode in &mix.episodes {
            self.episode(episode, &clients.prober);
            if !self.findings.0.is_empty() {
                break;
            }
        }
        self.tally.elections += self.term().saturating_sub(first);
        self.judge(clients, &surroundings, kept, histories);
        self.say(format!("seed {}: {:.1} s", mix.seed, start.elapsed().as_secs_f64()));
    }

    fn say(&mut self, line: String) {
        eprintln!("{line}");
        // Since 1970, by which it is found in logs and captures.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.said.push(format!("{:.3} {line}", now.as_secs_f64()));
    }

    /// The latest term of Raft that a member tells.
    fn term(&self) -> u64 {
        let told = |member| self.product.status(&self.lab, member).ok().map(|status| status.term);
        (0..MEMBERS).filter_map(told).max().unwrap_or_default()
    }

    /// The member that serves now, or the first.
    fn holder(&self) -> usize {
        self.lab.holders().first().copied().unwrap_or_default()
    }

    fn episode(&mut self, episode: &Episode, prober: &Prober) {
        let begins = episode.faults.iter().enumerate().map(|(number, fault)| (fault.at, false, number));
        let ends = episode.faults.iter().enumerate().map(|(number, fault)| (fault.end(), true, number));
        let mut moments: Vec<_> = begins.chain(ends).collect();
        moments.sort_unstable();
        let start = Instant::now();
        for (at, is_end, number) in moments {
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            if is_end {
                self.injector.end(&self.lab, &mut self.product, number);
                continue;
            }
            let (fault, holder) = (&episode.faults[number], self.holder());
            let member = self.injector.begin(&self.lab, &mut self.product, number, fault, holder);
            *self.tally.faults.entry(fault.kind.name()).or_default() += 1;
            self.say(format!(
                "  {fault}: m{}{}",
                member + 1,
                if member == holder { ", the holder" } else { "" }
            ));
        }
        self.heal(prober, Instant::now());
    }

    /// Waits until the address is served and all members take part, and watches for a while in which nothing is broken.
    fn heal(&mut self, prober: &Prober, healed: Instant) {
        self.tally.ended += self.injector.restart_ended(&self.lab, &mut self.product);
        let served = loop {
            let served = prober.count(healed, |attempt| attempt.outcome.is_ok());
            if served >= ENOUGH || healed.elapsed() > SERVED {
                break served;
            }
            self.tally.ended += self.injector.restart_ended(&self.lab, &mut self.product);
            std::thread::sleep(Duration::from_millis(20));
        };
        if served < ENOUGH {
            let what = format!("{served} connections in {SERVED:?} after everything had healed");
            return self.findings.add(Invariant::ServedAgain, what);
        }
        self.tally.served_again.push(healed.elapsed());
        let mut goal = 0;
        while let Err(why) = self.whole(&mut goal) {
            if healed.elapsed() > WHOLE {
                let what = format!("not within {WHOLE:?}: {why}");
                return self.findings.add(Invariant::WholeAgain, what);
            }
            self.tally.ended += self.injector.restart_ended(&self.lab, &mut self.product);
            std::thread::sleep(Duration::from_millis(50));
        }
        self.tally.whole_again.push(healed.elapsed());
        let (from, lapses) = (Instant::now(), self.lapses());
        std::thread::sleep(CALM);
        let to = Instant::now();
        // Logs are written a moment later.
        std::thread::sleep(LOGGED);
        if self.lapses() == lapses {
            self.calms.push(Calm { from, to });
        } else {
            self.tally.restless += 1;
        }
    }

    /// How often members have let go of the address, as their logs say. One that waits for a processor for longer than its lease
    /// loses it, as it must; a time in which that happened on a busy machine is no calm one.
    fn lapses(&self) -> usize {
        let released = |member: &Member| member.output().matches("released vip=").count();
        self.product.members.iter().map(released).sum()
    }

    /// Whether every member answers and has in force what was there when this was asked first.
    fn whole(&self, goal: &mut u64) -> Result<(), String> {
        let status = (0..self.product.members.len()).find_map(|member| {
            let status = self.product.status(&self.lab, member).ok()?;
            (!status.leader.is_empty()).then_some(status)
        });
        let status = status.ok_or("no member knows a leader")?;
        if *goal == 0 {
            *goal = status.revision;
        }
        let behind = status.members.iter().find(|m| !m.reachable || m.in_force_revision < *goal);
        match behind {
            None if status.members.len() == self.product.members.len() => Ok(()),
            None => Err(format!("{} members", status.members.len())),
            Some(member) => Err(format!("goal {goal}: {member:?}")),
        }
    }

    fn judge(
        &mut self,
        clients: Clients,
        surroundings: &Surroundings,
        kept: &Path,
        histories: &mut Vec<Vec<RecordedCall>>,
    ) {
        let findings = &mut self.findings;
        let (recorded, wrong) = clients.registers.finish(&self.lab, &self.product);
        wrong.into_iter().for_each(|what| findings.add(Invariant::NothingLost, what));
        self.tally.created += clients.ledger.finish(&self.lab, &self.product, findings);
        self.tally.streams(clients.streams.finish(self.injector.kills(), findings));
        self.tally.dials(&dials::judge(&clients.prober.finish(), &self.calms, findings));
        std::fs::create_dir_all(kept).unwrap();
        let frames = kept.join("capture.pcap");
        clients.capture.keep(&frames);
        let both = dual(&clients.capture.finish());
        if both == Dual::default() {
            std::fs::remove_dir_all(kept).unwrap();
        } else {
            findings.add(Invariant::OneHolder, format!("{both:?}"));
        }
        surroundings.compare(&self.lab, findings);
        for (register, history) in recorded.iter().enumerate() {
            self.tally.calls += history.len();
            self.tally.unanswered += history.iter().filter(|call| call.end.is_none()).count();
            self.tally.latencies.extend(history.iter().filter_map(|call| Some(call.end? - call.start)));
            if let Judgement::Violation(what) | Judgement::Undecided(what) = judge(0, history) {
                findings.add(Invariant::Linearizable, format!("register {register}: {what}"));
            }
        }
        *histories = recorded;
        self.digests();
    }

    /// Waits until all members have the same state, now that nobody writes.
    fn digests(&mut self) {
        let start = Instant::now();
        let equal = |stage: &Self| {
            let status = stage.product.status(&stage.lab, 0).map_err(|status| status.to_string())?;
            let mut states: Vec<_> = status.members.iter().map(|m| (m.revision, m.digest.clone())).collect();
            states.dedup();
            let all = status.members.len() == stage.product.members.len();
            if all && states.len() == 1 { Ok(()) } else { Err(format!("{:#?}", status.members)) }
        };
        while let Err(why) = equal(self) {
            if start.elapsed() > WHOLE {
                return self.findings.add(Invariant::EqualDigests, why);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the members and copies all that says what has happened.
    fn keep(&mut self, kept: &Path, histories: &[Vec<RecordedCall>]) {
        let _ = std::fs::create_dir_all(kept);
        for member in 0..self.product.members.len() {
            self.lab.members[member].kill();
            let from = self.product.members[member].config().parent().map(PathBuf::from).unwrap();
            let to = kept.join(&self.product.members[member].name);
            let copied = std::panic::catch_unwind(|| trestle_testkit::faults::copy_tree(&from, &to));
            if copied.is_err() {
                eprintln!("{} could not be kept whole", from.display());
            }
        }
        let mut text = self.said.join("\n");
        self.findings.0.iter().for_each(|finding| text += &format!("\n{finding}"));
        let _ = std::fs::write(kept.join("said.txt"), text);
        for (register, history) in histories.iter().enumerate() {
            let mut calls: Vec<_> = history.iter().collect();
            calls.sort_by_key(|call| call.start);
            let lines: Vec<String> = calls.iter().map(ToString::to_string).collect();
            let _ = std::fs::write(kept.join(format!("register-{register}.txt")), lines.join("\n"));
        }
    }
}
