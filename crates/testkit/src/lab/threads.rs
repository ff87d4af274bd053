//! Faults of single threads of a real process, which no input of it brings about.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::tools::{has_tools, skip};

const SCRIPT: &str = include_str!("threads.py");

/// Threads that do not run for as long as this is there.
#[derive(Debug)]
pub struct HungThreads(Child);

impl Drop for HungThreads {
    fn drop(&mut self) {
        // They go on when its input ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Stops the threads of these names in a process; `None`, with a word of explanation, where that cannot be done.
///
/// # Panics
/// When there are no such threads.
pub fn hang_threads(process: u32, names: &[&str]) -> Option<HungThreads> {
    traced("hang", process, names).map(HungThreads)
}

/// Has the thread of this name panic in the next moment: its runtime's descriptor becomes another one. False, with a word of explanation,
/// where that cannot be done.
///
/// # Panics
/// When there is no such thread.
pub fn break_thread(process: u32, name: &str) -> bool {
    traced("break", process, &[name]).is_some_and(|mut child| child.wait().unwrap().success())
}

/// Has the thread of this name panic in the next function of the product that it calls, wherever it waits now. False, with a word of
/// explanation, where that cannot be done.
///
/// # Panics
/// When there is no such thread.
pub fn panic_thread(process: u32, name: &str) -> bool {
    has_tools(&["nm"])
        && traced("panic", process, &[name]).is_some_and(|mut child| child.wait().unwrap().success())
}

fn traced(action: &str, process: u32, names: &[&str]) -> Option<Child> {
    if !cfg!(target_arch = "x86_64") {
        skip("threads are traced on x86-64 only");
        return None;
    }
    if !has_tools(&["python3"]) {
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, action, &process.to_string()]).args(names);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), "done", "{action} {names:?} of {process}");
    Some(child)
}
