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
/// Longest PEM of a check's trusted certificates, in bytes: some hundred certificates, a quarter of a log entry.
pub const CHECK_CA_MAX: usize = 256 * 1024;
/// Most days that a certificate may be asked to be valid for.
pub const CHECK_DAYS_MAX: u32 = 825;

/// Longest text that a check sends or expects, in bytes.
pub const CHECK_EXCHANGE_MAX: usize = 512;
/// Most steps of an exchange: a greeting, a login or STARTTLS, a command, a goodbye.
pub const CHECK_STEPS_MAX: usize = 4;
/// Longest path of a file that a check reads.
pub const CHECK_FILE_MAX: usize = 255;

/// Bounds of the connections that a backend or listener takes on each member at a time; 0 for no bound.
pub const CONNECTIONS_BOUNDS: RangeInclusive<u32> = 0..=1_000_000;
/// Clients that may wait for a place at the backends of a pool on each member. Bounded, unlike HAProxy's, because each
/// holds a descriptor.
pub const QUEUE_LENGTH: u32 = 1_000;
/// Bounds of the queue's length; with 0 nobody waits.
pub const QUEUE_LENGTH_BOUNDS: RangeInclusive<u32> = 0..=100_000;
/// How long a client waits for a place: as long as set-ups of HAProxy commonly let it (`timeout queue`).
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of that time.
pub const QUEUE_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(600);
/// Longest slow start; 0 for none.
pub const SLOW_START_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Longest time that a client is remembered for; 0 for not at all.
pub const STICKINESS_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 24 * 3600);
/// Usable backends below which a pool counts as down.
pub const MINIMUM_HEALTHY: u32 = 1;
/// Bounds of that number.
pub const MINIMUM_HEALTHY_BOUNDS: RangeInclusive<u32> = 1..=20_000;
/// Longest idle time and lifetime of a connection; 0 for no bound. There is none by default: keepalive finds dead peers,
/// and pools of database connections are rightly idle for days.
pub const LIFE_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * 24 * 3600);
/// The last part of a time over which ends are spread, in percent: as much as gRPC's servers move the longest age of a
/// connection by.
pub const CLOSE_SPREAD_PERCENT: u32 = 10;
/// Bounds of that part; with 0 all end at once.
pub const CLOSE_SPREAD_BOUNDS: RangeInclusive<u32> = 0..=50;

/// Time without an answer after which a peer is dead. Links and routers that fail over take seconds, mobile clients that
/// change their network up to a minute.
pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(120);
/// The shortest leaves room for a few probes a second apart; the longest is what the kernel's own bound allows, after which
/// it gives up retransmitting (`tcp_retries2` of tcp(7)).
pub const DEAD_PEER_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(900);

/// Most ports of one listener, over all its addresses: the range of Kubernetes' NodePorts (2 768) at two addresses, and some
/// more.
pub const LISTENER_PORTS_MAX: usize = 8_192;
/// Most ports of all listeners together, more than there may be listeners. Each takes one socket at least, on every member.
pub const PORTS_MAX: usize = 16_384;
/// Most routes of one listener.
pub const ROUTES_MAX: usize = 64;
/// Most names, and most protocols, of one route.
pub const ROUTE_NAMES_MAX: usize = 16;
/// Most networks in one list of a listener.
pub const NETWORKS_MAX: usize = 64;

/// How long a client may take for its first bytes: what HAProxy's manuals set for one that says nothing
/// (`tcp-request inspect-delay`).
pub const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds of that time.
pub const FIRST_BYTES_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);

/// How long a preferred member must have been fit before it gets the VIPs: long enough for one that has just come back to
/// have checked its backends.
pub const PREFERENCE_DELAY: Duration = Duration::from_secs(10);
/// Bounds of that time.
pub const PREFERENCE_DELAY_BOUNDS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

/// Bounds of the share of connections that is closed, in percent.
pub const CLOSE_SHARE_BOUNDS: RangeInclusive<u32> = 1..=100;
/// Bounds of the rate at which connections are closed, in connections a second.
pub const CLOSE_RATE_BOUNDS: RangeInclusive<f64> = 0.01..=10_000.0;
/// How long closing at a rate may take: a call that takes longer is more likely forgotten than wanted.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(3600);

/// Longest drain deadline.
pub const DRAIN_TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 3600);

/// Recoveries of which it is kept what was drawn at them: as many as tell members of two recoveries apart for as long as anybody
/// remembers them.
pub const RECOVERIES_KEPT: usize = 16;

/// Most pools in a cluster.
pub const POOLS_MAX: usize = 10_000;
/// Most backends in one pool.
pub const BACKENDS_PER_POOL_MAX: usize = 20_000;
/// Most listeners in a cluster.
pub const LISTENERS_MAX: usize = 10_000;
/// Most virtual IPs in a cluster: each is announced and renewed by one member.
pub const VIPS_MAX: usize = 64;
/// Takings and releases of the VIPs that are remembered; the oldest is forgotten first.
pub const VIP_EVENTS_KEPT: usize = 256;
/// Longest reason for one, in bytes; more is cut.
pub const VIP_REASON_MAX: usize = 200;
/// Most addresses of one listener.
pub const BINDS_MAX: usize = 16;
/// Most members, voters and learners together.
pub const MEMBERS_MAX: usize = 15;

