//! Whether this process is whole, and what is wrong with it, in words for its operator.

use std::sync::Arc;

use trestle_dataplane::DataPlane;
use trestle_identity::time_text;
use trestle_model::ClusterState;

use crate::identities::{AuthorityKeys, OwnLeaf};
use crate::supervise::Supervisor;
use crate::this_member::ThisMember;
use crate::vips::Vips;

/// What the health of this process is seen by.
pub(crate) struct ProcessHealth {
    pub(crate) local: ThisMember,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) vips: Arc<Vips>,
    pub(crate) supervisor: Supervisor,
    pub(crate) leaf: OwnLeaf,
}

impl ProcessHealth {
    /// The parts of this process that have ended or give no sign of life, in words; empty while it is whole.
    pub(crate) fn missing_parts(&self) -> Vec<String> {
        let workers = self.plane.accepting().err().unwrap_or_default();
        let workers = workers.into_iter().filter(|fault| fault.listener.is_none()).map(|fault| fault.why);
        let own = self.supervisor.missing().into_iter().chain(self.vips.missing());
        own.chain(self.plane.silent()).chain(workers).collect()
    }

    /// Whether all parts that there is one of give signs of life. Asked by the thread that keeps the leases, so it is quick.
    pub(crate) fn is_whole(&self) -> bool {
        self.supervisor.is_whole() && self.vips.is_whole() && self.plane.silent().is_empty()
    }

    /// That the thread which writes the log hangs, in words.
    pub(crate) fn log_silence(&self) -> Option<String> {
        self.vips.log_silence()
    }

    /// One sentence for each thing that is wrong here, with what to do about it; empty when nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let missing = self.missing_parts().into_iter();
        let missing =
            missing.map(|part| format!("{part}; restart trestled there, and report this with its log"));
        let log = self.log_silence().map(|silence| {
            format!(
                "{silence}: it hangs, or its disk does; another member leads if it can: see to the disk of the data directory there, \
                 and restart trestled if that is well"
            )
        });
        let state = self.local.consensus.view().borrow().state.clone();
        let own = self
            .plane
            .shortages()
            .into_iter()
            .chain(self.other_name())
            .chain(self.local.founding.waits())
            .chain(self.local.arrivals.told())
            .chain(self.leaf_problem())
            .chain(self.local.trust.clock_problem())
            .chain(self.local.trust.problems())
            .chain(self.key_problems(&state))
            .chain(self.vips.own_addresses())
            .chain(self.vips.fence_problems(&state));
        let shadowed = self.plane.table().shadowed.clone();
        missing
            .chain(log)
            .chain(self.local.consensus.problems())
            .chain(own)
            .chain(shadowed.iter().cloned())
            .collect()
    }

    /// What is wrong with the keys of the cluster's authorities, as far as this member sees it.
    fn key_problems(&self, state: &ClusterState) -> Vec<String> {
        let Some(me) = self.local.id() else { return Vec::new() };
        let keys = AuthorityKeys::new(self.local.config.data_dir.clone());
        let votes = self.local.consensus.view().borrow().voters.contains(&me);
        let mut found = Vec::new();
        for authority in state.signing_authorities() {
            let generation = authority.generation;
            if !authority.key_holders.iter().any(|id| state.members.contains_key(id)) {
                found.push(format!(
                    "no member of the cluster has the key of authority {generation}, so that nobody signs certificates: put it back from a \
                     backup with \"trestle restore --ca-key-only FILE\", or replace the authority with \"trestle ca rotate --yes\""
                ));
            } else if votes && authority.key_holders.contains(&me) && !keys.has(state, generation) {
                found.push(format!(
                    "it does not have the key of authority {generation} any more, which was in {}: it gets it from another member that has it \
                     (\"trestle ca list\"); if none has, put it back from a backup with \"trestle restore --ca-key-only FILE\", or replace \
                     the authority with \"trestle ca rotate --yes\"",
                    keys.path(generation).display()
                ));
            }
        }
        found
    }

    /// Why its certificate for TLS is none, or an old one.
    fn leaf_problem(&self) -> Option<String> {
        let why = self.leaf.trouble()?;
        let end = self.local.trust.leaf().map(|leaf| leaf.facts().not_after);
        let until = end.map(|end| format!("; the one that it has ends at {}", time_text(end)));
        Some(format!("{why}{}", until.unwrap_or_default()))
    }

    /// Whether its configuration gives it another name than the cluster knows.
    fn other_name(&self) -> Option<String> {
        let state = self.local.consensus.view().borrow().state.clone();
        let recorded = &state.members.get(&self.local.id()?)?.spec.name;
        let own = &self.local.config.name;
        (recorded != own).then(|| {
            format!(
                "its configuration names it \"{own}\", and the cluster knows it as \"{recorded}\": set name = \"{recorded}\" and \
                 restart it"
            )
        })
    }
}
