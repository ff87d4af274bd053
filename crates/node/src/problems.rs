//! What is wrong with this member itself, in words for its operator.

use crate::member::Member;

impl Member {
    /// One sentence for each thing that is wrong here, with what to do about it; empty when nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.consensus.problems()
    }
}
