//! The admin API: parse, propose or read, render. Decisions are the state's and Raft's; nothing is decided here.

mod closing;
mod cluster;
mod cluster_status;
mod configuration;
mod connections;
mod forward;
mod listeners;
mod members;
mod own_ports;
mod pools;
mod vip_addresses;
mod vips;
mod wait;
mod watch;

pub(crate) use wait::Waits;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Response, Status};
use trestle_api::convert::Write;
use trestle_api::{convert, status, v1};
use trestle_consensus::{DEFAULT_WAIT, View};
use trestle_model::{ClusterState, Invalid, Outcome, Request, RequestId, Revision, Violation, Violations};

use crate::member::Member;

/// Pages are this long when the caller names no size.
const PAGE_DEFAULT: usize = 100;
/// How long a question about health waits for a leader before it is answered from what this member knows.
const HEALTH_WAIT: Duration = Duration::from_secs(1);
/// Longest page.
const PAGE_MAX: usize = 1000;
/// Bytes with which a page is full: far below the 4 MiB that clients take.
const PAGE_BYTES: usize = 1 << 20;

/// The admin services of one member.
#[derive(Clone)]
pub(crate) struct Admin {
    member: Arc<Member>,
    restoring: Arc<tokio::sync::Semaphore>,
}

/// A state to read, and how fresh it is.
struct Read {
    view: Arc<View>,
    info: v1::ReadInfo,
}

impl Read {
    fn state(&self) -> &ClusterState {
        &self.view.state
    }

    /// A bare resource as answer, with how fresh it is in the metadata.
    fn answer<T>(&self, resource: T) -> Response<T> {
        let mut response = Response::new(resource);
        let metadata = response.metadata_mut();
        metadata.insert("trestle-revision", self.info.revision.into());
        if let Ok(member) = self.info.member.parse() {
            metadata.insert("trestle-member", member);
        }
        if self.info.possibly_stale {
            metadata.insert("trestle-stale", tonic::metadata::MetadataValue::from_static("maybe"));
        }
        response
    }
}

impl Admin {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member, restoring: configuration::one_at_a_time() }
    }

    /// The state at the freshness that the caller asks for.
    async fn read(&self, consistency: i32) -> Result<Read, Status> {
        let local = match v1::Consistency::try_from(consistency) {
            Ok(v1::Consistency::Local) => true,
            Ok(v1::Consistency::Linearizable | v1::Consistency::Unspecified) => false,
            Err(_) => {
                let rule = "must be CONSISTENCY_LINEARIZABLE (1) or CONSISTENCY_LOCAL (2)";
                return Err(status::invalid(&Invalid(vec![Violation::new(
                    "consistency",
                    consistency,
                    rule,
                )])));
            }
        };
        let view = if local {
            self.belongs()?;
            if let Some(why) = self.member.consensus.abstains() {
                let why = format!("this member answers no reads; {why}");
                return Err(status::failure(&status::Failure::NoLeader(why)));
            }
            self.member.consensus.view().borrow().clone()
        } else {
            self.member.consensus.read(DEFAULT_WAIT).await?
        };
        Ok(self.read_of(view, local))
    }

    /// Refuses what is asked of a member that belongs to no cluster: what it does not know of exists all the same.
    fn belongs(&self) -> Result<(), Status> {
        if self.member.consensus.was_removed() {
            return Err(status::failure(&status::Failure::Removed));
        }
        match self.member.id() {
            Some(_) => Ok(()),
            None => Err(status::failure(&status::Failure::NoCluster)),
        }
    }

    /// The newest state that can be had: what members see of backends is most wanted when there is no leader.
    async fn read_anyhow(&self) -> Result<Read, Status> {
        self.belongs()?;
        let fresh = self.member.consensus.read(HEALTH_WAIT).await;
        let view = fresh.unwrap_or_else(|_| self.member.consensus.view().borrow().clone());
        Ok(self.read_of(view, true))
    }

    fn read_of(&self, view: Arc<View>, possibly_stale: bool) -> Read {
        let member = convert::member_name(&self.member.config.name);
        let info = v1::ReadInfo { revision: view.state.revision, possibly_stale, member };
        Read { view, info }
    }

    /// Proposes a parsed write, or tries it on a copy of the state.
    async fn write(&self, parsed: Result<Write, Invalid>) -> Result<(Revision, Outcome), Status> {
        let write = parsed.map_err(|found| status::invalid(&found))?;
        self.refuse_own_ports(&write.proposal.command)?;
        if write.validate_only {
            let view = self.member.consensus.read(DEFAULT_WAIT).await?;
            let tried = view.state.decide(view.applied + 1, &write.proposal.command);
            let applied = tried.map_err(|refusal| status::refusal(&refusal))?;
            return Ok((applied.revision, applied.outcome));
        }
        let mut proposal = write.proposal;
        if proposal.request.is_none() {
            // Under a name of its own the write can be repeated here when the leader dies under it, and is applied once.
            let id = RequestId::parse(&draw()?).map_err(|rule| internal(&rule))?;
            proposal.request = Some(Request { id, fingerprint: 0 });
        }
        let accepted = self.member.consensus.propose(proposal, DEFAULT_WAIT).await?;
        Ok((accepted.revision, accepted.outcome))
    }
}

