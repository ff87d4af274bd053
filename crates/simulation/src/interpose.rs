//! Time and chance of the process: the C library's two functions, by which everything in this process gets them, also what is deep
//! inside libraries.

#![expect(unsafe_code, reason = "symbols of the C library are defined here in its place")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

static SIMULATED: AtomicBool = AtomicBool::new(false);
/// What the clock of the member that runs now shows, in nanoseconds.
static NOW: AtomicU64 = AtomicU64::new(0);
static CHANCE: AtomicU64 = AtomicU64::new(0);

/// Seconds between 1970 and the beginning of each simulation.
const EPOCH: u64 = 1_700_000_000;

/// From here on time stands still but for [`set_clock`], and all chance is by `seed`.
pub(crate) fn begin(seed: u64) {
    CHANCE.store(seed, Relaxed);
    SIMULATED.store(true, Relaxed);
}

/// Sets the clock.
pub(crate) fn set_clock(nanoseconds: u64) {
    NOW.store(nanoseconds, Relaxed);
}

/// The next number of the sequence: splitmix64.
pub(crate) fn chance() -> u64 {
    let state = CHANCE.load(Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    CHANCE.store(state, Relaxed);
    mixed(state)
}

/// Splitmix64's finalizer.
pub(crate) fn mixed(state: u64) -> u64 {
    let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// # Safety
/// As the C library's function: `time` can be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !SIMULATED.load(Relaxed) {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    }
    let now = NOW.load(Relaxed);
    let since = if clock == libc::CLOCK_REALTIME { EPOCH } else { 0 };
    let shown = timespec {
        tv_sec: (since + now / 1_000_000_000).cast_signed(),
        tv_nsec: (now % 1_000_000_000).cast_signed(),
    };
    // SAFETY: the caller says that it can be written.
    unsafe { time.write(shown) };
    0
}

/// # Safety
/// As the C library's function: `length` bytes at `bytes` can be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(bytes: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    if !SIMULATED.load(Relaxed) {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_getrandom, bytes, length, flags) } as ssize_t;
    }
    for at in 0..length {
        // SAFETY: the caller says that all of them can be written.
        unsafe { bytes.cast::<u8>().add(at).write((chance() >> 32) as u8) };
    }
    length.cast_signed()
}
