//! Every default and bound of a replicated setting, once. The protos repeat them in words; a test compares nothing, so
//! change both.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Weight of a backend that names none, as in HAProxy.
pub const WEIGHT: u16 = 1;
/// Bounds of a weight, as in HAProxy; 0 takes no new connections.
pub const WEIGHT_BOUNDS: RangeInclusive<u16> = 0..=256;

/// Long enough for one lost SYN to be sent again (after 1 s, RFC 6298 §2.1), short enough that a client waits.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds of the connect timeout.
pub const CONNECT_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// Further backends tried after a failed connect, as HAProxy's `retries 3` with `option redispatch 1`.
pub const CONNECT_RETRIES: u32 = 3;
/// Bounds of the number of retries.
pub const CONNECT_RETRIES_BOUNDS: RangeInclusive<u32> = 0..=10;

/// Time between two checks of a backend whose verdict stands, HAProxy's `inter`.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Bounds of both check intervals.
pub const CHECK_INTERVAL_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(3600);
/// Time between two checks while the last result contradicts the verdict.
pub const CHECK_FAST_INTERVAL: Duration = Duration::from_millis(500);
/// How long one check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Bounds of the check timeout.
pub const CHECK_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// Successes in a row that make an unhealthy backend healthy, HAProxy's `rise`.
pub const CHECK_RISE: u32 = 2;
/// Failures in a row that make a healthy backend unhealthy, HAProxy's `fall`.
pub const CHECK_FALL: u32 = 3;
/// Bounds of rise and fall.
pub const CHECK_COUNT_BOUNDS: RangeInclusive<u32> = 1..=100;
/// Part of the interval by which each check is moved at random, so that checks do not march in step.
pub const CHECK_JITTER_PERCENT: u32 = 10;
/// Bounds of the jitter.
pub const CHECK_JITTER_BOUNDS: RangeInclusive<u32> = 0..=50;

/// Longest text in a check: path, header value, expected body, in bytes.
pub const CHECK_TEXT_MAX: usize = 512;
/// Most header fields of a check.
pub const CHECK_HEADERS_MAX: usize = 8;
/// Most status ranges of a check.
pub const CHECK_RANGES_MAX: usize = 8;
/// Longest PEM of a check's trusted certificates, in bytes; a command must fit into 4 KiB of the log.
pub const CHECK_CA_MAX: usize = 2560;
/// Most days that a certificate may be asked to be valid for.
pub const CHECK_DAYS_MAX: u32 = 825;

/// Longest drain deadline.
pub const DRAIN_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 3600);

/// Most pools in a cluster.
pub const POOLS_MAX: usize = 10_000;
/// Most backends in one pool.
pub const BACKENDS_PER_POOL_MAX: usize = 20_000;
/// Most listeners in a cluster.
pub const LISTENERS_MAX: usize = 10_000;
/// Most addresses of one listener.
pub const BINDS_MAX: usize = 16;
/// Most members, voters and learners together.
pub const MEMBERS_MAX: usize = 15;

/// Answers remembered for repeated request ids; the oldest is forgotten first.
pub const REQUESTS_REMEMBERED: usize = 8_192;
/// Longest request id, in characters.
pub const REQUEST_ID_MAX: usize = 64;
