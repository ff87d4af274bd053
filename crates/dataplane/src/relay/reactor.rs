//! Readiness of a worker's sockets: an epoll instance of its own, which the worker's runtime wakes up for.
//!
//! tokio's sockets cost a system call more to close (EPOLL_CTL_DEL) and 256 B each. Here a socket is registered once,
//! edge-triggered and for everything, is forgotten by closing it, and has one slot of 32 B. The runtime waits on its own
//! epoll instance, which holds this one; when that is what woke it up, events are collected in one call.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::thread::{Builder, JoinHandle};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{self, Runtime};

use crate::machine::threads::ThreadEnds;
use crate::relay::peer_watch::PeerWatch;

/// Events collected in one call. When that many were waiting, the next call comes before the runtime waits again.
const BATCH: usize = 256;

/// Sweeps after which a socket counts as aged; see [`sweep`].
const AGED: u8 = 2;

/// Generations that a reactor takes for itself at a time.
const GENERATIONS: u32 = 1 << 16;

/// The next generations that no reactor has taken. They begin anew after 2^32 sockets.
static NEXT_GENERATIONS: AtomicU32 = AtomicU32::new(0);

const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

thread_local! {
    static REACTOR: OnceCell<Reactor> = const { OnceCell::new() };
}

/// What a registered socket is waited for with.
#[derive(Debug)]
struct Slot {
    /// Tells this socket from an earlier one in the same slot, whose events can still come while a child process that has
    /// not executed its program yet holds a copy of the closed descriptor (epoll(7), question 6); and from those in the same
    /// slots of other threads' reactors.
    generation: u32,
    /// What is known to be possible.
    ready: EventFlags,
    /// Sweeps seen; stays at 0 for sockets that do not age.
    age: u8,
    peer: PeerWatch,
    waker: Option<Waker>,
}

struct Reactor {
    epoll: AsyncFd<OwnedFd>,
    slots: RefCell<Slab<Slot>>,
    events: RefCell<Vec<Event>>,
    /// The generations that are left of those that were taken.
    generations: RefCell<Range<u32>>,
    /// Tasks that have more to do but let the others go first.
    yielded: RefCell<Vec<Waker>>,
    /// More events than a batch holds were waiting.
    more: Cell<bool>,
}

/// A runtime for one worker, and the epoll instance that it wakes up for.
///
/// # Errors
/// When the operating system has no file descriptor or memory left.
pub(crate) fn runtime() -> io::Result<(Runtime, EpollSource)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(before_park)
        .on_thread_unpark(after_unpark)
        .build()?;
    let source = {
        let _context = runtime.enter();
        EpollSource::new()?
    };
    Ok((runtime, source))
}

/// Starts a thread with a runtime of its own, where nothing else runs, and a reactor.
///
/// # Errors
/// When the operating system gives no thread or no event queue.
pub(crate) fn spawn<F: Future<Output = ()>>(
    name: String,
    ended: &ThreadEnds,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (runtime, source) = runtime()?;
    let (ended, watched) = (ended.clone(), ended.thread(&name));
    Builder::new().name(name).spawn(move || {
        let _watched = watched;
        ended.install();
        source.install();
        runtime.block_on(start());
    })
}

/// An epoll instance for one worker, which is to be [installed](Source::install) on its thread.
#[derive(Debug)]
pub(crate) struct EpollSource(AsyncFd<OwnedFd>);

impl EpollSource {
    #[expect(deprecated, reason = "its successor is unsafe; this descriptor is open and owned")]
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::with_interest(epoll, Interest::READABLE)?))
    }

    /// Makes this the instance of the current thread; does nothing where there is one already.
    pub(crate) fn install(self) {
        let reactor = Reactor {
            epoll: self.0,
            slots: RefCell::default(),
            events: RefCell::new(Vec::with_capacity(BATCH)),
            generations: RefCell::new(0..0),
            yielded: RefCell::default(),
            more: Cell::new(false),
        };
        REACTOR.with(|r| {
            let _ = r.set(reactor);
        });
    }
}

fn with<T>(f: impl FnOnce(&Reactor) -> T) -> Option<T> {
    REACTOR.try_with(|r| r.get().map(f)).ok().flatten()
}

impl Reactor {
    /// A generation that no other socket of this process has.
    fn next_generation(&self) -> u32 {
        let mut left = self.generations.borrow_mut();
        left.next().unwrap_or_else(|| {
            let first = NEXT_GENERATIONS.fetch_add(GENERATIONS, Ordering::Relaxed);
            // A multiple of the number taken at once, so that the sum does not overflow.
            *left = first + 1..first + (GENERATIONS - 1);
            first
        })
    }

    /// Whether the runtime has heard of events since this was last asked. It may hear of them at any time, and hears of
    /// each once.
    fn has_events(&self) -> bool {
        let mut heard = false;
        // Saying that nothing was there after all makes the runtime listen again.
        let _ = self.epoll.try_io(Interest::READABLE, |_| -> io::Result<()> {
            heard = true;
            Err(io::ErrorKind::WouldBlock.into())
        });
        heard
    }

