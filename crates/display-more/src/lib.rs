//! Stands in for the crate of this name, with which openraft 0.10.0-alpha.37 writes what it logs. Version 0.2.6 of that crate
//! depends on chrono-tz for times, which openraft does not print with it: eleven crates, and a build script that turns the
//! database of time zones into code.
//!
//! The four traits that openraft names. Look again when openraft is updated.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

/// Most elements of a list that are written unless one says otherwise.
const SHOWN: usize = 5;

/// An option as its value, or `None`.
#[derive(Debug)]
pub struct DisplayOption<'a, T>(&'a Option<T>);

impl<T: Display> Display for DisplayOption<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("None"),
            Some(value) => value.fmt(f),
        }
    }
}

/// Options that can be written.
pub trait DisplayOptionExt<'a, T> {
    /// The option, to be written.
    fn display(&'a self) -> DisplayOption<'a, T>;
}

impl<'a, T: Display> DisplayOptionExt<'a, T> for Option<T> {
    fn display(&'a self) -> DisplayOption<'a, T> {
        DisplayOption(self)
    }
}

/// A result as `Ok(value)` or `Err(error)`.
#[derive(Debug)]
pub struct DisplayResult<'a, T, E>(&'a Result<T, E>);

impl<T: Display, E: Display> Display for DisplayResult<'_, T, E> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(value) => write!(f, "Ok({value})"),
            Err(error) => write!(f, "Err({error})"),
        }
    }
}

/// Results that can be written.
pub trait DisplayResultExt<'a, T, E> {
    /// The result, to be written.
    fn display(&'a self) -> DisplayResult<'a, T, E>;
}

impl<'a, T: Display, E: Display> DisplayResultExt<'a, T, E> for Result<T, E> {
    fn display(&'a self) -> DisplayResult<'a, T, E> {
        DisplayResult(self)
    }
}

/// A list as `[1,2,..,9]`: its first elements and its last, with dots for those between that would be too many.
#[derive(Debug)]
pub struct DisplayList<I> {
    elements: I,
    most: usize,
}

impl<'a, T: Display + 'a, I: ExactSizeIterator<Item = &'a T> + Clone> Display for DisplayList<I> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let all = self.elements.len();
        let first = if all > self.most { self.most.saturating_sub(1) } else { all };
        f.write_str("[")?;
        for (number, element) in self.elements.clone().take(first).enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{element}")?;
        }
        if first < all {
            f.write_str(if first > 0 { ",.." } else { ".." })?;
            if let (1.., Some(last)) = (self.most, self.elements.clone().last()) {
                write!(f, ",{last}")?;
            }
        }
        f.write_str("]")
    }
}

/// Slices that can be written.
pub trait DisplaySliceExt<'a, T: 'a> {
    /// Five elements at most.
    fn display(&'a self) -> DisplayList<std::slice::Iter<'a, T>> {
        self.display_n(SHOWN)
    }

    /// At most so many elements.
    fn display_n(&'a self, most: usize) -> DisplayList<std::slice::Iter<'a, T>>;
}

impl<'a, T: Display + 'a> DisplaySliceExt<'a, T> for [T] {
    fn display_n(&'a self, most: usize) -> DisplayList<std::slice::Iter<'a, T>> {
        DisplayList { elements: self.iter(), most }
    }
}

/// Sets that can be written.
pub trait DisplayBTreeSetExt<'a, T: 'a> {
    /// Five elements at most.
    fn display(&'a self) -> DisplayList<std::collections::btree_set::Iter<'a, T>>;
}

impl<'a, T: Display + 'a> DisplayBTreeSetExt<'a, T> for BTreeSet<T> {
    fn display(&'a self) -> DisplayList<std::collections::btree_set::Iter<'a, T>> {
        DisplayList { elements: self.iter(), most: SHOWN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts are those of the crate that this stands in for.
    #[test]
    fn values_are_written_as_openraft_expects() {
        assert_eq!(Some(1).display().to_string(), "1");
        assert_eq!(None::<u64>.display().to_string(), "None");
        assert_eq!(Result::<i32, i32>::Ok(1).display().to_string(), "Ok(1)");
        assert_eq!(Result::<i32, i32>::Err(2).display().to_string(), "Err(2)");
        let numbers = [1, 2, 3, 4, 5, 6, 7];
        assert_eq!(numbers[..0].display().to_string(), "[]");
        assert_eq!(numbers[..5].display().to_string(), "[1,2,3,4,5]");
        assert_eq!(numbers.display().to_string(), "[1,2,3,4,..,7]");
        assert_eq!(numbers.display_n(2).to_string(), "[1,..,7]");
        assert_eq!(numbers.display_n(1).to_string(), "[..,7]");
        assert_eq!(numbers.display_n(0).to_string(), "[..]");
        assert_eq!(BTreeSet::from(numbers).display().to_string(), "[1,2,3,4,..,7]");
    }
}
