//! The shipped stack, and what the tests ask of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use trestle_testkit::containers::{MEMBERS, Stack, is_available, test_image};
use trestle_testkit::lab::{Attempt, Capture, Dual, Prober, dual, gap};
use trestle_testkit::{fetch_http, wait_for};

/// Long enough for containers, elections and calls on a machine that does other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// How long clients may be without an answer when the holder is lost. It is half a second with the default timing, and some with that for
/// slow networks, which tests have; this is no figure but a deadline, for programs without optimisation on a busy machine.
pub(crate) const OUTAGE: Duration = Duration::from_secs(30);
/// Time between two connections.
const PACE: Duration = Duration::from_millis(10);
/// How long a connection is given: a lost SYN is sent again after a second (RFC 6298, section 2.1).
const PATIENCE: Duration = Duration::from_secs(3);
/// New connections in a row that show who serves.
const ENOUGH: usize = 50;

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The image under test.
pub(crate) fn image() -> &'static str {
    test_image(Path::new(env!("CARGO_BIN_EXE_trestled")))
}

/// One test at a time: each takes all of a small machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // That another test has failed is no reason for this one to.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stack that serves.
pub(crate) struct Bed {
    pub(crate) stack: Stack,
    /// Goes last.
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    /// `None`, with a word of explanation, where there is no engine.
    pub(crate) fn new() -> Option<Self> {
        if !is_available() {
            return None;
        }
        let alone = alone();
        let stack = Stack::up(&root().join("deploy"), image());
        assert_eq!(stack.ended("setup"), 0, "{}", stack.logs("setup"));
        let bed = Self { stack, _alone: alone };
        bed.settle();
        Some(bed)
    }

    /// Waits until all members are ready and vote, and the virtual IP is served; answers by whom.
    pub(crate) fn settle(&self) -> &'static str {
        for member in MEMBERS {
            wait_for(&format!("readiness of {member}"), LIMIT, || {
                match self.stack.inspect(member, "{{.State.Health.Status}}").as_str() {
                    "healthy" => Ok(()),
                    other => Err(format!("{other}: {}", self.stack.logs(member))),
                }
            });
        }
        self.without_problems();
        self.served(|_| true)
    }

    /// Waits until three voters agree, and nothing is wrong with any member or virtual IP.
    pub(crate) fn without_problems(&self) {
        wait_for("a status without problems", LIMIT, || {
            let status = self.json(&["status"])?;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let good = |member: &&Value| member["role"] == "voter" && member["reachable"] == true;
            let problems = status["problems"].as_array().is_some_and(Vec::is_empty);
            let same = members.iter().all(|member| member["digest"] == members[0]["digest"]);
            match members.iter().filter(good).count() {
                3 if problems && same => Ok(()),
                voters => Err(format!("{voters} voters: {status:#}")),
            }
        });
    }

    /// What the command prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let printed = self.stack.trestle(&[&["-o", "json"], arguments].concat())?;
        serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}"))
    }

    /// The member that serves a new connection now, by the address from which its backend was asked.
    fn served_by(&self) -> Result<&'static str, String> {
        let answer = fetch_http(self.stack.target())?;
        let from = answer.rsplit(' ').next().and_then(|from| from.parse::<Ipv4Addr>().ok());
        let from = from.ok_or_else(|| format!("no sample backend: {answer:?}"))?;
        let running = |member: &&&str| self.stack.inspect(member, "{{.State.Running}}") == "true";
        let attached = |member: &&&str| {
            let template = format!(
                "{{{{with index .NetworkSettings.Networks \"{}\"}}}}{{{{.IPAddress}}}}{{{{end}}}}",
                self.stack.name
            );
            self.stack.inspect(member, &template) == from.to_string()
        };
        let found = MEMBERS.iter().filter(running).find(attached);
        found.copied().ok_or_else(|| format!("{from} is no member's"))
    }

    /// Waits until new connections are served by a member that `wanted` accepts; answers which.
    pub(crate) fn served(&self, wanted: impl Fn(&str) -> bool) -> &'static str {
        wait_for("service at the virtual IP", LIMIT, || match self.served_by() {
            Ok(member) if wanted(member) => Ok(member),
            Ok(member) => Err(format!("it is served by {member}")),
            Err(why) => Err(why),
        })
    }

    /// Waits until nobody serves the virtual IP.
    pub(crate) fn served_by_nobody(&self) {
        wait_for("an end of service at the virtual IP", LIMIT, || match self.served_by() {
            Ok(member) => Err(format!("it is served by {member}")),
            Err(_) => Ok(()),
        });
    }

    /// Begins to connect to the virtual IP over and over, and to record who answers for it.
    pub(crate) fn watch(&self) -> Watch {
        let target = self.stack.target();
        let capture = Capture::here(target.ip());
        Watch { capture, prober: Prober::here(target, PACE, PATIENCE) }
    }
}

/// A client and a capture at work.
pub(crate) struct Watch {
    capture: Capture,
    prober: Prober,
}

impl Watch {
    /// Waits until many connections from now on were served by the member with this address.
    pub(crate) fn served_by(&self, member: Ipv4Addr) {
        let begin = Instant::now();
        wait_for(&format!("service by {member}"), LIMIT, || {
            match self.prober.count(begin, |attempt| attempt.outcome == Ok(IpAddr::V4(member))) {
                count if count >= ENOUGH => Ok(()),
                count => Err(format!("{count} connections")),
            }
        });
    }

    /// Ends both; checks that no two members ever answered, and that clients were not without an answer for longer than `most` after
    /// `fault`.
    pub(crate) fn end(self, what: &str, fault: Instant, most: Duration) -> Vec<Attempt> {
        let attempts = self.prober.finish();
        assert_eq!(dual(&self.capture.finish()), Dual::default(), "{what}: two members answered");
        let gap = gap(&attempts, fault, Instant::now());
        let failed = attempts.iter().filter(|attempt| attempt.outcome.is_err()).count();
        eprintln!(
            "{what}: {} connections, {failed} failed, {:.2} s without an answer",
            attempts.len(),
            gap.length.as_secs_f64()
        );
        assert!(gap.length < most, "{what}: {gap:?}");
        attempts
    }
}
