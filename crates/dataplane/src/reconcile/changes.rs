//! What is different between two configurations of a pool.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use trestle_model::{self as model, BackendName};

type Wanted = Arc<model::Backend>;

/// What is different in `new`: backends as they are now, or `None` for one that is gone. With `all`, also what is not
/// different. Walks both in order, because a pool can have 20 000 backends of which one changed.
pub(super) fn changes(
    old: &BTreeMap<BackendName, Wanted>,
    new: &BTreeMap<BackendName, Wanted>,
    all: bool,
) -> Vec<(BackendName, Option<Wanted>)> {
    let (mut old, mut new) = (old.values().peekable(), new.values().peekable());
    let mut found = Vec::new();
    while let Some(order) = match (old.peek(), new.peek()) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(was), Some(is)) if Arc::ptr_eq(was, is) => Some(Ordering::Equal),
        (Some(was), Some(is)) => Some(was.name.cmp(&is.name)),
    } {
        let was = old.next_if(|_| order.is_le());
        let is = new.next_if(|_| order.is_ge());
        match (was, is) {
            (Some(was), None) => found.push((was.name.clone(), None)),
            (Some(was), Some(is)) if Arc::ptr_eq(was, is) && !all => {}
            (_, Some(is)) => found.push((is.name.clone(), Some(is.clone()))),
            (None, None) => {}
        }
    }
    found
}
