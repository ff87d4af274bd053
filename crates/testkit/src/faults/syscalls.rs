//! System calls of one thread that fail or take long, by strace.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// What is done to the calls that make writes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFault {
    /// They fail, as when a disk does not take what it was given.
    Error,
    /// Each takes this much longer.
    Delay(Duration),
}

/// A thread whose calls are tampered with for as long as this is there.
#[derive(Debug)]
pub struct Tampered(Child);

/// The id of the thread of this name in a process.
fn thread(process: u32, name: &str) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
    tasks
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .find_map(|task| task.file_name().to_str()?.parse().ok())
}

/// Begins to tamper with what a thread syncs; `None` when there is no such thread any more. Takes strace.
///
/// # Panics
/// When strace does not attach.
pub fn tamper(process: u32, name: &str, fault: SyncFault) -> Option<Tampered> {
    let id = thread(process, name)?;
    let what = match fault {
        SyncFault::Error => "error=EIO".to_owned(),
        SyncFault::Delay(time) => format!("delay_enter={}", time.as_micros()),
    };
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=fdatasync,fsync", "-e", &format!("inject=fdatasync,fsync:{what}")]);
    strace.args(["-p", &id.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = strace.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    let tampered = Tampered(child);
    if !first.contains("attached") {
        // It ended in the meantime.
        assert!(thread(process, name).is_none(), "strace does not attach: {first}");
        return None;
    }
    // What it tells of each call must go somewhere.
    std::thread::spawn(move || said.lines().map_while(Result::ok).for_each(drop));
    Some(tampered)
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // It detaches; it has ended already where the thread has.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}
