//! The numbers by which processes know one another, and their clock.

use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

/// Draws the number of a start.
pub(crate) fn draw_start() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    // 0 stands for none.
    Ok(u64::from_le_bytes(bytes).max(1))
}

/// A number that processes have in common whose loopback is the same: of this boot of the machine, and of the network namespace
/// in it. 0 where that cannot be known.
pub(crate) fn network() -> u64 {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let namespace = std::fs::metadata("/proc/self/ns/net").map(|namespace| namespace.ino());
    match (u64::from_str_radix(&digits, 16), namespace) {
        (Ok(boot), Ok(namespace)) => boot ^ namespace,
        _ => 0,
    }
}

/// Draws an id: 32 hexadecimal digits.
///
/// # Errors
/// In words, when the system has no random bytes.
pub(crate) fn draw_id() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Now, in milliseconds since the beginning of 1970.
pub(crate) fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
