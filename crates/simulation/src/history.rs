//! What clients asked and heard, and what was applied: the record on which a run is judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use trestle_api::stored::state_digest;
use trestle_consensus::{ClusterView, RevisionChanges};
use trestle_model::{Change, ChangeKind, PoolName, Resource};

/// What a client heard in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientAnswer {
    /// Written, under this revision.
    Written(u64),
    /// A state of this revision.
    Read(u64),
    /// Certainly not written.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// A client's operation.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) invoked: u64,
    pub(crate) ended: Option<(u64, ClientAnswer)>,
}

/// The record of a run.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// By revision: which operation it carried out, with the hash of what it changed.
    pub(crate) revisions: BTreeMap<u64, (Option<u64>, String)>,
    /// By operation: the revisions in which it was carried out.
    pub(crate) carried_out: BTreeMap<u64, Vec<u64>>,
    /// By index: what each member had applied then.
    digests: BTreeMap<u64, (String, u64)>,
    /// The last term in which a member led.
    last_term: u64,
    pub(crate) violations: Vec<String>,
}

/// How an operation marks what it writes.
pub(crate) fn mark(operation: u64) -> Arc<str> {
    format!("op-{operation}").into()
}

fn operation_of(mark: &str) -> Option<u64> {
    mark.strip_prefix("op-")?.parse().ok()
}

/// The two pools of a register, which each operation writes together.
pub(crate) fn pools(register: usize) -> [PoolName; 2] {
    ["a", "b"].map(|side| PoolName::parse(&format!("{side}{register}")).expect("a name"))
}

impl History {
    pub(crate) fn violated(&mut self, invariant: &str, what: impl std::fmt::Display) {
        self.violations.push(format!("{invariant}: {what}"));
    }

    /// Notes a term in which a member leads. One may follow another in the same term: with openraft's `leader_id_adv`, what is there once is
    /// a term with a member's id, and voters go over to the higher one.
    pub(crate) fn note_term(&mut self, term: u64) {
        self.last_term = self.last_term.max(term);
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.last_term
    }

    /// Notes what a member has applied.
    pub(crate) fn note_view(&mut self, member: usize, view: &ClusterView) {
        self.check_pairs(member, view);
        let digest = format!("{} {:?}", state_digest(&view.state), view.state.tenure);
        let seen = (digest, view.applied_term);
        let known = self.digests.entry(view.applied).or_insert_with(|| seen.clone()).clone();
        if known != seen {
            let what =
                format!("m{} has {seen:?} at entry {}, another one {known:?}", member + 1, view.applied);
            self.violated("committed entries never differ", what);
        }
    }

    /// Both pools of a register are written by one operation, or neither.
    fn check_pairs(&mut self, member: usize, view: &ClusterView) {
        for register in 0..crate::clients::REGISTERS {
            let [a, b] = pools(register).map(|name| {
                let entry = view.state.pools.get(&name);
                entry.map(|entry| (entry.pool.spec.metadata.owner.clone(), entry.pool.revision))
            });
            if a != b {
                let what = format!("m{} has {a:?} and {b:?} of register {register}", member + 1);
                self.violated("a batch is applied as a whole", what);
            }
        }
    }

    /// Notes the changes of a revision as a member applied them.
    pub(crate) fn note_changes(&mut self, member: usize, changes: &RevisionChanges) {
        let by = changes.request.as_ref().and_then(|request| operation_of(request.as_str()));
        let by = by.or_else(|| changes.changes.iter().find_map(operation));
        let seen = (by, format!("{:?}", changes.changes));
        match self.revisions.get(&changes.revision) {
            None => {
                if let Some(by) = by {
                    self.carried_out.entry(by).or_default().push(changes.revision);
                }
                self.revisions.insert(changes.revision, seen);
            }
            Some(known) if *known != seen => {
                let what =
                    format!("revision {} is {known:?} and on m{} {seen:?}", changes.revision, member + 1);
                self.violated("committed entries never differ", what);
            }
            Some(_) => {}
        }
    }

    /// Judges what clients heard by what was applied. Revisions are one order of all writes, so it is enough that each operation is
    /// later in it than whatever had ended before it began.
    pub(crate) fn judge(&mut self) {
        let mut found = Vec::new();
        for (operation, revisions) in &self.carried_out {
            if revisions.len() > 1 {
                found.push(format!("no write is applied twice: op {operation} in {revisions:?}"));
            }
        }
        for (operation, asked) in &self.asked {
            let Some((_, heard)) = &asked.ended else { continue };
            let done = self.carried_out.get(operation);
            match heard {
                ClientAnswer::Written(revision) if done.is_none_or(|done| !done.contains(revision)) => {
                    found.push(format!(
                        "no acknowledged write is lost: op {operation} was acknowledged at {revision}, and carried out in {done:?}"
                    ));
                }
                ClientAnswer::Refused(why) if done.is_some() => found.push(format!(
                    "no refused write is applied: op {operation} was refused ({why}), and carried out in {done:?}"
                )),
                _ => {}
            }
        }
        self.judge_order(&mut found);
        self.violations.extend(found);
    }

    fn judge_order(&self, found: &mut Vec<String>) {
        let mut ends: Vec<(u64, u64, u64)> = Vec::new();
        for (operation, asked) in &self.asked {
            if let Some((at, ClientAnswer::Written(revision) | ClientAnswer::Read(revision))) = asked.ended {
                ends.push((at, revision, *operation));
            }
        }
        ends.sort_unstable();
        let mut begins: Vec<(&u64, &Asked)> = self.asked.iter().collect();
        begins.sort_by_key(|(_, asked)| asked.invoked);
        let (mut next, mut newest) = (0, (0, 0));
        for (operation, asked) in begins {
            while let Some((_, revision, by)) = ends.get(next).filter(|(at, ..)| *at < asked.invoked) {
                newest = newest.max((*revision, *by));
                next += 1;
            }
            let (revision, late) = match &asked.ended {
                Some((_, ClientAnswer::Read(revision))) => (*revision, *revision < newest.0),
                Some((_, ClientAnswer::Written(revision))) => (*revision, *revision <= newest.0),
                _ => match self.carried_out.get(operation).and_then(|done| done.first()) {
                    Some(revision) => (*revision, *revision <= newest.0),
                    None => continue,
                },
            };
            if late {
                found.push(format!(
                    "reads and writes are linearizable: op {operation} is at revision {revision}, and op {} had ended at {} before it \
                     began",
                    newest.1, newest.0
                ));
            }
        }
    }
}

/// Which operation wrote a resource.
fn operation(change: &Change) -> Option<u64> {
    match &change.resource {
        // What is deleted has the mark of who wrote it.
        _ if change.kind == ChangeKind::Deleted => None,
        Resource::Pool(pool, _) => operation_of(&pool.spec.metadata.owner),
        _ => None,
    }
}
