//! Durations as users type and read them.

use std::time::Duration;

/// The rule for durations, as it is told to users.
pub(crate) const DURATION_RULE: &str = "must be a duration with a unit, as in 500ms, 2s or 1m30s";

/// A duration as it can be typed: `500ms`, `2s`, `1m30s`.
pub(crate) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_can_be_typed() {
        for (millis, text) in
            [(0, "0s"), (50, "50ms"), (2_000, "2s"), (90_000, "1m30s"), (86_400_000, "1day")]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(duration_text(duration), text);
            assert_eq!(humantime::parse_duration(text).ok(), Some(duration), "{text}");
        }
    }
}
