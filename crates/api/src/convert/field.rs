//! Single fields: durations, enums, ports, and field masks.

use std::time::Duration;

use trestle_model::defaults::DURATION_MAX;
use trestle_model::{Port, Violations};

/// A duration that was set; negative and malformed ones are noted.
pub(super) fn duration(
    field: &str,
    given: Option<&prost_types::Duration>,
    v: &mut Violations,
) -> Option<Duration> {
    let given = given?;
    // Not prost's conversion, which takes any nanos and carries them over.
    match (u64::try_from(given.seconds), u32::try_from(given.nanos)) {
        (Ok(seconds), Ok(_)) if seconds >= DURATION_MAX.as_secs() => {
            v.add(field, format!("{seconds}s"), "must be less than 10 years");
            None
        }
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Some(Duration::new(seconds, nanos)),
        _ => {
            let shown = format!("{}s {}ns", given.seconds, given.nanos);
            v.add(field, shown, "must not be negative, and its nanos must be less than a second");
            None
        }
    }
}

/// An enum value; numbers that this version does not know are noted, with the words that it knows.
pub(super) fn known<E: TryFrom<i32>>(field: &str, number: i32, words: &str, v: &mut Violations) -> Option<E> {
    let known = E::try_from(number);
    if known.is_err() {
        v.add(field, number, format!("must be {words}"));
    }
    known.ok()
}

/// A port where 0 means none.
pub(super) fn port(field: &str, number: u32, v: &mut Violations) -> Option<Option<Port>> {
    match u16::try_from(number) {
        Ok(port) => Some(Port::new(port)),
        Err(_) => {
            v.add(field, number, "port must be 1 to 65535, or 0 for the backend's own");
            None
        }
    }
}

/// Paths of a field mask, with `*` and parents spelled out as the `all` paths below them. Unknown paths are noted;
/// `ignored` ones, which only the server sets, are left out (AIP-203).
pub(super) fn mask(
    given: Option<&prost_types::FieldMask>,
    all: &[&'static str],
    ignored: &[&str],
    v: &mut Violations,
) -> Vec<&'static str> {
    let paths = given.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        v.add("update_mask", "", format!("must name the fields to change, of: {}", all.join(", ")));
    }
    let mut found = Vec::new();
    for path in paths {
        let parent = format!("{path}.");
        let below: Vec<&'static str> =
            all.iter().copied().filter(|a| path == "*" || a == path || a.starts_with(&parent)).collect();
        if below.is_empty() && !ignored.contains(&path.as_str()) {
            v.add("update_mask", path, format!("must be one of: {}", all.join(", ")));
        }
        found.extend(below);
    }
    found.sort_unstable();
    found.dedup();
    found
}
