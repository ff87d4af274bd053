//! Conversions between the storage messages and the model.
//!
//! Encoding cannot fail: `storage::T::from(&model)`. Decoding is `model::T::try_from(message)` and checks everything
//! that the model's own parsers check, because the bytes come from a disk or from another member.

mod authority;
mod command;
mod digest;
mod document;
mod identity;
mod machine;
mod member;
mod origin;
mod outcome;
mod record;
mod token;
mod user;
mod vip;

pub use digest::{machine_digest, state_digest};
pub use member::feature_level;
pub use origin::actor;

use std::time::Duration;

use trestle_model::defaults::{DURATION_MAX, NUMBER_MAX};
use trestle_model::{Violation, Violations};

use crate::settings::time as duration_message;

/// Why a stored message is not one that this program can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field that is always written is not there.
    #[error("stored {message} lacks its {field}, which is always written")]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// It is of a kind that this version does not know, which a newer one has written.
    #[error("stored {0} is none that this version knows; upgrade this member to the version of the others")]
    Newer(&'static str),
    /// A value breaks a rule of the model.
    #[error("stored {field} \"{value}\" {rule}")]
    Rule {
        /// The field.
        field: String,
        /// The value.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
}

impl DecodeError {
    fn rule(field: &str, value: impl std::fmt::Display, rule: impl Into<String>) -> Self {
        Self::Rule { field: field.to_owned(), value: value.to_string(), rule: rule.into() }
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
    if value <= max {
        Ok(value)
    } else {
        Err(DecodeError::rule(field, value, format!("must be at most {max}")))
    }
}

/// Runs the model's check of the numbers of a resource. Only for what was accepted: a command may break a rule, and is refused
/// when it is applied.
fn in_bounds(check: impl FnOnce(&mut Violations)) -> Result<(), DecodeError> {
    let mut found = Violations::new();
    check(&mut found);
    let rule =
        |v: &Violation| DecodeError::rule("setting", format_args!("{} {}", v.field, v.value), v.rule.clone());
    found.into_vec().first().map_or(Ok(()), |v| Err(rule(v)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use trestle_model::{Command, Machine, Pool, PoolName, PoolSpec, Proposal, Tenure};

    use super::*;
    use crate::storage;

    fn time(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    #[test]
    fn a_tenure_has_bounds() {
        let tenure =
            |term, reach| storage::Tenure { member_id: 1, term, reach: Some(time(reach)), released: false };
        assert!(Tenure::try_from(tenure(3, 3600)).is_ok());
        for (term, reach) in [(3, 3601), (3, i64::MAX), (3, -1), (u64::MAX, 1), (NUMBER_MAX + 1, 1)] {
            let error = Tenure::try_from(tenure(term, reach)).unwrap_err().to_string();
            assert!(error.contains("must be"), "{error}");
        }
    }

    #[test]
    fn no_duration_is_longer_than_can_be_added_to_a_moment() {
        assert_eq!(duration("t", time(10 * 365 * 24 * 3600)), Ok(DURATION_MAX));
        for seconds in [10 * 365 * 24 * 3600 + 1, i64::MAX, -1] {
            assert!(duration("t", time(seconds)).is_err(), "{seconds}");
        }
    }

    #[test]
    fn what_was_accepted_is_within_the_bounds_of_settings_and_what_was_proposed_need_not_be() {
        let name = PoolName::parse("web").unwrap();
        let spec = PoolSpec { connect_timeout: Duration::from_secs(61), ..PoolSpec::default() };
        // It is refused when it is applied, but it was written.
        let command = Command::create((name.clone(), spec.clone()));
        let proposal = Proposal { origin: None, request: None, command };
        assert_eq!(Proposal::try_from(storage::Proposal::from(&proposal)), Ok(proposal));
        let pool = storage::Pool::from(&Pool { name, spec, revision: 1 });
        let error = Pool::try_from(pool.clone()).unwrap_err().to_string();
        assert!(error.contains("pool.connect_timeout") && error.contains("must be 10ms to 60s"), "{error}");
        let entry = storage::PoolEntry { pool: Some(pool), backends: Vec::new() };
        let machine = storage::Machine { pools: vec![entry], ..Default::default() };
        assert!(Machine::try_from(machine).is_err());
        let machine = storage::Machine { revision: u64::MAX, ..Default::default() };
        assert!(Machine::try_from(machine).is_err());
    }
}
