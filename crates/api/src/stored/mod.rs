//! Conversions between the storage messages and the model.
//!
//! Encoding cannot fail: `storage::T::from(&model)`. Decoding is `model::T::try_from(message)` and checks everything
//! that the model's own parsers check, because the bytes come from a disk or from another member.

mod backend;
mod check;
mod command;
mod listener;
mod machine;
mod member;
mod outcome;
mod pool;
mod vip;
mod whole;

use std::time::Duration;

use trestle_model::defaults::{DURATION_MAX, NUMBER_MAX};
use trestle_model::{Violation, Violations};

/// Why a stored message is not one that this program can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field that is always written is not there.
    #[error(
        "stored {message} lacks its {field}, which is always written; it was damaged or written by a newer version"
    )]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A value breaks a rule of the model.
    #[error("stored {field} \"{value}\" {rule}; it was damaged or written by a newer version")]
    Rule {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
}

impl DecodeError {
    fn rule(field: &'static str, value: impl std::fmt::Display, rule: impl Into<String>) -> Self {
        Self::Rule { field, value: value.to_string(), rule: rule.into() }
    }
}

/// The value of a field that is always written.
fn required<T>(message: &'static str, field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { message, field })
}

/// Runs one of the model's parsers.
fn parsed<T>(
    field: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, DecodeError> {
    parse(text).map_err(|rule| DecodeError::rule(field, text.escape_debug(), rule))
}

/// All durations of the model are bounded by [`trestle_model::defaults`] to days, so the seconds always fit.
fn duration_message(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0),
    }
}

fn duration(field: &'static str, message: prost_types::Duration) -> Result<Duration, DecodeError> {
    duration_up_to(field, message, DURATION_MAX)
}

fn duration_up_to(
    field: &'static str,
    message: prost_types::Duration,
    max: Duration,
) -> Result<Duration, DecodeError> {
    let prost_types::Duration { seconds, nanos } = message;
    let time = match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Some(Duration::new(seconds, nanos)),
        _ => None,
    };
    time.filter(|time| *time <= max).ok_or_else(|| {
        let rule = format!("must be 0 s to {} s", max.as_secs());
        DecodeError::rule(field, format_args!("{seconds} s {nanos} ns"), rule)
    })
}

/// A term, log index, revision or id.
fn number(field: &'static str, value: u64) -> Result<u64, DecodeError> {
    number_up_to(field, value, NUMBER_MAX)
}

fn number_up_to(field: &'static str, value: u64, max: u64) -> Result<u64, DecodeError> {
    if value <= max { Ok(value) } else { Err(DecodeError::rule(field, value, format!("must be at most {max}"))) }
}

/// Runs the model's check of the numbers of a resource. Only for what was accepted: a command may break a rule, and is refused
/// when it is applied.
fn in_bounds(check: impl FnOnce(&mut Violations)) -> Result<(), DecodeError> {
    let mut found = Violations::new();
    check(&mut found);
    let rule = |v: &Violation| DecodeError::rule("setting", format_args!("{} {}", v.field, v.value), v.rule.clone());
    found.into_vec().first().map_or(Ok(()), |v| Err(rule(v)))
}
