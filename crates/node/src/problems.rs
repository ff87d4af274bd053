//! What is wrong with this member itself, in words for its operator.

use crate::member::Member;

impl Member {
    /// One sentence for each thing that is wrong here, with what to do about it; empty when nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let missing = self.missing_parts().into_iter();
        let missing =
            missing.map(|part| format!("{part}; restart trestled there, and report this with its log"));
        let log = self.vips.log_silence().map(|silence| {
            format!(
                "{silence}: it hangs, or its disk does; another member leads if it can: see to the disk of the data directory there, \
                 and restart trestled if that is well"
            )
        });
        let own = self
            .plane
            .shortages()
            .into_iter()
            .chain(self.other_name())
            .chain(self.vips.own_addresses())
            .chain(self.fence_problems());
        let shadowed = self.plane.table().shadowed.clone();
        missing
            .chain(log)
            .chain(self.consensus.problems())
            .chain(own)
            .chain(shadowed.iter().cloned())
            .collect()
    }

    /// Whether its configuration gives it another name than the cluster knows.
    fn other_name(&self) -> Option<String> {
        let state = self.consensus.view().borrow().state.clone();
        let recorded = &state.members.get(&self.id()?)?.spec.name;
        let own = &self.config.name;
        (recorded != own).then(|| {
            format!(
                "its configuration names it \"{own}\", and the cluster knows it as \"{recorded}\": set name = \"{recorded}\" and \
                 restart it"
            )
        })
    }
}
