//! What clients asked of registers and what they were told, and whether one register that does one thing at a time could have told
//! them so.
//!
//! Every value is written once in a history, so that a value that comes back tells of a write that was applied twice.

mod linearizable;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use linearizable::{Judgement, judge};

/// One call to a register, with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterCall {
    /// A read that saw this.
    Read(u64),
    /// A write of this, whatever was there.
    Write(u64),
    /// A write that was to be refused unless the register still had the first; it has the second afterwards.
    Swap(u64, u64),
    /// Such a write that was refused, so the register had another value than this.
    Refused(u64),
}

/// A call, and when it was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedCall {
    /// Whose.
    pub client: usize,
    /// What was called for, and answered.
    pub call: RegisterCall,
    /// When the client began to ask.
    pub start: Duration,
    /// When it had its answer. `None` when it never had one: the call may have been applied at any time since, or not at all.
    pub end: Option<Duration>,
}

impl fmt::Display for RecordedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end.map_or_else(|| "never".to_owned(), |end| format!("{:.6}", end.as_secs_f64()));
        write!(f, "{:.6} to {end}: client {} ", self.start.as_secs_f64(), self.client)?;
        match self.call {
            RegisterCall::Read(value) => write!(f, "read {value}"),
            RegisterCall::Write(value) => write!(f, "wrote {value}"),
            RegisterCall::Swap(from, to) => write!(f, "changed {from} to {to}"),
            RegisterCall::Refused(from) => write!(f, "was told that it is not {from}"),
        }
    }
}

/// Histories of several registers, recorded by several clients; clones record into the same ones.
#[derive(Debug, Clone)]
pub struct Recorder {
    zero: Instant,
    registers: Arc<Mutex<Vec<Vec<RecordedCall>>>>,
}

impl Recorder {
    /// Nothing was asked of these registers yet.
    pub fn new(registers: usize) -> Self {
        Self { zero: Instant::now(), registers: Arc::new(Mutex::new(vec![Vec::new(); registers])) }
    }

    /// The time, as histories have it.
    pub fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    /// A call that has been answered.
    ///
    /// # Panics
    /// When there is no such register, or another recorder of it has panicked.
    pub fn answered(&self, register: usize, client: usize, start: Duration, call: RegisterCall) {
        self.add(register, RecordedCall { client, call, start, end: Some(self.now()) });
    }

    /// A write that the client has given up.
    ///
    /// # Panics
    /// As [`Recorder::answered`].
    pub fn unknown(&self, register: usize, client: usize, start: Duration, call: RegisterCall) {
        self.add(register, RecordedCall { client, call, start, end: None });
    }

    fn add(&self, register: usize, operation: RecordedCall) {
        self.registers.lock().unwrap()[register].push(operation);
    }

    /// All histories.
    ///
    /// # Panics
    /// As [`Recorder::answered`].
    pub fn histories(&self) -> Vec<Vec<RecordedCall>> {
        self.registers.lock().unwrap().clone()
    }
}
