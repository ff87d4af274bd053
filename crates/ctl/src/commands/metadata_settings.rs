//! Who cares for a resource, and notes on it, as options of every kind.

use std::collections::BTreeMap;

use clap::Args;

use super::resource::{GivenChange, ResourceKind};
use crate::input::Input;

const RULE: &str = "must be KEY=VALUE, as in example.com/ticket=OPS-12, or KEY- to take the annotation away";

/// Metadata of a resource.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Metadata")]
pub(crate) struct MetadataSettings {
    /// Who cares for it, in free text of at most 128 bytes; "" for nobody in particular
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// Note on it, as in example.com/ticket=OPS-12; KEY- takes the one of that key away, and the others stay; may be repeated,
    /// and a resource has at most 16
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

/// What becomes of each annotation that is named; `None` takes it away.
type Notes = BTreeMap<String, Option<String>>;

impl MetadataSettings {
    /// Adds what was given to a change.
    pub(super) fn add_to<R: ResourceKind>(&self, change: &mut GivenChange<R>, input: &mut Input) {
        if let Some(owner) = &self.owner {
            change.resource.metadata_mut().0.clone_from(owner);
            change.paths.push("owner".to_owned());
        }
        let notes = self.notes(input);
        if !notes.is_empty() {
            // The API replaces all annotations together.
            change.additions.push(Box::new(|current: &R, change: &mut GivenChange<R>, _: &mut Input| {
                *change.resource.metadata_mut().1 = annotated(current.annotations(), notes);
                change.paths.push("annotations".to_owned());
            }));
        }
    }

    fn notes(&self, input: &mut Input) -> Notes {
        let mut notes = Notes::new();
        for text in &self.annotation {
            let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
                (Some((key, value)), _) => (key, Some(value.to_owned())),
                (None, Some(key)) => (key, None),
                (None, None) => {
                    input.refuse("--annotation", text, RULE);
                    continue;
                }
            };
            if notes.insert(key.to_owned(), value).is_some() {
                input.refuse("--annotation", text, "must not name a key twice");
            }
        }
        notes
    }
}

/// Annotations after a change of some.
fn annotated(current: &BTreeMap<String, String>, notes: Notes) -> BTreeMap<String, String> {
    let mut all = current.clone();
    for (key, value) in notes {
        match value {
            Some(value) => all.insert(key, value),
            None => all.remove(&key),
        };
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_api::v1;

    use super::*;

    fn given(owner: Option<&str>, annotations: &[&str]) -> MetadataSettings {
        let annotation = annotations.iter().map(|&text| text.to_owned()).collect();
        MetadataSettings { owner: owner.map(str::to_owned), annotation }
    }

    #[test]
    fn annotations_that_are_not_named_stay() {
        let settings = given(Some("team web"), &["ticket=OPS-12", "empty=", "a=b=c", "gone-", "never-"]);
        let (mut change, mut input) = (GivenChange::<v1::Pool>::default(), Input::default());
        settings.add_to(&mut change, &mut input);
        let notes = [("gone", "x"), ("kept", "y"), ("ticket", "OPS-1")];
        let annotations = notes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        change.complete(&v1::Pool { annotations, ..v1::Pool::default() }, &mut input);
        input.finish().unwrap();
        assert_eq!(change.paths, ["owner", "annotations"]);
        assert_eq!(change.resource.owner, "team web");
        let wanted = [("a", "b=c"), ("empty", ""), ("kept", "y"), ("ticket", "OPS-12")];
        assert_eq!(
            change.resource.annotations,
            wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        );
    }

    #[test]
    fn nothing_is_changed_unless_it_is_given() {
        let (mut change, mut input) = (GivenChange::<v1::Vip>::default(), Input::default());
        given(None, &[]).add_to(&mut change, &mut input);
        assert!(change.paths.is_empty() && change.additions.is_empty());
        given(Some(""), &[]).add_to(&mut change, &mut input);
        assert_eq!(change.paths, ["owner"]);
    }

    #[test]
    fn what_is_no_annotation_and_keys_that_come_twice_are_refused() {
        let mut input = Input::default();
        given(None, &["ticket", "a=1", "a=2", "b-", "b=1"]).notes(&mut input);
        let text = input.finish().unwrap_err().render();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("--annotation \"ticket\": must be KEY=VALUE"), "{text}");
        assert!(text.contains("--annotation \"b=1\": must not name a key twice"), "{text}");
    }
}
