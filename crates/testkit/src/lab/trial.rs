//! One fault, and what it did to clients.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::answers::{Dual, dual};
use super::capture::since_epoch;
use super::cut::Cut;
use super::freezer::Freezer;
use super::prober::{Attempt, Gap, ProbeFailure, Prober, gap};
use super::{Lab, MEMBERS, Product, VIP};
use crate::wait::wait_for;

/// Long enough for restarts and elections on a machine that does other things, and for keepalived.
const LIMIT: Duration = Duration::from_secs(60);
/// Successes in a row before a fault.
const WARM: usize = 100;
/// Successes through another member after which a fault has been dealt with.
const BACK: usize = 100;
/// How long a connection is given when nothing fails: longer than it takes to send a lost SYN again (RFC 6298, section 2.1),
/// and that once more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the way back from a fault is watched: a stopped holder that goes on, a partition that heals.
const AFTER: Duration = Duration::from_secs(1);
/// How long a fault that nobody deals with is watched.
const ENOUGH: Duration = Duration::from_secs(8);
/// How long an address that stays is watched.
const STAYS: Duration = Duration::from_secs(4);

/// What happens to the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to all of its processes.
    Kill,
    /// SIGTERM to all of its processes, as a service manager stops them.
    Terminate,
    /// Its cable comes out of the switch, and back when another member serves.
    Cable,
    /// It falls silent and is gone, as by a loss of power.
    PowerOff,
    /// SIGSTOP to all of its processes, SIGCONT after this time.
    Stop(Duration),
    /// Its processes are frozen by their control group for this time.
    Freeze(Duration),
    /// This cut for this time; the holder counts as member 0, the others follow it.
    Cut(Cut, Duration),
    /// Its operator moves the address.
    Move,
    /// Somebody deletes the address on it.
    Delete,
    /// Its cable is out for this time.
    Flap(Duration),
    /// SIGKILL to all processes of all others.
    Alone,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("SIGKILL"),
            Self::Terminate => f.write_str("SIGTERM"),
            Self::Cable => f.write_str("cable pulled"),
            Self::PowerOff => f.write_str("power off"),
            Self::Stop(time) => write!(f, "SIGSTOP for {time:?}"),
            Self::Freeze(time) => write!(f, "frozen for {time:?}"),
            Self::Cut(Cut::Both(_), time) => write!(f, "cut off for {time:?}"),
            Self::Cut(Cut::From(_), time) => write!(f, "not heard for {time:?}"),
            Self::Cut(Cut::To(_), time) => write!(f, "hears nothing for {time:?}"),
            Self::Cut(Cut::Between(..), time) => write!(f, "cut from one for {time:?}"),
            Self::Move => f.write_str("planned move"),
            Self::Delete => f.write_str("address deleted"),
            Self::Flap(time) => write!(f, "link down for {time:?}"),
            Self::Alone => f.write_str("quorum lost"),
        }
    }
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Who had the address before.
    pub holder: usize,
    /// Who served the last answer; `None` when nobody did at the end.
    pub after: Option<usize>,
    /// The longest time without a new connection.
    pub gap: Gap,
    /// Answers of two.
    pub dual: Dual,
    /// New connections that failed. What is given up counts: after 300 ms, or 5 s when the holder was moved or stopped.
    pub failed: BTreeMap<ProbeFailure, usize>,
    /// From the fault to the former holder's last answer.
    pub silent: Duration,
    /// From the fault until the holder's kernel did not have the address any more; `None` when it stayed, or was not
    /// looked for.
    pub gone: Option<Duration>,
    /// How long the fault was watched.
    pub watched: Duration,
}

/// Waits until exactly one member holds the address and serves it, and the product is whole. Starts what does not run.
///
/// # Panics
/// When that takes more than 60 s.
pub fn settle(lab: &Lab, product: &mut dyn Product) -> usize {
    product.start(lab);
    let what = format!("{} with one holder", product.name());
    let mut in_a_row = (None, 0);
    wait_for(&what, LIMIT, || {
        let holder = served_by_its_holder(lab).and_then(|holder| {
            product.settled(lab, holder)?;
            Ok(holder)
        });
        match &holder {
            Ok(holder) if in_a_row.0 == Some(*holder) => in_a_row.1 += 1,
            found => in_a_row = (found.as_ref().ok().copied(), 1),
        }
        holder.and_then(|holder| if in_a_row.1 >= 5 { Ok(holder) } else { Err("too new".to_owned()) })
    })
}

fn served_by_its_holder(lab: &Lab) -> Result<usize, String> {
    let [holder] = lab.holders()[..] else { return Err(format!("holders: {:?}", lab.holders())) };
    let member = lab.served_by()?;
    if member == holder { Ok(holder) } else { Err(format!("member {holder} has it, {member} serves")) }
}

