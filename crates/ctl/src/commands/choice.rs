//! Options that take one of a few words, as the model has them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use trestle_model::Choice;

/// Parses the words of a setting.
pub(super) fn choice<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let words = T::TABLE.iter().map(|chosen| PossibleValue::new(chosen.word).help(chosen.help));
    PossibleValuesParser::new(words).try_map(|word| T::parse(&word))
}

/// The number of a value as the API takes it; 0 for the default.
pub(super) fn number<T: Choice>(value: Option<T>) -> i32 {
    value.map_or(0, T::number)
}