    /// Takes note of everything that happened, without waiting.
    fn collect(&self) {
        let mut events = self.events.borrow_mut();
        events.clear();
        // Fails only with EINTR, which a call that does not wait never meets.
        let _ = epoll::wait(self.epoll.get_ref(), spare_capacity(&mut *events), Some(&NO_WAIT));
        self.more.set(events.len() == BATCH);
        let mut slots = self.slots.borrow_mut();
        for event in events.iter() {
            let data = event.data;
            let (generation, key) = ((data.u64() >> 32) as u32, data.u64() as u32);
            let Some(slot) = slots.get_mut(key as usize).filter(|s| s.generation == generation) else {
                continue;
            };
            slot.ready |= event.flags;
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
    }
}

/// Called before the runtime waits: takes up what was put off, and makes it not wait if there was anything.
fn before_park() {
    with(|r| {
        let put_off = r.more.get() || !r.yielded.borrow().is_empty();
        // The runtime also looks for events between tasks, without telling anybody.
        if put_off || r.has_events() {
            r.collect();
            let yielded = mem::take(&mut *r.yielded.borrow_mut());
            yielded.into_iter().for_each(Waker::wake);
        }
    });
}

/// Called after the runtime has waited.
fn after_unpark() {
    with(|r| {
        if r.has_events() {
            r.collect();
        }
    });
}

/// Lets the other tasks of this worker run, and events be collected, before this one goes on.
pub(crate) fn yield_now(cx: &Context<'_>) {
    if with(|r| r.yielded.borrow_mut().push(cx.waker().clone())).is_none() {
        cx.waker().wake_by_ref();
    }
}

/// Makes sockets that [age](Registration::set_aging) a sweep older; those that reach the limit are woken, once.
pub(crate) fn sweep() {
    with(|r| {
        for (_, slot) in r.slots.borrow_mut().iter_mut().filter(|(_, s)| (1..=AGED).contains(&s.age)) {
            slot.age += 1;
            if let Some(waker) = slot.waker.as_ref().filter(|_| slot.age > AGED) {
                waker.wake_by_ref();
            }
        }
    });
}

/// To be called each second: wakes the tasks of sockets whose peers are to be [looked at](Registration::take_due).
pub(crate) fn beat() {
    with(|r| {
        for (_, slot) in r.slots.borrow_mut().iter_mut() {
            if slot.peer.beat()
                && let Some(waker) = &slot.waker
            {
                waker.wake_by_ref();
            }
        }
    });
}

/// What a socket's age and its peer call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Due {
    /// It has become old enough that options for long connections pay.
    pub(crate) is_aged: bool,
    /// Its peer is to be looked at.
    pub(crate) look: bool,
}

/// A socket's slot. It belongs to the thread that made it: elsewhere nothing is ever ready, and no other socket's slot is
/// touched.
#[derive(Debug)]
pub(crate) struct Registration {
    key: u32,
    generation: u32,
}

