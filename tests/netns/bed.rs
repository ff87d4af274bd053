//! A lab with a cluster in it, and what the tests ask of both.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use trestle_testkit::lab::{Attempt, Capture, Dual, Fault, Lab, Prober, Trestle, Trial, dual, settle};
use trestle_testkit::{skip, wait_for};

/// Long enough for elections and calls on a machine that does other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Time between two connections: what is shown here is no figure, and takes no more of the machine than it must.
const PACE: Duration = Duration::from_millis(5);
/// How long a connection is given: a lost SYN is sent again after a second (RFC 6298, section 2.1).
const PATIENCE: Duration = Duration::from_secs(5);
/// New connections in a row that show who serves.
const ENOUGH: usize = 50;

/// The program of each member.
const DAEMON: &str = env!("CARGO_BIN_EXE_trestled");

/// A lab with a cluster in it.
pub(crate) struct Bed {
    pub(crate) product: Trestle,
    pub(crate) lab: Lab,
    /// Where its program is, if it is not the one that was built.
    _daemon: Option<TempDir>,
    /// Goes last.
    _alone: MutexGuard<'static, ()>,
}

/// One test at a time: each takes all of a small machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // That another test has failed is no reason for this one to.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line of the virtual IPs' history.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) event: String,
    pub(crate) member: String,
    pub(crate) reason: String,
}

