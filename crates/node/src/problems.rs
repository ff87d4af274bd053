//! What is wrong with this member itself, in words for its operator.

use crate::member::Member;

impl Member {
    /// One sentence for each thing that is wrong here, with what to do about it; empty when nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let missing = self.missing_parts().into_iter();
        let missing =
            missing.map(|part| format!("{part}; restart trestled there, and report this with its log"));
        missing.chain(self.consensus.problems()).chain(self.plane.shortages()).collect()
    }
}
