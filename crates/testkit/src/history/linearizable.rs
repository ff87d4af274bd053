//! Whether a history is linearizable (Herlihy and Wing, 1990): every call can be given one moment between its start and its end at
//! which it took effect, so that a register that does one thing at a time answers as the clients saw.
//!
//! The search is Lowe's just-in-time linearization ("Testing for linearizability", 2017): calls and answers are gone through in order
//! of time, with all the states in which the register may be. stateright's tester keeps no states that it has seen, so that a
//! history of more than some twenty calls takes it for ever.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::{RecordedCall, RegisterCall};

/// States beyond which the search gives up. A history of a few clients has some tens.
const STATES_MAX: usize = 200_000;

/// Calls under way at once, those that were never answered among them, which a state has a bit for.
const OPEN_MAX: usize = 128;

/// Operations that a violation is told with.
const TOLD: usize = 24;

/// What there is to say about a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// One register could have answered so.
    Linearizable,
    /// No register could have, in words: up to which answer one could have, and what was under way.
    Violation(String),
    /// Too much was possible at once, in words.
    Undecided(String),
}

/// What may be so: which of the open calls have taken effect, and what the register has.
type State = (u128, u64);

/// A call under way. Its place among the open ones is its bit in a state.
type Open = Option<RecordedCall>;

/// Judges the history of one register that began with this value. Operations may be in any order.
pub fn judge(initial: u64, operations: &[RecordedCall]) -> Judgement {
    let mut search = Search { open: Vec::new(), states: HashSet::from([(0, initial)]) };
    for (at, is_end, number) in events(operations) {
        let operation = &operations[number];
        let possible = if is_end { search.answer(operation) } else { search.call(*operation) };
        match possible {
            Err(why) => return Judgement::Undecided(format!("{why} at {:.6}", at.as_secs_f64())),
            Ok(()) if search.states.is_empty() => {
                return Judgement::Violation(told(initial, operations, operation));
            }
            Ok(()) => {}
        }
    }
    Judgement::Linearizable
}

/// Starts and ends in order of time; at one moment starts come first, which allows more.
fn events(operations: &[RecordedCall]) -> Vec<(Duration, bool, usize)> {
    let starts = operations.iter().enumerate().map(|(number, operation)| (operation.start, false, number));
    let ends = operations.iter().enumerate().filter_map(|(number, o)| o.end.map(|end| (end, true, number)));
    let mut events: Vec<_> = starts.chain(ends).collect();
    events.sort_unstable();
    events
}

struct Search {
    open: Vec<Open>,
    states: HashSet<State>,
}

impl Search {
    fn call(&mut self, operation: RecordedCall) -> Result<(), String> {
        match self.open.iter().position(Option::is_none) {
            Some(free) => self.open[free] = Some(operation),
            None if self.open.len() < OPEN_MAX => self.open.push(Some(operation)),
            None => return Err(format!("{OPEN_MAX} calls are under way at once")),
        }
        Ok(())
    }

    /// From here on this call has taken effect: keeps the states in which it can have.
    fn answer(&mut self, operation: &RecordedCall) -> Result<(), String> {
        let place = self.open.iter().position(|open| open.as_ref() == Some(operation));
        let Some(place) = place else { return Err("a call ends that did not begin".to_owned()) };
        let mut kept = HashSet::new();
        let mut seen = self.states.clone();
        let mut left: Vec<State> = self.states.drain().collect();
        while let Some((done, value)) = left.pop() {
            if done >> place & 1 == 1 {
                kept.insert((done & !(1 << place), value));
                continue;
            }
            for (bit, call) in self.steps(done, value, place) {
                if let Some(value) = effect(value, call) {
                    let next = (done | 1 << bit, value);
                    if seen.insert(next) {
                        left.push(next);
                    }
                }
            }
            if seen.len() > STATES_MAX {
                return Err(format!("more than {STATES_MAX} states are possible"));
            }
        }
        self.open[place] = None;
        self.states = self.without_idle(&kept);
        Ok(())
    }