fn internal(why: &str) -> Status {
    status::failure(&status::Failure::Internal(why.to_owned()))
}

/// An accepted command answers with its own kind of resource; anything else is a fault of ours.
fn mismatch(outcome: &Outcome) -> Status {
    internal(&format!("a command answered with {outcome:?}"))
}

/// 32 hexadecimal digits from the kernel's random source.
fn draw() -> Result<String, Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| internal(&format!("no random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// One page of resources in the order of their names.
struct Page<T> {
    items: Vec<T>,
    next: String,
}

/// How long a page is for a caller that asks for `size`.
fn page_size(size: i32, v: &mut Violations) -> usize {
    if size < 0 {
        v.add("page_size", size, "must not be negative");
    }
    match usize::try_from(size) {
        Ok(0) | Err(_) => PAGE_DEFAULT,
        Ok(size) => size.min(PAGE_MAX),
    }
}

/// Cuts a page out of what comes after `token`, the id that the page before ended with. It has as many items as were asked
/// for, or fewer where they are large.
fn page<K: Ord + ToString, V, T: prost::Message>(
    all: &std::collections::BTreeMap<K, V>,
    size: i32,
    token: &str,
    parse: impl Fn(&str) -> Result<K, String>,
    render: impl Fn(&V) -> T,
) -> Result<Page<T>, Status> {
    let mut v = Violations::new();
    let size = page_size(size, &mut v);
    let after = match token {
        "" => None,
        token => {
            v.take("page_token", token, parse(token).map_err(|_| "must be a next_page_token".to_owned()))
        }
    };
    v.into_result().map_err(|found| status::invalid(&found))?;
    let start = after.as_ref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for (key, value) in all.range((start, std::ops::Bound::Unbounded)) {
        let item = render(value);
        bytes += item.encoded_len();
        if let Some(last) = last
            && (items.len() == size || bytes > PAGE_BYTES)
        {
            return Ok(Page { items, next: K::to_string(last) });
        }
        items.push(item);
        last = Some(key);
    }
    Ok(Page { items, next: String::new() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn pages_cover_everything_once() {
        let all: BTreeMap<String, u64> = (0..25).map(|n| (format!("{n:03}"), n)).collect();
        let parse = |t: &str| Ok(t.to_owned());
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = page(&all, 10, &token, parse, |n| *n).unwrap();
            seen.extend(page.items);
            if page.next.is_empty() {
                break;
            }
            token = page.next;
        }
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
        assert_eq!(page(&all, 25, "", parse, |n| *n).unwrap().next, "");
        assert!(page(&all, -1, "", parse, |n| *n).is_err());
        let large: BTreeMap<String, u64> = (0..25).map(|n| (format!("{n:03}"), n)).collect();
        let render = |_: &u64| "x".repeat(PAGE_BYTES / 4);
        let page_of = |token: &str| page(&large, 25, token, parse, render).unwrap();
        let first = page_of("");
        assert_eq!((first.items.len(), first.next.as_str()), (3, "002"));
        assert_eq!(page(&large, 25, "", parse, |_| "x".repeat(2 * PAGE_BYTES)).unwrap().items.len(), 1);
        assert!(page(&all, 1, "x", |_| Err::<String, _>(String::new()), |n| *n).is_err());
    }
}
