//! What people and programs write on a resource for themselves. It changes nothing of what a resource does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::defaults::{ANNOTATION_KEY_MAX, ANNOTATION_VALUE_MAX, ANNOTATIONS_MAX, OWNER_MAX};
use crate::violation::Violations;

/// Who cares for a resource, and notes on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Who cares for it, in free text of at most 128 bytes; empty for nobody in particular.
    pub owner: Arc<str>,
    /// Notes by their keys, at most 16. A key has 1 to 63 characters of a-z, A-Z, 0-9, '-', '_', '.' and '/'; a value has at
    /// most 256 bytes.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
}

fn is_key(key: &str) -> bool {
    (1..=ANNOTATION_KEY_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

fn is_value(value: &str) -> bool {
    value.len() <= ANNOTATION_VALUE_MAX && !value.chars().any(char::is_control)
}

impl Metadata {
    /// About how many bytes it takes; every version counts alike.
    pub(crate) fn weight(&self) -> usize {
        let notes = self.annotations.iter().map(|(key, value)| key.len() + value.len() + 8);
        self.owner.len() + notes.sum::<usize>()
    }

    /// Notes every part that breaks a rule; `kind` is the resource's, as in "pool".
    pub fn check(&self, kind: &str, v: &mut Violations) {
        if self.owner.len() > OWNER_MAX || self.owner.chars().any(char::is_control) {
            let rule = format!("must be at most {OWNER_MAX} bytes without control characters");
            v.add(format!("{kind}.owner"), &self.owner, rule);
        }
        let field = format!("{kind}.annotations");
        let count = self.annotations.len();
        if count > ANNOTATIONS_MAX {
            v.add(&field, format!("{count} annotations"), format!("must be at most {ANNOTATIONS_MAX}"));
        }
        for (key, value) in &self.annotations {
            if !is_key(key) {
                let rule = format!(
                    "must have a key of 1 to {ANNOTATION_KEY_MAX} characters of a-z, A-Z, 0-9, '-', '_', '.' and '/'"
                );
                v.add(&field, key, rule);
            } else if !is_value(value) {
                let rule = format!("must be at most {ANNOTATION_VALUE_MAX} bytes without control characters");
                v.add(format!("{field}[{key}]"), value, rule);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(owner: &str, annotations: &[(&str, &str)]) -> usize {
        let annotations = annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut v = Violations::new();
        Metadata { owner: owner.into(), annotations }.check("pool", &mut v);
        v.into_vec().len()
    }

    #[test]
    fn notes_have_bounds() {
        let (long, longer) = ("x".repeat(256), "x".repeat(257));
        assert_eq!(
            mistakes("team database, ask for José", &[("example.com/ticket", "OPS-12"), ("a", &long)]),
            0
        );
        assert_eq!(mistakes(&longer, &[("", "v"), ("two words", "v"), ("k", &longer), ("n", "a\nb")]), 5);
        let many: Vec<String> = (0..17).map(|n| format!("k{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "")).collect();
        assert_eq!((mistakes("", &many), mistakes("", many.get(..16).unwrap_or_default())), (1, 0));
    }
}
