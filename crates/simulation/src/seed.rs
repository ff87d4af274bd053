//! Runs seeds, each in a process of its own: every run begins with the same memory, and what one leaves behind no other one has.

#![expect(unsafe_code, reason = "fork, and the end of a process without what follows main")]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::interpose;
use crate::trace::Trace;
use crate::world::{Planted, RunOutcome, Simulation};

/// Seconds of the processor after which a run counts as one that does not end.
const LONGEST: u64 = 120;

/// A run that goes on.
pub(crate) struct Running {
    pub(crate) seed: u64,
    process: libc::pid_t,
    answer: File,
}

/// Starts a run.
pub(crate) fn start(seed: u64, planted: Option<Planted>, verbose: bool) -> io::Result<Running> {
    let mut ends = [0; 2];
    // SAFETY: the two numbers can be written.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this process has one thread, so nothing can be half done in the new one.
    let process = unsafe { libc::fork() };
    // SAFETY: both were just made, and nobody else has them.
    let (read, write) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    match process {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            run(seed, planted, verbose, write);
            // SAFETY: ends this process; what it would have had to close is closed by the system.
            unsafe { libc::_exit(0) }
        }
        process => Ok(Running { seed, process, answer: read }),
    }
}

fn run(seed: u64, planted: Option<Planted>, verbose: bool, mut answer: File) {
    let limit = libc::rlimit { rlim_cur: LONGEST, rlim_max: LONGEST };
    // SAFETY: the structure is whole.
    unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
    let place = if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm") } else { Path::new("/tmp") };
    let root = tempfile::Builder::new().prefix("trestle-simulation-").tempdir_in(place);
    let outcome = match root {
        Err(error) => Err(format!("no place for files: {error}")),
        Ok(root) => {
            // A parent process that was given a thousand seeds has the same memory for each, so that chance is the seed's alone.
            interpose::begin(seed);
            // Also where nothing is to be seen: its maps take from what decides the order of all maps.
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let shown = tracing_subscriber::fmt().with_env_filter(filter);
            match verbose {
                true => shown.with_writer(std::io::stderr).init(),
                false => shown.with_writer(std::io::sink).init(),
            }
            let world = || Simulation::new(seed, root.path(), planted, verbose).run();
            let ran = catch_unwind(AssertUnwindSafe(world));
            ran.map_err(|_| "a panic, see above".to_owned())
        }
    };
    let outcome = outcome.unwrap_or_else(|why| RunOutcome { violations: vec![why], ..RunOutcome::default() });
    let _ = answer.write_all(encode(&outcome).as_bytes());
}

fn encode(outcome: &RunOutcome) -> String {
    let RunOutcome { trace, operations, parcels, faults, terms, moves, syncs, length, recovery, violations } =
        outcome;
    let mut text =
        format!("{} {operations} {parcels} {faults} {terms} {moves} {syncs} {length} {recovery}\n", trace.0);
    violations.iter().for_each(|violation| text += &format!("{violation}\0"));
    text
}

fn decode(text: &str) -> Option<RunOutcome> {
    let (numbers, violations) = text.split_once('\n')?;
    let numbers: Vec<u64> = numbers.split(' ').map_while(|number| number.parse().ok()).collect();
    let [trace, operations, parcels, faults, terms, moves, syncs, length, recovery] = numbers[..] else {
        return None;
    };
    let violations = violations.split('\0').filter(|text| !text.is_empty()).map(str::to_owned).collect();
    let trace = Trace(trace);
    Some(RunOutcome { trace, violations, operations, parcels, faults, terms, moves, syncs, length, recovery })
}

impl Running {
    /// Waits for the end.
    pub(crate) fn wait(mut self) -> RunOutcome {
        let mut text = String::new();
        let read = self.answer.read_to_string(&mut text);
        let mut status = 0;
        // SAFETY: the process is a child of this one, and the number can be written.
        unsafe { libc::waitpid(self.process, &raw mut status, 0) };
        read.ok().and_then(|_| decode(&text)).unwrap_or_else(|| RunOutcome {
            violations: vec![format!("the run does not end in order: status {status:#x}")],
            ..RunOutcome::default()
        })
    }
}
