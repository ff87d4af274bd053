//! What happens to a member's machine: its firewall, its descriptors, crowds before its ports.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::Host;

/// Connections of a flood.
const FLOOD: usize = 600;

/// Empties the first chain of the member's own tables.
pub(super) fn flush_chain(host: &Host) {
    let listed = host.run(|| Command::new("nft").args(["list", "chains"]).output().unwrap());
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut table = None;
    for words in listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        match (words.as_slice(), &table) {
            (["table", family, name, "{"], _) => {
                table = name.starts_with("trestle_").then(|| format!("{family} {name}"));
            }
            // It may go away with its virtual IP in the meantime.
            (["chain", chain, "{"], Some(table)) => {
                let command = format!("flush chain {table} {chain}");
                let _ = host.run(|| Command::new("nft").arg(command).output().unwrap());
                return;
            }
            _ => {}
        }
    }
}

/// Throws all rules away and puts those of others back at once, as services do that load a firewall.
pub(super) fn reload_firewall(host: &Host) {
    let list = |words: &[&str]| {
        let listed = host.run(|| Command::new("nft").arg("list").args(words).output().unwrap());
        String::from_utf8_lossy(&listed.stdout).into_owned()
    };
    let mut commands = "flush ruleset\n".to_owned();
    for line in list(&["tables"]).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.last().is_some_and(|name| name.starts_with("trestle_")) {
            commands += &list(&words);
        }
    }
    host.nft(&commands);
}

/// Clients that connect and say nothing.
pub(super) fn flood(client: &Host, target: SocketAddr) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&target, Duration::from_millis(20)).ok();
    client.run(|| (0..FLOOD).filter_map(connect).collect())
}

fn process(id: u32) -> Option<Pid> {
    Pid::from_raw(id.try_into().ok()?)
}

/// Lets a process open no more files; answers how many it might.
pub(super) fn limit_descriptors(id: u32) -> Rlimit {
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count) as u64;
    let own = getrlimit(Resource::Nofile);
    let new = Rlimit { current: Some(open), maximum: own.maximum };
    // It may have ended in the meantime.
    prlimit(process(id), Resource::Nofile, new).unwrap_or(own)
}

pub(super) fn set_descriptors(id: u32, limit: Rlimit) {
    let _ = prlimit(process(id), Resource::Nofile, limit);
}
