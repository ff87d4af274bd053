//! Mistakes in an input, all of them reported at once.

use std::fmt;
use std::ops::RangeInclusive;

/// How much of an offending value an error repeats, in characters.
const SHOWN_MAX: usize = 80;

/// One value that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field as the user wrote it, for example `pool.health_check.interval`.
    pub field: String,
    /// The value, escaped and shortened so that it is safe to print.
    pub value: String,
    /// The rule it breaks, as a phrase that continues "must …" or says what to do.
    pub rule: String,
}

impl Violation {
    /// Builds a violation; control characters in `value` are escaped and long values cut.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        let full = value.to_string();
        let mut shown: String = full.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
        if full.chars().nth(SHOWN_MAX).is_some() {
            shown.push('…');
        }
        Self { field: field.into(), value: shown, rule: rule.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": {}", self.field, self.value, self.rule)
    }
}

/// A refused input with every mistake found in it; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Violation>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Collects violations while an input is parsed, so that one answer names them all.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a violation.
    pub fn add(&mut self, field: impl Into<String>, value: impl fmt::Display, rule: impl Into<String>) {
        self.0.push(Violation::new(field, value, rule));
    }

    /// Keeps the value of a successful parse, or notes why it failed under `field`.
    pub fn take<T>(&mut self, field: &str, value: &str, parsed: Result<T, String>) -> Option<T> {
        match parsed {
            Ok(parsed) => Some(parsed),
            Err(rule) => {
                self.add(field, value, rule);
                None
            }
        }
    }

    /// Takes over violations found elsewhere.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Violation>) {
        self.0.extend(more);
    }

    /// True while nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The violations as an error, or `Ok` when there are none.
    pub fn into_result(self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid(self.0)) }
    }

    /// The violations found so far.
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}

/// Notes a value that is out of bounds.
pub(crate) fn within<T: PartialOrd + fmt::Debug>(
    v: &mut Violations,
    field: &str,
    value: &T,
    bounds: &RangeInclusive<T>,
) {
    if !bounds.contains(value) {
        v.add(field, format!("{value:?}"), format!("must be {:?} to {:?}", bounds.start(), bounds.end()));
    }
}
