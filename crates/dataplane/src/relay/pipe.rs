//! Pipes that bulk data is spliced through, shared by the connections of a worker.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{io, mem};

use rustix::pipe::{self, PipeFlags, SpliceFlags};

use crate::machine::budget::Budget;
use crate::relay::socket::Spliced;
use crate::relay::transport::Transport;

/// What a pipe is to hold. The fewer turns, the less a byte costs: with 1 MiB it was a third of what it is with 64 KiB,
/// the kernel's default. It is also what the kernel lets a pipe have without a capability
/// (`fs.pipe-max-size`, pipe(7)).
pub(super) const CAPACITY: usize = 1 << 20;

/// What a pipe must hold to be worth it. The kernel gives less to a user who holds more than `fs.pipe-user-pages-soft`
/// (64 MiB by default) in pipes and lacks CAP_SYS_RESOURCE; copying is cheaper then.
const SMALLEST: usize = 64 * 1024;

/// Pipes of a worker, in use or not. A direction that finds none copies. Bounds the kernel's memory that slow readers
/// can hold to 64 MiB for each worker, and the descriptors to 128.
const MOST: usize = 64;

/// Pipes of a worker that are kept for the next bulk. Empty, they take little more than their descriptors; those that
/// nobody has used between two sweeps are closed all the same.
const SPARE: usize = 16;

thread_local! {
    static POOL: RefCell<PipePool> = const {
        RefCell::new(PipePool { spare: Vec::new(), lent: 0, used: false, budget: None })
    };
}

#[derive(Debug)]
struct PipePool {
    spare: Vec<PipeEnds>,
    lent: usize,
    /// A pipe was taken since the last sweep.
    used: bool,
    budget: Option<Arc<Budget>>,
}

/// Makes the pipes of this thread count as descriptors of the data plane: near the end of those, bulk is copied, so that
/// what is kept for others stays theirs.
pub(crate) fn count_pipes(budget: Arc<Budget>) {
    POOL.with_borrow_mut(|pool| pool.budget = Some(budget));
}

/// Closes the spare pipes of this thread, unless one was taken since the last call.
pub(crate) fn sweep_pipes() {
    POOL.with_borrow_mut(|pool| {
        if !mem::take(&mut pool.used) {
            pool.spare = Vec::new();
        }
    });
}

#[derive(Debug)]
struct PipeEnds {
    reader: OwnedFd,
    writer: OwnedFd,
    _claim: Option<PipeClaim>,
}

/// The two descriptors of a pipe, taken from the data plane's budget for as long as this lives.
#[derive(Debug)]
struct PipeClaim(Arc<Budget>);

impl PipeClaim {
    fn new(budget: &Arc<Budget>) -> Option<Self> {
        budget.try_take(2).then(|| Self(budget.clone()))
    }
}

impl Drop for PipeClaim {
    fn drop(&mut self) {
        self.0.give(2);
    }
}

impl PipeEnds {
    /// A new pipe, as large as the kernel allows; `None` when it is too small or there are no descriptors.
    fn open(budget: Option<&Arc<Budget>>) -> Option<Self> {
        let claim = match budget {
            Some(budget) => Some(PipeClaim::new(budget)?),
            None => None,
        };
        let (reader, writer) = pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let size = pipe::fcntl_setpipe_size(&writer, CAPACITY)
            .or_else(|_| pipe::fcntl_getpipe_size(&writer))
            .ok()?;
        (size >= SMALLEST).then_some(Self { reader, writer, _claim: claim })
    }
}

/// A pipe on loan from the worker's pool; goes back there when it is empty, else it is closed.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Option<PipeEnds>,
    filled: usize,
}

impl Pipe {
    /// An empty pipe, unless the worker has too many or the operating system has none.
    pub(super) fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if pool.lent + pool.spare.len() >= MOST && pool.spare.is_empty() {
                return None;
            }
            let ends = pool.spare.pop().or_else(|| PipeEnds::open(pool.budget.as_ref()))?;
            pool.lent += 1;
            pool.used = true;
            Some(Self { ends: Some(ends), filled: 0 })
        })
    }

    /// Bytes in it.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Takes from `from` what fits. Only to be called while the pipe is empty: that there is no room left would look like
    /// that there is nothing to read.
    pub(super) fn fill(&mut self, cx: &Context<'_>, from: &impl Transport) -> Poll<io::Result<Spliced>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(Spliced::Stuck)) };
        let filled = from.poll_splice_from(cx, |socket| {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            pipe::splice(socket, None, ends.writer.as_fd(), None, CAPACITY, flags)
        })?;
        if let Poll::Ready(Spliced::Bytes(filled)) = filled {
            self.filled += filled;
        }
        filled.map(Ok)
    }

    /// Gives to `to` what it takes.
    pub(super) fn empty(&mut self, cx: &Context<'_>, to: &mut impl Transport) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let left = self.filled;
        let given = to.poll_splice_to(cx, |socket| {
            pipe::splice(ends.reader.as_fd(), None, socket, None, left, flags)
        })?;
        if let Poll::Ready(given) = given {
            self.filled -= given.min(left);
        }
        given.map(Ok)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let ends = mem::take(&mut self.ends);
        let empty = self.filled == 0;
        // Fails only while the thread ends.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.lent = pool.lent.saturating_sub(1);
            if let Some(ends) = ends.filter(|_| empty && pool.spare.len() < SPARE) {
                pool.spare.push(ends);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn spare() -> usize {
        POOL.with_borrow(|pool| pool.spare.len())
    }

    #[test]
    fn an_empty_pipe_goes_back_and_one_with_bytes_left_does_not() {
        let pipe = Pipe::take().unwrap();
        drop(pipe);
        assert_eq!(spare(), 1);
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(spare(), 0);
        pipe.filled = 1;
        drop(pipe);
        assert_eq!(spare(), 0);
    }

    #[test]
    fn spare_pipes_go_when_none_was_used_between_two_sweeps() {
        drop(Pipe::take().unwrap());
        sweep_pipes();
        assert_eq!(spare(), 1);
        sweep_pipes();
        assert_eq!(spare(), 0);
    }

    #[test]
    fn there_is_a_limit_to_pipes() {
        let mut taken: Vec<Pipe> = std::iter::from_fn(Pipe::take).take(MOST + 1).collect();
        // Fewer where the kernel gives this user no more pages.
        assert!(!taken.is_empty() && taken.len() <= MOST, "{} pipes", taken.len());
        taken.pop();
        assert!(Pipe::take().is_some(), "one that was given back can be had again");
        drop(taken);
        assert!(spare() <= SPARE);
    }
}
