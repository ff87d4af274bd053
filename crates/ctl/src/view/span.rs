//! Durations and times as documents have them: a duration under two keys, `age` as it is typed and `age_seconds` as a number
//! that programs can compare; a time in RFC 3339, in UTC.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::duration::duration_text;

/// The last second of the year 9999, beyond which RFC 3339 has no words.
const LAST_SECOND: u64 = 253_402_300_799;

/// A duration; shown as it is typed, in a document by one of the functions of [`two_keys`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(Duration);

impl Span {
    /// A setting, as it is.
    pub(super) fn setting(wire: Option<&prost_types::Duration>) -> Option<Self> {
        Duration::try_from(*wire?).ok().map(Self)
    }

    /// A setting of which 0 stands for off.
    pub(super) fn unless_off(wire: Option<&prost_types::Duration>) -> Option<Self> {
        Self::setting(wire).filter(|span| !span.0.is_zero())
    }

    /// How long something has lasted, in whole seconds.
    pub(super) fn seconds(wire: Option<&prost_types::Duration>) -> Option<Self> {
        Self::setting(wire).map(|Self(d)| Self(Duration::from_secs(d.as_secs())))
    }

    /// Something short, as a lease is, in whole milliseconds.
    pub(super) fn millis(wire: Option<&prost_types::Duration>) -> Option<Self> {
        Self::setting(wire).map(|Self(d)| Self(Duration::new(d.as_secs(), d.subsec_millis() * 1_000_000)))
    }

    /// Something very short, as connecting is, in whole microseconds.
    pub(super) fn micros(wire: Option<&prost_types::Duration>) -> Option<Self> {
        Self::setting(wire).map(|Self(d)| Self(Duration::new(d.as_secs(), d.subsec_micros() * 1_000)))
    }

    /// The duration itself.
    pub(super) fn get(self) -> Duration {
        self.0
    }

    /// When that long ago was, in whole seconds by this machine's clock.
    pub(super) fn ago(self) -> Option<String> {
        self.before(SystemTime::now())
    }

    fn before(self, now: SystemTime) -> Option<String> {
        let seconds = now.checked_sub(self.0)?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        if seconds > LAST_SECOND {
            return None;
        }
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(humantime::format_rfc3339_seconds(at).to_string())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_text(self.0))
    }
}

/// A member's time in RFC 3339; `None` when that has no words for it.
pub(super) fn rfc3339(time: prost_types::Timestamp) -> Option<String> {
    let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= LAST_SECOND)?;
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))?;
    Some(humantime::format_rfc3339_millis(at).to_string())
}

/// For each name a function for `#[serde(flatten, serialize_with = "span::NAME")]`, which writes the keys `NAME` and
/// `NAME_seconds`; both are null where there is no duration.
macro_rules! two_keys {
    ($($name:ident)*) => {
        $(pub(super) fn $name<S: Serializer>(span: &Option<Span>, serializer: S) -> Result<S::Ok, S::Error> {
            let both = [
                (stringify!($name), Form::Text(span.map(|span| span.to_string()))),
                (concat!(stringify!($name), "_seconds"), Form::Number(span.map(|span| span.0.as_secs_f64()))),
            ];
            serializer.collect_map(both)
        })*
    };
}

#[derive(Serialize)]
#[serde(untagged)]
enum Form {
    Text(Option<String>),
    Number(Option<f64>),
}

two_keys! {
    age ago announced_ago connect_time connect_timeout dead_peer_timeout drain_deadline drain_left election_timeout_max
    fast_interval fence_open_for fence_repaired_ago first_bytes_timeout foreign_ago idle_timeout interval max_lifetime
    preference_delay queue_timeout slow_start stickiness timeout uptime
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_text_and_a_number() {
        #[derive(Serialize)]
        struct View {
            #[serde(flatten, serialize_with = "timeout")]
            timeout: Option<Span>,
            #[serde(flatten, serialize_with = "age")]
            age: Option<Span>,
        }
        let wire = prost_types::Duration { seconds: 90, nanos: 53_972 };
        let view = View { timeout: Span::micros(Some(&wire)), age: None };
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(
            json,
            r#"{"timeout":"1m30s53us","timeout_seconds":90.000053,"age":null,"age_seconds":null}"#
        );
        let yaml = serde_saphyr::to_string(&view).unwrap();
        assert_eq!(yaml, "timeout: 1m30s53us\ntimeout_seconds: 90.000053\nage: null\nage_seconds: null\n");
    }

    #[test]
    fn durations_are_cut_and_never_rounded_up() {
        let wire = prost_types::Duration { seconds: 1, nanos: 999_999_999 };
        let text = |span: Option<Span>| span.map(|span| span.to_string()).unwrap_or_default();
        assert_eq!(text(Span::seconds(Some(&wire))), "1s");
        assert_eq!(text(Span::millis(Some(&wire))), "1s999ms");
        assert_eq!(text(Span::micros(Some(&wire))), "1s999ms999us");
        assert_eq!(Span::setting(Some(&prost_types::Duration { seconds: -1, nanos: 0 })), None);
        assert_eq!(Span::unless_off(Some(&prost_types::Duration::default())), None);
    }

    #[test]
    fn a_moment_that_long_ago_has_whole_seconds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        let before = |seconds| Span(Duration::from_secs(seconds)).before(now);
        assert_eq!(before(0).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(before(90).as_deref(), Some("2023-11-14T22:11:50Z"));
        assert_eq!(before(1_700_000_001), None);
    }

    #[test]
    fn times_that_have_no_words_are_left_out() {
        let time = |seconds, nanos| rfc3339(prost_types::Timestamp { seconds, nanos });
        assert_eq!(time(253_402_300_799, 999_999_999).as_deref(), Some("9999-12-31T23:59:59.999Z"));
        assert_eq!((time(253_402_300_800, 0), time(-1, 0), time(0, -1)), (None, None, None));
    }
}