impl Registration {
    /// Waits for everything on `socket` from now on.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; `Unsupported` on a thread without a reactor.
    pub(crate) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let added = with(|r| {
            let generation = r.next_generation();
            let slot = Slot {
                generation,
                ready: EventFlags::empty(),
                age: 0,
                peer: PeerWatch::default(),
                waker: None,
            };
            let key = r.slots.borrow_mut().insert(slot);
            // A slot for each descriptor, of which there are fewer than 2^31.
            let registration = Self { key: key as u32, generation };
            let data = EventData::new_u64(u64::from(generation) << 32 | u64::from(registration.key));
            let flags =
                EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
            epoll::add(r.epoll.get_ref(), socket, data, flags)?;
            Ok(registration)
        });
        added.unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))
    }

    /// Does something with the slot, on the thread that made it.
    fn with_slot<T>(&self, f: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        with(|r| {
            let mut slots = r.slots.borrow_mut();
            let slot = slots.get_mut(self.key as usize).filter(|slot| slot.generation == self.generation)?;
            Some(f(slot))
        })
        .flatten()
    }

    /// What is possible now; when it is nothing of `wanted`, the task is woken at the next event.
    pub(crate) fn poll(&self, cx: &Context<'_>, wanted: EventFlags) -> EventFlags {
        let polled = self.with_slot(|slot| {
            if wanted.contains(EventFlags::OUT) {
                slot.peer.wrote();
            }
            if slot.ready.intersects(wanted) || slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                return (slot.ready, None);
            }
            (slot.ready, slot.waker.replace(cx.waker().clone()))
        });
        // The former waker is dropped only here: a task may go with it, and that task's sockets give up their slots.
        polled.map_or(EventFlags::empty(), |(ready, _former)| ready)
    }

    /// What is possible now, as far as it is known.
    pub(crate) fn ready(&self) -> EventFlags {
        self.with_slot(|slot| slot.ready).unwrap_or(EventFlags::empty())
    }

    /// Forgets who waits; events wake nobody until somebody polls again.
    pub(crate) fn forget_waker(&self) {
        let former = self.with_slot(|slot| slot.waker.take());
        // Dropped only after the slots are free to be used, for the same reason as in `poll`.
        drop(former);
    }

    /// Takes note that something turned out not to be possible.
    pub(crate) fn clear(&self, flags: EventFlags) {
        self.with_slot(|slot| slot.ready.remove(flags));
    }

    /// Lets the socket age from now on.
    pub(crate) fn set_aging(&self) {
        self.with_slot(|slot| slot.age = 1);
    }

    /// What its age and its peer call for; says so once.
    pub(crate) fn take_due(&self) -> Due {
        let due = self.with_slot(|slot| {
            let is_aged = slot.age > AGED;
            if is_aged {
                slot.age = 0;
            }
            Due { is_aged, look: slot.peer.take_due() }
        });
        due.unwrap_or_default()
    }

    /// What is kept of its peer, to be changed by `change`.
    pub(crate) fn peer<T>(&self, change: impl FnOnce(&mut PeerWatch) -> T) -> Option<T> {
        self.with_slot(|slot| change(&mut slot.peer))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let slot = with(|r| {
            let mut slots = r.slots.borrow_mut();
            let is_own = slots.get(self.key as usize).is_some_and(|slot| slot.generation == self.generation);
            is_own.then(|| slots.remove(self.key as usize))
        });
        // Dropped only after the slots are free to be used, for the same reason as in `poll`.
        drop(slot);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Runs `future` as a worker does. The deadline is not the runtime's, which would wake up for it.
    pub(crate) fn on_worker<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
        let (runtime, source) = runtime().unwrap();
        let (done, result) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            source.install();
            done.send(runtime.block_on(future)).unwrap();
        });
        result.recv_timeout(std::time::Duration::from_secs(20)).expect("not in 20 s, or it panicked")
    }

    #[test]
    fn a_task_that_yields_lets_events_be_collected() {
        on_worker(async {
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let registration = Registration::new(std::os::fd::AsFd::as_fd(&theirs)).unwrap();
            std::io::Write::write_all(&mut ours, b"x").unwrap();
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                // Never waits for the socket, so that only the yield brings the news.
                let ready = registration.ready();
                if ready.contains(EventFlags::IN) {
                    return std::task::Poll::Ready(());
                }
                polls += 1;
                assert!(polls < 1000, "the event never came");
                yield_now(cx);
                std::task::Poll::Pending
            })
            .await;
        });
    }

    #[test]
    fn events_that_the_runtime_hears_of_between_tasks_are_not_lost() {
        on_worker(async {
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let waiting = tokio::spawn(async move {
                let registration = Registration::new(std::os::fd::AsFd::as_fd(&theirs)).unwrap();
                std::future::poll_fn(|cx| {
                    let ready = registration.poll(cx, EventFlags::IN).contains(EventFlags::IN);
                    if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
            });
            // Lets it begin to wait, and the reactor tell that the socket can be written to.
            for _ in 0..5 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            std::io::Write::write_all(&mut ours, b"x").unwrap();
            // More than the runtime runs before it looks for events, without calling anybody.
            for _ in 0..1000 {
                tokio::spawn(async {});
            }
            waiting.await.unwrap();
        });
    }

    /// Both sockets have the first slot of their threads.
    #[test]
    fn a_socket_on_another_thread_touches_no_slot_of_that() {
        let (moved, here) = std::os::unix::net::UnixStream::pair().unwrap();
        let stray = on_worker(async move { Registration::new(std::os::fd::AsFd::as_fd(&moved)).unwrap() });
        on_worker(async move {
            let own = Registration::new(std::os::fd::AsFd::as_fd(&here)).unwrap();
            assert_eq!(own.key, stray.key, "the two do not meet");
            own.set_aging();
            stray.clear(EventFlags::all());
            stray.peer(|peer| *peer = PeerWatch::new(std::time::Duration::from_secs(5)));
            assert!(!stray.take_due().look && stray.ready().is_empty());
            drop(stray);
            for _ in 0..AGED {
                sweep();
            }
            assert!(own.take_due().is_aged, "its slot went with the other's");
            assert_eq!(own.peer(|peer| peer.timeout()), Some(std::time::Duration::ZERO));
        });
    }

    #[test]
    fn sockets_that_age_say_so_once() {
        on_worker(async {
            let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            let new = || Registration::new(std::os::fd::AsFd::as_fd(&socket));
            let aging = new().unwrap();
            aging.set_aging();
            for _ in 0..AGED {
                assert!(!aging.take_due().is_aged);
                sweep();
            }
            assert!(aging.take_due().is_aged);
            sweep();
            assert!(!aging.take_due().is_aged);
        });
    }
}