    /// What may take effect next. A write that was never answered need not have: it counts only where somebody saw it.
    fn steps(&self, done: u128, value: u64, place: usize) -> Vec<(usize, RegisterCall)> {
        let open = |(bit, open): (usize, &Open)| open.as_ref().map(|operation| (bit, *operation));
        let waiting: Vec<_> = self.open.iter().enumerate().filter_map(open).collect();
        let waiting: Vec<_> = waiting.into_iter().filter(|(bit, _)| done >> bit & 1 == 0).collect();
        let is_wanted = |written: u64| {
            waiting.iter().any(|(bit, other)| match other.call {
                RegisterCall::Read(seen) => seen == written,
                RegisterCall::Swap(expected, _) => expected == written,
                RegisterCall::Refused(expected) => *bit == place && expected == value,
                RegisterCall::Write(_) => false,
            })
        };
        let useful = |operation: &RecordedCall| {
            operation.end.is_some()
                || match operation.call {
                    RegisterCall::Write(written) | RegisterCall::Swap(_, written) => is_wanted(written),
                    RegisterCall::Read(_) | RegisterCall::Refused(_) => false,
                }
        };
        waiting.iter().filter(|(_, o)| useful(o)).map(|(bit, o)| (*bit, o.call)).collect()
    }

    /// Leaves out states that differ from another one only in that more unanswered writes have taken effect: those can go on in no
    /// way in which the other cannot.
    fn without_idle(&self, states: &HashSet<State>) -> HashSet<State> {
        let unanswered = |bit: &usize| self.open[*bit].as_ref().is_some_and(|open| open.end.is_none());
        let bits: Vec<usize> = (0..self.open.len()).filter(unanswered).collect();
        let idle = |(done, value): &&State| {
            bits.iter().any(|bit| done >> bit & 1 == 1 && states.contains(&(done & !(1 << bit), *value)))
        };
        states.iter().filter(|state| !idle(state)).copied().collect()
    }
}

/// What the register has after a call, if it may be answered so.
fn effect(value: u64, call: RegisterCall) -> Option<u64> {
    match call {
        RegisterCall::Read(seen) => (seen == value).then_some(value),
        RegisterCall::Write(new) => Some(new),
        RegisterCall::Swap(expected, new) => (expected == value).then_some(new),
        RegisterCall::Refused(expected) => (expected != value).then_some(value),
    }
}

