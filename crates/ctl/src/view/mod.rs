//! What JSON and YAML show: stable documents with the words of the command line. Durations are written as they are
//! typed, names without the API's prefixes, and every key is always there.

mod backend;
mod event;
mod listener;
mod member;
mod pool;
mod status;

pub(crate) use backend::{BackendState, BackendView};
pub(crate) use event::EventView;
pub(crate) use listener::ListenerView;
pub(crate) use member::MemberView;
pub(crate) use pool::PoolView;
pub(crate) use status::StatusView;

use std::time::Duration;

use crate::output::duration_text;

/// A resource's name as the command line takes it: "web", "web/a", "m1".
pub(crate) fn short_name(resource: &str) -> String {
    let parts: Vec<&str> = resource.split('/').collect();
    match parts.as_slice() {
        ["pools", pool, "backends", backend] => format!("{pool}/{backend}"),
        ["pools" | "listeners" | "members", name] => (*name).to_owned(),
        _ => resource.to_owned(),
    }
}

/// A duration as it can be typed, if it is set and not negative.
fn typed_duration(duration: Option<&prost_types::Duration>) -> Option<String> {
    std_duration(duration).map(duration_text)
}

/// A duration that tells how long something has lasted, in whole seconds.
fn typed_age(duration: Option<&prost_types::Duration>) -> Option<String> {
    std_duration(duration).map(|d| duration_text(Duration::from_secs(d.as_secs())))
}

fn std_duration(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|d| Duration::try_from(*d).ok())
}

/// Plain words for what may be missing.
fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_commands_take() {
        for (resource, name) in [
            ("pools/web", "web"),
            ("pools/web/backends/a", "web/a"),
            ("listeners/front", "front"),
            ("members/m1", "m1"),
            ("something/else/new", "something/else/new"),
        ] {
            assert_eq!(short_name(resource), name);
        }
    }
}