/// The highest feature level that this version knows. It grows when a command, a setting or a rule comes that earlier versions
/// do not know; limits that applying an entry depends on change only with it.
pub const FEATURE_LEVEL_MAX: u32 = FEATURE_LEVEL_IDENTITIES;
/// The level that every program knows, also one that says nothing of levels.
pub const FEATURE_LEVEL_FIRST: u32 = 1;
/// The level at which a cluster has authorities and users.
pub const FEATURE_LEVEL_IDENTITIES: u32 = 2;

/// Changes of the configuration that are kept; the oldest is forgotten first.
pub const RECORDS_KEPT: usize = 64;
/// What all of them may take, about in bytes; of older ones only a summary is kept then.
pub const RECORDS_WEIGHT_MAX: usize = 4 * 1024 * 1024;
/// What one of them may take; of one that takes more only a summary is kept.
pub const RECORD_WEIGHT_MAX: usize = 1024 * 1024;
/// Documents that a summary names.
pub const SUMMARY_MAX: usize = 16;

/// Most operations of one batch.
pub const OPERATIONS_MAX: usize = 4_096;
/// Longest owner of a resource, in bytes.
pub const OWNER_MAX: usize = 128;
/// Most annotations of a resource.
pub const ANNOTATIONS_MAX: usize = 16;
/// Longest key of an annotation, in characters.
pub const ANNOTATION_KEY_MAX: usize = 63;
/// Longest value of an annotation, in bytes.
pub const ANNOTATION_VALUE_MAX: usize = 256;

/// Most bytes of a proposal that is staged in pieces: the configuration of some hundred thousand backends.
pub const STAGED_MAX: usize = 16 * 1024 * 1024;
/// Entries after which pieces that nobody went on with are dropped.
pub const STAGED_FOR: u64 = 10_000;

/// Answers remembered for repeated request ids; the oldest is forgotten first.
pub const REQUESTS_REMEMBERED: usize = 8_192;
/// What all of them may take, about in bytes.
pub const REQUESTS_WEIGHT_MAX: usize = 16 * 1024 * 1024;
/// Longest request id, in characters.
pub const REQUEST_ID_MAX: usize = 64;

/// Longest duration that is read from the wire or a disk, whatever it is for: ten times the longest that a setting may have, and
/// little enough to be added to any moment.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Highest term, log index, revision and id that is read: far above what a cluster reaches in centuries, and far enough below
/// the largest number that counting on from it never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Longest reach of a tenure: a thousand times what the slowest profile has. A successor may wait for as long.
pub const REACH_MAX: Duration = Duration::from_secs(3600);
/// Latest time of an event, in milliseconds since 1970: the last one that has a year of four digits.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Life of an authority's certificate. All members and users must get a new one before its end, so it is as long as what
/// they run on.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of a member's certificate. It is renewed without anybody's help, so that what was copied from a member is soon worthless.
pub const MEMBER_CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of a user's certificate.
pub const USER_CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bounds of that life.
pub const USER_CERTIFICATE_LIFE_BOUNDS: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(10 * 365 * 24 * 3600);
/// How long before it is signed a certificate is valid: members' clocks differ, and one that has just been signed must be taken.
pub const CERTIFICATE_BACKDATED: Duration = Duration::from_secs(3600);
/// How far clocks may be apart that are taken to show the same time. Certificates are valid for twice as long before they are signed, so
/// that two such clocks never disagree on a new one.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30 * 60);
/// A time that is over wherever this program runs, since the beginning of 1970: its compiler, Rust 1.95.0, was released on 2026-04-16. A
/// machine without a clock begins in 1970. Raise it with a release.
pub const BUILT_AFTER: Duration = Duration::from_secs(1_776_297_600);
/// Time between two notes of what time it is in the log.
pub const TIME_NOTED_EVERY: Duration = Duration::from_secs(3600);
/// Most by which one such note moves the log's time: clocks that are wrong together for a while must not take it where everybody's
/// certificate has expired, since it never goes back. A cluster that was off catches up a day an hour.
pub const TIME_NOTED_STEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// Life that a member's or user's certificate has left when its end is warned of.
pub const CERTIFICATE_WARNED: Duration = Duration::from_secs(30 * 24 * 3600);
/// The same of an authority's, whose replacement takes more than a command.
pub const AUTHORITY_WARNED: Duration = Duration::from_secs(365 * 24 * 3600);
/// Largest certificate that is kept, in bytes. One with a key of P-256 takes some 600.
pub const CERTIFICATE_MAX: usize = 8 * 1024;
/// Most authorities at a time: one that is leaving, one that is in use and one that is coming, and one to spare.
pub const AUTHORITIES_MAX: usize = 4;
/// Most users.
pub const USERS_MAX: usize = 1_000;
/// Most keys of one user: the one in use, and the one that replaces it.
pub const USER_KEYS_MAX: usize = 2;
/// Most keys of one member: the one in use, and the one before.
pub const MEMBER_KEYS_MAX: usize = 2;
/// Most tokens by which members join: those that are used up or have expired make place.
pub const TOKENS_MAX: usize = 100;
/// How many members may join by one token: one is for one machine, and many for those that are made alike.
pub const TOKEN_USES_BOUNDS: RangeInclusive<u32> = 1..=100;
/// Most initial members that found a cluster by themselves: all of them become voters, and more of those only make it slower.
pub const INITIAL_MEMBERS_MAX: usize = 7;
/// Life of a token: long enough to walk to another machine, and too short to be found later.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Bounds of that life.
pub const TOKEN_LIFE_BOUNDS: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);
