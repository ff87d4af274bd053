//! Who has joined by a token and is waited for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trestle_model::MemberId;

/// Why members that have joined by a token are not yet what they joined as, as the leader sees it.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<BTreeMap<MemberId, String>>);

impl Arrivals {
    fn map(&self) -> MutexGuard<'_, BTreeMap<MemberId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why a member is waited for, and answers whether that is news: the same is not said again and again.
    pub(super) fn note(&self, of: MemberId, why: String) -> bool {
        let is_news = self.map().get(&of) != Some(&why);
        self.map().insert(of, why);
        is_news
    }

    pub(super) fn keep(&self, wanted: impl Fn(&MemberId) -> bool) {
        self.map().retain(|of, _| wanted(of));
    }

    /// Who is waited for and why, one sentence each; none where this member does not lead.
    pub(crate) fn told(&self) -> Vec<String> {
        self.map().values().cloned().collect()
    }
}