impl Bed {
    /// `None`, with a word of explanation, where labs cannot be built.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|_| String::new())
    }

    /// As [`Bed::new`], for tests that tell why leadership went from one member to another: with the timing for slow networks,
    /// members that wait for a processor are not taken for dead.
    pub(crate) fn unhurried() -> Option<Self> {
        Self::unhurried_with(|_| String::new())
    }

    /// As [`Bed::unhurried`], with more lines for the file of each member, by its place.
    pub(crate) fn unhurried_with(more: impl Fn(usize) -> String) -> Option<Self> {
        Self::with(|member| format!("profile = \"wide\"\n{}", more(member)))
    }

    /// As [`Bed::unhurried`], with members that have so many file descriptors.
    pub(crate) fn unhurried_with_descriptors(count: usize) -> Option<Self> {
        Self::unhurried_by(&format!("ulimit -n {count}"))
    }

    /// As [`Bed::unhurried`], with members for which a shell does this first.
    pub(crate) fn unhurried_by(first: &str) -> Option<Self> {
        let dir = TempDir::with_prefix("trestle-limited-").unwrap();
        let daemon = dir.path().join("trestled");
        let script = format!("#!/bin/sh\n{first}\nexec {DAEMON} \"$@\"\n");
        std::fs::write(&daemon, script).unwrap();
        std::fs::set_permissions(&daemon, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(Path::new(DAEMON).with_file_name("trestle"), dir.path().join("trestle"))
            .unwrap();
        let bed = Self::of(&daemon, |_| "profile = \"wide\"\n".to_owned())?;
        Some(Self { _daemon: Some(dir), ..bed })
    }

    /// As [`Bed::new`], with more lines for the file of each member, by its place.
    fn with(more: impl Fn(usize) -> String) -> Option<Self> {
        Self::of(Path::new(DAEMON), more)
    }

    fn of(daemon: &Path, more: impl Fn(usize) -> String) -> Option<Self> {
        let alone = alone();
        let lab = Lab::build()?;
        let product = Trestle::with(&lab, daemon, more);
        Some(Self { product, lab, _daemon: None, _alone: alone })
    }

    /// Runs a trial in which no two members may answer, and after which a member serves.
    pub(crate) fn endure(&mut self, fault: Fault) -> Option<Trial> {
        let trial = self.one_holder(fault)?;
        // However long that takes on a machine that does other things; nothing was started again.
        let after = self.served(self.lab.target(), |_| true);
        Some(Trial { after: Some(after), ..trial })
    }

    /// Runs a trial in which no two members may answer.
    pub(crate) fn one_holder(&mut self, fault: Fault) -> Option<Trial> {
        match Trial::run(&self.lab, &mut self.product, fault, PACE) {
            Ok(trial) => {
                eprintln!("{fault}: {trial:?}");
                assert_eq!(trial.dual, Dual::default(), "{fault}: two members answered: {trial:?}");
                Some(trial)
            }
            Err(why) => {
                skip(&format!("{fault}: {why}"));
                None
            }
        }
    }

    /// Waits until all members run and one holds the virtual address; answers its place.
    pub(crate) fn settle(&mut self) -> usize {
        settle(&self.lab, &mut self.product)
    }

    /// The name of a member.
    pub(crate) fn name(&self, member: usize) -> String {
        self.product.members[member].name.clone()
    }

    /// The member that comes so many places after another one.
    pub(crate) fn after(&self, member: usize, places: usize) -> usize {
        (member + places) % self.product.members.len()
    }

    /// An address of a member itself.
    pub(crate) fn own(&self, member: usize, port: u16) -> SocketAddr {
        (self.lab.members[member].ip, port).into()
    }

    /// Runs the command until it succeeds; answers what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.product.run(&self.lab, arguments)
    }

    /// Why the command refuses.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> String {
        match self.product.try_run(&self.lab, arguments) {
            Ok(output) => panic!("{arguments:?} is not refused: {output}"),
            Err(said) => said,
        }
    }

    /// What the command prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[&["-o", "json"], arguments].concat())).unwrap()
    }

    /// What a member says of itself.
    pub(crate) fn status_of(&self, member: usize) -> Value {
        let status = self.json(&["status"]);
        let name = self.name(member);
        let found = status["members"].as_array().unwrap().iter().find(|one| one["name"] == *name);
        found.unwrap_or_else(|| panic!("{name} is not in {status}")).clone()
    }

    /// Waits until a member says in its status why it is unfit.
    pub(crate) fn unfit(&self, member: usize, words: &str) {
        wait_for(&format!("{words:?} in the status"), LIMIT, || {
            let status = self.status_of(member);
            let said = status["unfit"].as_array().unwrap();
            let found = said.iter().any(|why| why.as_str().unwrap().contains(words));
            if found { Ok(()) } else { Err(format!("{said:?}")) }
        });
    }

    /// Waits until a member says in its status that nothing is wrong with it.
    pub(crate) fn fit(&self, member: usize) {
        wait_for("a status without faults", LIMIT, || {
            let said = self.status_of(member)["unfit"].clone();
            if said.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(said.to_string()) }
        });
    }

    /// Who held the virtual IPs, and why they moved; the last entries, oldest first.
    pub(crate) fn history(&self, last: usize) -> Vec<Entry> {
        let entries = self.json(&["vip", "history"]);
        let entries = entries.as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entry = |e: &Value| Entry {
            event: text(&e["event"]),
            member: text(&e["member"]),
            reason: text(&e["reason"]),
        };
        entries[entries.len().saturating_sub(last)..].iter().map(entry).collect()
    }

    /// Checks the last two entries of the history: one member released for this reason, the other took over.
    pub(crate) fn handed_over(&self, from: usize, to: usize, reason: &str) {
        let history = self.history(2);
        let [released, taken] = &history[..] else { panic!("{history:?}") };
        assert_eq!((&*released.event, &*released.member), ("released", &*self.name(from)), "{history:?}");
        assert!(released.reason.contains(reason), "{reason:?} is not in {history:?}");
        assert_eq!((&*taken.event, &*taken.member), ("taken", &*self.name(to)), "{history:?}");
    }

    /// Waits until a new connection to an address is served by the member that `wanted` accepts.
    pub(crate) fn served(&self, target: SocketAddr, wanted: impl Fn(usize) -> bool) -> usize {
        wait_for(&format!("service at {target}"), LIMIT, || match self.lab.served_at(target) {
            Ok(member) if wanted(member) => Ok(member),
            Ok(member) => Err(format!("it is served by {}", self.name(member))),
            Err(error) => Err(error),
        })
    }

    /// Waits until nobody listens at an address.
    pub(crate) fn refused(&self, target: SocketAddr) {
        wait_for(&format!("refusal at {target}"), LIMIT, || match self.lab.served_at(target) {
            Err(error) if error.contains("refused") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Begins to connect to the virtual address over and over, and to record who answers for it.
    pub(crate) fn watch(&self) -> Watch {
        let capture = self.lab.capture();
        let prober = Prober::start(&self.lab.client, self.lab.target(), PACE, PATIENCE);
        Watch { capture, prober }
    }
}

/// A client and a capture at work.
pub(crate) struct Watch {
    capture: Capture,
    prober: Prober,
}

impl Watch {
    /// Waits until many connections from now on were served by this host.
    pub(crate) fn served_by(&self, host: impl Into<IpAddr>) {
        let (begin, host) = (Instant::now(), host.into());
        wait_for(&format!("service by {host}"), LIMIT, || {
            match self.prober.count(begin, |attempt| attempt.outcome == Ok(host)) {
                count if count >= ENOUGH => Ok(()),
                count => Err(format!("{count} connections")),
            }
        });
    }

    /// Ends both, checks that no two members ever answered, and gives the attempts that failed.
    pub(crate) fn end(self) -> Vec<Attempt> {
        let attempts = self.prober.finish();
        assert_eq!(dual(&self.capture.finish()), Dual::default(), "two members answered");
        attempts.into_iter().filter(|attempt| attempt.outcome.is_err()).collect()
    }
}