/// The answer that nothing explains, with what came before it.
fn told(initial: u64, operations: &[RecordedCall], wrong: &RecordedCall) -> String {
    let mut text = format!("no register that began with {initial} answers so: {wrong}");
    let mut before: Vec<&RecordedCall> =
        operations.iter().filter(|o| Some(o.start) <= wrong.end && *o != wrong).collect();
    before.sort_by_key(|operation| (operation.end.is_none(), operation.end, operation.start));
    let unanswered = before.iter().filter(|operation| operation.end.is_none()).count();
    let answered = &before[..before.len() - unanswered];
    let recent: BTreeSet<_> = answered.iter().rev().take(TOLD).map(|o| (o.start, o.to_string())).collect();
    recent.iter().for_each(|(_, line)| write!(text, "\n  {line}").unwrap());
    write!(text, "\n  and {unanswered} writes before it were never answered").unwrap();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "a w1 0 5" is client a, a write of 1, from 0 to 5; "-" for no end, "r2" reads, "s1>2" swaps, "x1" is refused.
    fn history(text: &str) -> Vec<RecordedCall> {
        let number = |text: &str| text.parse::<u64>().unwrap();
        let operation = |line: &str| {
            let [client, call, start, end] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let call = match call.split_at(1) {
                ("w", value) => RegisterCall::Write(number(value)),
                ("r", value) => RegisterCall::Read(number(value)),
                ("x", value) => RegisterCall::Refused(number(value)),
                ("s", values) => {
                    let (from, to) = values.split_once('>').unwrap();
                    RegisterCall::Swap(number(from), number(to))
                }
                _ => panic!("{line}"),
            };
            let end = (end != "-").then(|| Duration::from_millis(number(end)));
            let client = usize::from(client.as_bytes()[0] - b'a');
            RecordedCall { client, call, start: Duration::from_millis(number(start)), end }
        };
        text.split(';').map(operation).collect()
    }

    fn is_linearizable(text: &str) -> bool {
        match judge(0, &history(text)) {
            Judgement::Linearizable => true,
            Judgement::Violation(_) => false,
            undecided @ Judgement::Undecided(_) => panic!("{text}: {undecided:?}"),
        }
    }

    #[test]
    fn what_one_register_would_answer_is_linearizable() {
        for text in [
            "a r0 0 1; a w1 2 3; b r1 4 5",
            // While a write is under way others see it or not, but not first so and then otherwise.
            "a w1 0 9; b r0 1 2; b r1 3 4; c r1 5 6",
            "a w1 0 9; b w2 0 9; c r1 10 11",
            "a w1 0 9; b w2 0 9; c r2 10 11",
            "a w1 0 1; b s1>2 2 3; c x1 4 5; c r2 6 7",
            // Never answered, and seen, or not, or late.
            "a w1 0 -; b r0 1 2; b r1 3 4",
            "a w1 0 -; b r0 1 2; b r0 3 4",
            "a w1 0 -; b w2 1 2; b r2 3 4; b r1 5 6",
            "a w1 0 -; b s1>2 1 -; c r2 5 6",
            // Only an unanswered write explains a refusal.
            "a w1 0 -; b x0 1 2; b r1 3 4",
        ] {
            assert!(is_linearizable(text), "{text}");
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        for text in [
            "a w1 0 1; b r0 2 3",
            "a w1 0 9; b r1 1 2; c r0 3 4",
            "a w1 0 -; b r1 1 2; c r0 3 4",
            "a w1 0 1; a w2 2 3; b r2 4 5; c r1 6 7",
        ] {
            assert!(!is_linearizable(text), "{text}");
        }
    }

    #[test]
    fn a_lost_write_is_found() {
        for text in ["a w1 0 1; b r1 2 3; a w2 4 5; b r1 6 7", "a w1 0 1; a s1>2 2 3; b s1>3 4 5"] {
            assert!(!is_linearizable(text), "{text}");
        }
    }

    #[test]
    fn a_write_that_is_applied_twice_is_found() {
        for text in ["a w1 0 4; b w2 5 6; b r1 7 8", "a w1 0 -; b r1 1 2; b w2 3 4; b r2 5 6; b r1 7 8"] {
            assert!(!is_linearizable(text), "{text}");
        }
    }

    #[test]
    fn a_write_that_was_refused_and_applied_is_found() {
        for text in ["a w1 0 1; b x0 2 3; b r2 4 5", "a w1 0 1; b x1 2 3", "a s0>1 0 1; b s0>2 2 3"] {
            assert!(!is_linearizable(text), "{text}");
        }
    }

    /// Clients of a real register: each call takes effect at a moment within it.
    fn of_a_register(random: &mut fastrand::Rng, calls: u64) -> Vec<RecordedCall> {
        let mut moments: Vec<(u64, u64, usize)> = Vec::new();
        for client in 0..4 {
            let mut now = random.u64(0..10);
            for _ in 0..calls {
                let (start, length) = (now, random.u64(2..30));
                moments.push((start + random.u64(1..length), start << 32 | (start + length), client));
                now = start + length + random.u64(1..5);
            }
        }
        moments.sort_unstable();
        let (mut value, mut next) = (0, 0_u64);
        let mut operations = Vec::new();
        for (at, span, client) in moments {
            let (start, mut end) = (Duration::from_millis(span >> 32), Some(span & 0xffff_ffff));
            let call = match random.u8(..10) {
                0..5 => RegisterCall::Read(value),
                kind => {
                    next += 1;
                    let expected = if random.bool() { value } else { next.saturating_sub(3) };
                    let (call, is_applied) = match kind {
                        5..8 => (RegisterCall::Write(next), true),
                        _ if expected == value => (RegisterCall::Swap(expected, next), true),
                        _ => (RegisterCall::Refused(expected), false),
                    };
                    // One in eight is never answered, and half of those were lost on the way.
                    let lost = random.u8(..8) == 0;
                    if lost && matches!(call, RegisterCall::Write(_) | RegisterCall::Swap(..)) {
                        end = None;
                    }
                    if is_applied && !(end.is_none() && random.bool()) {
                        value = next;
                    }
                    call
                }
            };
            let end = end.map(Duration::from_millis);
            assert!(end.is_none_or(|end| end > Duration::from_millis(at)));
            operations.push(RecordedCall { client, call, start, end });
        }
        operations
    }

    #[test]
    fn histories_of_a_register_are_linearizable_and_those_with_one_old_read_are_not() {
        let (mut decided, mut found) = (0, 0);
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut history = of_a_register(&mut random, 60);
            assert_eq!(judge(0, &history), Judgement::Linearizable, "seed {seed}");
            decided += 1;
            // What was there at the beginning is long gone.
            let late = |o: &&mut RecordedCall| {
                matches!(o.call, RegisterCall::Read(_)) && o.start > Duration::from_millis(500)
            };
            history.iter_mut().find(late).unwrap().call = RegisterCall::Read(0);
            found += usize::from(matches!(judge(0, &history), Judgement::Violation(_)));
        }
        assert_eq!((decided, found), (200, 200));
    }
}