impl Trial {
    /// Waits for a settled product, breaks it, watches, and mends it. A client connects at this pace meanwhile.
    ///
    /// # Errors
    /// Why this fault cannot be had here.
    ///
    /// # Panics
    /// When the product does not settle, or an observer fails.
    pub fn run(lab: &Lab, product: &mut dyn Product, fault: Fault, pace: Duration) -> Result<Self, String> {
        let holder = settle(lab, product);
        let freezer = match fault {
            Fault::Freeze(_) => Some(Freezer::around(&lab.members[holder])?),
            _ => None,
        };
        let capture = lab.capture();
        let planned = matches!(fault, Fault::Move | Fault::Terminate);
        let patience = if planned { PATIENCE } else { Duration::from_millis(300) };
        let begin = Instant::now();
        let prober = Prober::start(&lab.client, lab.target(), pace, patience);
        wait_for("answers before the fault", LIMIT, || {
            let count = prober.count(begin, |attempt| attempt.outcome.is_ok());
            if count >= WARM { Ok(()) } else { Err(format!("{count} answers")) }
        });
        let (at, stamp) = (Instant::now(), since_epoch());
        let scene = Scene { lab, prober: &prober, holder, at };
        let gone = scene.play(product, fault, freezer.as_ref());
        let healed = Instant::now();
        if scene.heal(fault) {
            // The way back is a part of the fault; there is nothing to wait for, as nothing should happen.
            std::thread::sleep(AFTER);
        }
        let attempts = prober.finish();
        let answers = capture.finish();
        if fault == Fault::PowerOff {
            // The machine comes back as it would: without addresses that somebody put there.
            if lab.members[holder].has(VIP) {
                lab.members[holder].delete_address(VIP);
            }
            lab.cable(holder, true);
        }
        let during: Vec<Attempt> = attempts.iter().filter(|a| a.end <= healed).cloned().collect();
        let mut failed = BTreeMap::new();
        for failure in attempts.iter().filter_map(|attempt| attempt.outcome.err()) {
            *failed.entry(failure).or_default() += 1;
        }
        let own = answers.iter().filter(|answer| answer.mac == lab.members[holder].mac);
        let last = own.map(|answer| answer.at).next_back().unwrap_or_default();
        let recent = attempts.iter().rev().take(WARM).find_map(|attempt| attempt.outcome.ok());
        Ok(Self {
            holder,
            after: recent.and_then(|ip| lab.members.iter().position(|member| member.ip == ip)),
            gap: gap(&during, at, healed),
            dual: dual(&answers),
            failed,
            silent: last.saturating_sub(stamp),
            gone,
            watched: at.elapsed(),
        })
    }
}

/// A fault under way.
struct Scene<'a> {
    lab: &'a Lab,
    prober: &'a Prober,
    holder: usize,
    at: Instant,
}

impl Scene<'_> {
    /// Makes the fault and returns when it has been dealt with; answers when the address was gone, where that is looked
    /// for.
    fn play(&self, product: &mut dyn Product, fault: Fault, freezer: Option<&Freezer>) -> Option<Duration> {
        let (lab, host) = (self.lab, &self.lab.members[self.holder]);
        match fault {
            Fault::Kill => host.kill(),
            Fault::Terminate => host.signal(Signal::TERM),
            Fault::Cable => lab.cable(self.holder, false),
            Fault::PowerOff => {
                lab.cable(self.holder, false);
                host.kill();
            }
            Fault::Stop(time) => {
                host.signal(Signal::STOP);
                std::thread::sleep(time);
                host.signal(Signal::CONT);
            }
            Fault::Freeze(time) => {
                let freezer = freezer.expect("made before");
                freezer.freeze(true);
                std::thread::sleep(time);
                freezer.freeze(false);
            }
            Fault::Cut(cut, time) => {
                lab.cut(Some(cut.around(self.holder)));
                std::thread::sleep(time);
            }
            Fault::Move => product.hand_over(lab, self.holder),
            Fault::Delete => host.delete_address(VIP),
            Fault::Flap(time) => {
                lab.cable(self.holder, false);
                std::thread::sleep(time);
                lab.cable(self.holder, true);
            }
            Fault::Alone => {
                for other in (0..MEMBERS).filter(|member| *member != self.holder) {
                    lab.members[other].kill();
                }
            }
        }
        self.watch(fault)
    }

    fn watch(&self, fault: Fault) -> Option<Duration> {
        let host = &self.lab.members[self.holder];
        let looks = matches!(fault, Fault::Kill | Fault::Alone);
        let moves =
            matches!(fault, Fault::Kill | Fault::Terminate | Fault::Cable | Fault::PowerOff | Fault::Move);
        let ends = matches!(fault, Fault::Alone);
        let own = std::net::IpAddr::from(host.ip);
        let start = Instant::now();
        let mut gone = None;
        loop {
            if looks && gone.is_none() && !host.has(VIP) {
                gone = Some(self.at.elapsed());
            }
            let served = |attempt: &Attempt| attempt.outcome.is_ok_and(|by| !moves || by != own);
            let back = ends || self.prober.count(start, served) >= BACK;
            let looked = !looks || gone.is_some() || self.at.elapsed() > STAYS;
            if (back && looked) || start.elapsed() > ENOUGH {
                return gone;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the fault; answers whether there was anything to end, so that it is worth watching.
    fn heal(&self, fault: Fault) -> bool {
        match fault {
            Fault::Cable => self.lab.cable(self.holder, true),
            Fault::Cut(..) => self.lab.cut(None),
            Fault::Stop(_) | Fault::Freeze(_) => {}
            _ => return false,
        }
        true
    }
}
