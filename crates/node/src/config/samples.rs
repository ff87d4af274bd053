//! The command lines of the samples: a backend and a client, for a first look.

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Arg, ArgMatches, Command, value_parser};

/// Where a sample backend listens by itself.
const BACKEND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

pub(super) const SAMPLE_BACKEND: &str = "sample-backend";
pub(super) const SAMPLE_CLIENT: &str = "sample-client";

pub(super) fn commands() -> [Command; 2] {
    let name = Arg::new("name").required(true).help("what it says that it is called");
    let address = Arg::new("address")
        .value_name("IP:PORT")
        .value_parser(value_parser!(SocketAddr))
        .help(format!("where it listens [default: {BACKEND}]"));
    let target =
        Arg::new("target").value_name("IP:PORT").value_parser(value_parser!(SocketAddr)).required(true);
    [
        Command::new(SAMPLE_BACKEND)
            .about("Run a sample backend, which answers HTTP requests with its name and who asks")
            .args([name, address]),
        Command::new(SAMPLE_CLIENT)
            .about("Connect to a balanced sample backend every 10 ms, and say who answers and for how long nobody did")
            .arg(target.help("the service: a listener of a cluster")),
    ]
}

pub(super) fn backend(given: &ArgMatches) -> (String, SocketAddr) {
    let name = given.get_one::<String>("name").cloned().unwrap_or_default();
    (name, given.get_one("address").copied().unwrap_or(BACKEND))
}

pub(super) fn target(given: &ArgMatches) -> SocketAddr {
    // It is required.
    given.get_one("target").copied().unwrap_or(BACKEND)
}
