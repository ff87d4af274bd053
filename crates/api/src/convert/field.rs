//! Single fields: durations, enums and field masks.

use std::time::Duration;

use trestle_model::Violations;

use crate::settings::{Field, Path, Reader};

/// A duration that was set; negative and malformed ones are noted.
pub(super) fn duration(
    field: &'static str,
    given: Option<&prost_types::Duration>,
    v: &mut Violations,
) -> Option<Duration> {
    let mut reader = Reader::default();
    let time = Field::read(&given.copied(), &Path::Root(field), &None, &mut reader);
    v.extend(reader.found.into_vec());
    time
}

/// The oneof's own name is no field, and protobuf's JSON mapping knows only its members.
fn kind_path(path: &str) -> &str {
    match path {
        "health_check.tcp"
        | "health_check.none"
        | "health_check.tls"
        | "health_check.http"
        | "health_check.grpc"
        | "health_check.exchange" => "health_check.kind",
        other => other,
    }
}

/// Paths of a field mask, with `*` and parents spelled out as the `all` paths below them. Unknown paths are noted;
/// `ignored` ones, which only the server sets, are left out (AIP-203).
pub(super) fn mask(
    given: Option<&prost_types::FieldMask>,
    all: &[String],
    ignored: &[&str],
    v: &mut Violations,
) -> Vec<String> {
    let paths = given.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        v.add("update_mask", "", format!("must name the fields to change, of: {}", all.join(", ")));
    }
    let mut found = Vec::new();
    for path in paths {
        let path = kind_path(path);
        let parent = format!("{path}.");
        let is_meant = |one: &&String| path == "*" || *one == path || one.starts_with(&parent);
        let before = found.len();
        found.extend(all.iter().filter(is_meant).cloned());
        if found.len() == before && !ignored.contains(&path) {
            v.add("update_mask", path, format!("must be one of: {}", all.join(", ")));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a mistake is in a field that a mask names; `field` is without the resource's kind, as in `health_check.http.path`.
pub(super) fn is_named(field: &str, paths: &[String]) -> bool {
    let is_in = |path: &str| {
        field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let kinds = ["tcp", "none", "tls", "http", "grpc", "exchange"];
    paths.iter().any(|path| match path.strip_suffix(".kind") {
        Some(check) => field == check || kinds.iter().any(|kind| is_in(&format!("{check}.{kind}"))),
        None => is_in(path),
    })
}
