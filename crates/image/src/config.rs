//! The image's configuration: what an engine runs, and how it sees that it is well.

use serde_json::{Map, Value, json};

use crate::Image;

/// Nanoseconds of a second, in which engines count.
const SECOND: u64 = 1_000_000_000;

/// `seconds` since 1970 as RFC 3339 has it, in UTC (days to civil date as in Howard Hinnant's `civil_from_days`).
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on, so that the leap day is the last.
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The configuration of an image whose one layer has this digest.
pub(crate) fn config(image: &Image, layer: &str) -> Value {
    let created = rfc3339(image.time);
    let labels: Map<String, Value> =
        image.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "architecture": image.architecture,
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/trestled"],
            // So that `exec` finds the command by its name.
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "ExposedPorts": {"7480/tcp": {}, "7481/tcp": {}, "7482/tcp": {}},
            "Labels": labels,
            // There is no shell and no curl; the daemon asks itself.
            "Healthcheck": {
                "Test": ["CMD", "/trestled", "healthcheck"],
                "Interval": 10 * SECOND,
                "Timeout": 6 * SECOND,
                "StartPeriod": 30 * SECOND,
                "Retries": 3,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": created, "created_by": "cargo xtask image"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_dates() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_796_053_715, "2026-11-30T15:48:35Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), wanted);
        }
    }
}
