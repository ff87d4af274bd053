//! What is this machine's own: name, data directory, addresses, cluster to join. Everything else is replicated.
//!
//! Every key is defined once, in [`KEYS`], and can be given as a flag, an environment variable or in the file, in that
//! order of precedence. Values stay text until [`Config::check`] has looked at all of them, so that one start reports
//! every mistake.

mod admin_socket;
mod checked;
mod connections;
mod flags;
mod founding;
mod initial_members;
mod local_check;
mod raw;
mod samples;
mod vip;
mod ways_in;

pub use admin_socket::{AdminSocket, LocalAccount, SocketRole};
#[cfg(test)]
pub(crate) use checked::SHUTDOWN_GRACE;
pub use checked::{Config, LogFormat, Profile};
pub use flags::{Invocation, NotConfigured, TOKEN_VARIABLE, TokenSource, command, invocation};
pub use founding::FoundingConfig;
pub use local_check::LocalCheckConfig;
pub use raw::{RawConfig, SettingSource};
pub use vip::VipConfig;

/// A key of the configuration.
#[derive(Debug)]
pub struct SettingKey {
    /// Its name in the file, after that of its table and a dot if it is in one. The flag has dashes instead of underscores
    /// and dots, the variable is in capitals after `TRESTLE_`, with underscores.
    pub name: &'static str,
    /// What its value is, as help shows it.
    pub value: &'static str,
    /// What it is for, with its default.
    pub help: &'static str,
    /// True for a list: an array in the file, comma-separated elsewhere.
    pub list: bool,
}

const fn key(name: &'static str, value: &'static str, help: &'static str) -> SettingKey {
    SettingKey { name, value, help, list: false }
}

/// Every key.
pub const KEYS: &[SettingKey] = &[
    key("name", "NAME", "this member's name, unique in the cluster [default: the host's name]"),
    key("data_dir", "DIR", "where log, snapshots and identity are kept [default: /var/lib/trestle]"),
    key("admin_address", "IP:PORT", "where the gRPC admin API listens [default: 127.0.0.1:7480]"),
    key(
        "admin_socket",
        "PATH",
        "where it listens for this machine's own users, as a UNIX socket; empty for none [default: /run/trestle/admin.sock]",
    ),
    SettingKey {
        name: "socket_roles",
        value: "WHO=ROLE,...",
        help: "roles of users over that socket, beside root and trestled's own: uid:USER=ROLE or gid:GROUP=ROLE, with viewer, \
               operator or admin [default: none]",
        list: true,
    },
    key("peer_address", "IP:PORT", "where other members reach this one [default: 127.0.0.1:7481]"),
    key("http_address", "IP:PORT", "where /livez, /readyz and /metrics are served [default: 127.0.0.1:7482]"),
    key(
        "metrics_token_file",
        "PATH",
        "file with a token that others than this machine must show to fetch /metrics, as Authorization: Bearer TOKEN [default: none]",
    ),
    key("advertise_admin_address", "HOST:PORT", "admin address as others dial it [default: admin_address]"),
    key("advertise_peer_address", "HOST:PORT", "peer address as others dial it [default: peer_address]"),
    key(
        "data_address",
        "IP",
        "address that listeners on a wildcard bind here [default: the wildcard itself]",
    ),
    SettingKey {
        name: "join",
        value: "HOST:PORT,...",
        help: "peer addresses of members to ask to be taken in while this one is empty; takes insecure = true [default: none]",
        list: true,
    },
    key(
        "join_token_file",
        "PATH",
        "file with the token by which this member joins a cluster while it is empty; \"trestle token create\" makes one [default: none]",
    ),
    SettingKey {
        name: "initial_members",
        value: "HOST:PORT,...",
        help: "peer addresses of 1 to 7 members, this one among them, that found a cluster by themselves once all of them answer and are \
               empty; the same on each of them, the first founds; goes with founding_token_file [default: none]",
        list: true,
    },
    key(
        "founding_token_file",
        "PATH",
        "file by which they know one another: what \"trestled founding-token\" printed, the same on each of them, for nobody else to read; of no \
         use once all have joined [default: none]",
    ),
    key(
        "insecure",
        "BOOL",
        "for labs: be in a cluster whose members and clients prove nothing, found such a one, and be taken into one [default: \
         false]",
    ),
    key(
        "profile",
        "NAME",
        "timing of elections: default, fast or wide; one for all members [default: default]",
    ),
    key("workers", "N", "data plane threads, 1 to 256; 0 for one per core [default: 0]"),
    key(
        "shutdown_grace",
        "TIME",
        "how long a shutdown lets connections finish, handing over included [default: 30s]",
    ),
    key("log_format", "FORMAT", "text or json [default: text]"),
    key("access_log", "FORMAT", "a line for each connection at its end: none, text or json [default: none]"),
    key(
        "access_log_file",
        "PATH",
        "file that these lines are added to, opened anew on SIGHUP; - for standard output [default: -]",
    ),
    key(
        "check_directory",
        "PATH",
        "directory that files of health checks must be below: certificates, keys, tokens [default: /etc/trestle/checks]",
    ),
    SettingKey {
        name: "source_address",
        value: "IP,...",
        help: "this machine's addresses that connections to backends come from, in turn; each has as many local ports \
               towards a backend as net.ipv4.ip_local_port_range says [default: as the system chooses]",
        list: true,
    },
    SettingKey {
        name: "backend_networks",
        value: "CIDR,...",
        help: "networks that backends and checks may be in, as 10.0.0.0/8 or 2001:db8::/32 [default: all]",
        list: true,
    },
    key(
        "vip.check",
        "PATH",
        "program that says by exit code 0 that this member is fit to hold virtual IPs [default: none]",
    ),
    key(
        "vip.local_check",
        "URL",
        "service of this machine that must answer for it to be fit to hold virtual IPs: https://IP:PORT/PATH, http:// or \
         tcp:// [default: none]",
    ),
    key(
        "vip.local_check_ca",
        "PATH",
        "PEM certificates that the service's must be signed by, for its address [default: nothing is verified]",
    ),
    key("vip.check_interval", "TIME", "time between two runs of either check, 100ms to 1h [default: 2s]"),
    key(
        "vip.check_timeout",
        "TIME",
        "when a run is ended and has failed, up to the interval [default: 1s, or the interval if that is shorter]",
    ),
    key("vip.check_rise", "N", "successes in a row that make this member fit again, 1 to 100 [default: 2]"),
    key("vip.check_fall", "N", "failures in a row that make it unfit, 1 to 100 [default: 3]"),
    key(
        "vip.real_time",
        "BOOL",
        "run the lease thread at real-time priority; needs CAP_SYS_NICE or LimitRTPRIO=1 [default: false]",
    ),
];
