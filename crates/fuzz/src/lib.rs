//! Changes real inputs of a parser at random and checks that what must hold for any input does.
//!
//! Mutation of a corpus, because random bytes never get past a checksum or a length. Inputs with an outcome that was not
//! seen before are kept and changed further. bolero does not mutate on stable Rust, and libFuzzer wants its own main program
//! and public parsers; this runs as a test beside the private ones.

mod coverage;
mod mutate;
mod shrink;

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutate::Mutator;
pub use mutate::Repair;

/// Inputs of a run in `cargo test`.
const INPUTS: u64 = 20_000;

/// Inputs that are tried whatever time that takes: with fewer, a test finds too little on a machine that is busy with others.
const INPUTS_MIN: u64 = 8_000;

/// Time in `cargo test` after which no more than those are tried.
const TIME_MAX: Duration = Duration::from_secs(4);

/// Seed of the runs in `cargo test`.
const SEED: u64 = 0x7e57_1e5e;

/// Most inputs that are kept for further changes; then one at random gives way.
const KEPT_MAX: usize = 4096;

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Inputs that were tried.
    pub inputs: u64,
    /// Outcomes that differ from one another.
    pub outcomes: usize,
    /// Edges of the code that were taken, in steps of how often; 0 without the compiler's counters.
    pub edges: usize,
}

/// A parser under test.
pub struct FuzzTarget<'a> {
    /// What `cargo xtask fuzz` calls it.
    pub name: &'a str,
    /// Real inputs, at least one.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something in the protocol.
    pub words: &'a [&'a [u8]],
    /// Longest input that is made, in bytes.
    pub len_max: usize,
    /// Makes lengths and checksums right again after half of the changes; they would hide what is behind them.
    pub repair: Option<Repair>,
}

/// Runs `check` on changed inputs. It asserts what must hold, and answers something that tells outcomes apart: the variant
/// of an error, or how far the parser came, not the whole value.
///
/// # Panics
/// When `check` panics; the message says with which input.
pub fn fuzz<Outcome: Hash>(target: &FuzzTarget<'_>, check: impl Fn(&[u8]) -> Outcome) -> Summary {
    let long = std::env::var("TRESTLE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (time, least, most) = match long {
        Some(seconds) => (Duration::from_secs(seconds), 0, u64::MAX),
        None => (TIME_MAX, INPUTS_MIN, INPUTS),
    };
    let seed = match long {
        Some(_) => fastrand::u64(..),
        None => SEED,
    };
    let mut run = Run::new(target, &check, seed, long.is_some());
    let end = Instant::now() + time;
    run.start();
    while run.summary.inputs < most && (run.summary.inputs < least || Instant::now() < end) {
        run.step();
    }
    let summary = run.summary;
    if long.is_some() {
        tell(&format!("{}: seed {seed:#x}, {summary:?}, {} kept", target.name, run.kept.len()));
    }
    summary
}

#[expect(clippy::print_stderr, reason = "a long run says what it did")]
fn tell(line: &str) {
    eprintln!("{line}");
}

struct Run<'a, Check> {
    target: &'a FuzzTarget<'a>,
    check: &'a Check,
    mutator: Mutator<'a>,
    kept: Vec<Vec<u8>>,
    outcomes: HashSet<u64>,
    edges: coverage::Seen,
    /// New inputs are written down for the next long run.
    remember: bool,
    summary: Summary,
}

impl<'a, Outcome: Hash, Check: Fn(&[u8]) -> Outcome> Run<'a, Check> {
    fn new(target: &'a FuzzTarget<'a>, check: &'a Check, seed: u64, remember: bool) -> Self {
        assert!(!target.seeds.is_empty(), "{} has no inputs to start from", target.name);
        Self {
            target,
            check,
            mutator: Mutator::new(seed, target.words, target.len_max),
            kept: Vec::new(),
            outcomes: HashSet::new(),
            edges: coverage::Seen::default(),
            remember,
            summary: Summary { inputs: 0, outcomes: 0, edges: 0 },
        }
    }

    /// Tries the real inputs as they are, and what earlier long runs kept.
    fn start(&mut self) {
        for input in &self.target.seeds {
            self.attempt(input);
            self.kept.push(input.clone());
        }
        let earlier = if self.remember { read_all(&self.directory("corpus")) } else { Vec::new() };
        for input in earlier.into_iter().take(KEPT_MAX) {
            if self.attempt(&input) {
                self.kept.push(input);
            }
        }
    }

    fn step(&mut self) {
        let mut input = self.mutator.changed(&self.kept);
        if let Some(repair) = self.target.repair.filter(|_| self.mutator.even()) {
            repair(&mut input);
        }
        if !self.attempt(&input) {
            return;
        }
        if self.remember {
            self.write("corpus", &input);
        }
        if self.kept.len() < KEPT_MAX {
            self.kept.push(input);
        } else {
            let place = self.mutator.below(KEPT_MAX);
            self.kept[place] = input;
        }
    }

    /// Whether the outcome is new.
    fn attempt(&mut self, input: &[u8]) -> bool {
        self.summary.inputs += 1;
        coverage::reset();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.check)(input)));
        let Ok(outcome) = outcome else { self.fail(input) };
        let mut hasher = DefaultHasher::new();
        outcome.hash(&mut hasher);
        let new = self.outcomes.insert(hasher.finish()) | self.edges.note();
        self.summary.outcomes = self.outcomes.len();
        self.summary.edges = self.edges.count();
        new
    }

    fn fail(&self, input: &[u8]) -> ! {
        let smaller = shrink::shrink(input, |input| (self.check)(input));
        let path = self.write("failures", &smaller);
        tell(&format!("{}: what fails is in {}", self.target.name, path.display()));
        // Once more, so that its own message is the last.
        (self.check)(&smaller);
        not_again(self.target.name, &smaller)
    }

    fn directory(&self, kind: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/fuzz"))
            .join(kind)
            .join(self.target.name)
    }

    fn write(&self, kind: &str, input: &[u8]) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let path = self.directory(kind).join(format!("{:016x}.bin", hasher.finish()));
        let written =
            std::fs::create_dir_all(self.directory(kind)).and_then(|()| std::fs::write(&path, input));
        if let Err(error) = written {
            tell(&format!(
                "{}: {error}; the input is {:?}",
                path.display(),
                input.escape_ascii().to_string()
            ));
        }
        path
    }
}

#[expect(clippy::panic, reason = "a test that fails")]
fn not_again(name: &str, input: &[u8]) -> ! {
    let input = input.escape_ascii();
    panic!("{name}: failed once and not again, with \"{input}\": its outcome depends on more than its input")
}

/// The words of a text that have no digit, without what it quotes: what tells kinds of errors apart.
pub fn gist(text: &impl Display) -> String {
    let text = text.to_string();
    let quoted = text.find('"').zip(text.rfind('"'));
    let unquoted = quoted.map_or([&*text, ""], |(first, last)| [&text[..first], &text[last..]]);
    let words = unquoted.iter().flat_map(|part| part.split_whitespace());
    words.filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

fn read_all(directory: &std::path::Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Every file of a directory of inputs, in the order of their names.
///
/// # Panics
/// When there is none: the test looks in the wrong place.
pub fn corpus(directory: impl Into<PathBuf>) -> Vec<Vec<u8>> {
    let directory = directory.into();
    let found = read_all(&directory);
    assert!(!found.is_empty(), "no inputs in {}", directory.display());
    found
}

#[cfg(test)]
mod tests;
