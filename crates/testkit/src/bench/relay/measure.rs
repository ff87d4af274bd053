//! One measurement of one proxy.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::pinning;
use super::product::Product;

/// How long one load runs.
const TIME: Duration = Duration::from_secs(3);
/// How long connections get to end before what they cost is read.
const SETTLE: Duration = Duration::from_millis(100);
/// Sizes between which memory for each connection is measured.
const IDLE: [usize; 2] = [2_000, 8_000];

fn client(target: SocketAddr, load: &str) -> Command {
    let mut command = pinning::command(std::env::current_exe().unwrap(), pinning::CLIENTS);
    command.args(["relay-client", &target.to_string(), load]);
    command
}

/// Runs a load to its end; answers the numbers that it prints.
fn load(mut command: Command) -> Vec<f64> {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Seconds of processor time for each unit of a load, and how many units there were in a second.
pub(super) fn cost(product: &mut Product, kind: &str) -> (f64, f64) {
    let before = product.cpu();
    let mut command = client(product.front, kind);
    command.arg(TIME.as_secs_f64().to_string());
    let done = load(command)[0];
    std::thread::sleep(SETTLE);
    ((product.cpu() - before) / done, done / TIME.as_secs_f64())
}

/// The median and 99th percentile of an exchange, in seconds, at `rate` a second.
pub(super) fn latency(target: SocketAddr, rate: f64) -> [f64; 2] {
    let mut command = client(target, "paced");
    command.args([TIME.as_secs_f64().to_string(), rate.to_string()]);
    let numbers = load(command);
    [numbers[0] / 1e9, numbers[1] / 1e9]
}

/// System calls for each short connection, as perf counts them in all of the proxy's threads; `None` without perf.
pub(super) fn calls(product: &mut Product) -> Option<f64> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &product.id().to_string(), "-o"]);
    let mut perf = perf.arg(file.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    // Nothing tells when perf has begun to count. What it misses is a part of the load that is twenty times as long.
    std::thread::sleep(SETTLE);
    let mut command = client(product.front, "short");
    command.arg(TIME.as_secs_f64().to_string());
    let done = load(command)[0];
    kill_process(Pid::from_child(&perf), Signal::INT).unwrap();
    perf.wait().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let counted = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    Some(counted.split(',').next()?.parse::<f64>().ok()? / done)
}

/// A client that holds idle connections.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of the proxy's own memory for each connection that is idle after one exchange.
pub(super) fn memory(product: &mut Product) -> f64 {
    let mut command = client(product.front, "idle");
    let mut holder = Holder(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut input = holder.0.stdin.take().unwrap();
    let mut output = BufReader::new(holder.0.stdout.take().unwrap());
    let mut used = IDLE.iter().map(|count| {
        writeln!(input, "{count}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), count.to_string(), "the client did not open its connections");
        std::thread::sleep(SETTLE);
        product.memory()
    });
    let (few, many) = (used.next().unwrap(), used.next().unwrap());
    (many - few) / (IDLE[1] - IDLE[0]) as f64
}
