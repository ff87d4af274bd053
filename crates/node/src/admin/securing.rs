//! How a cluster that was founded without identities gets them, while it serves: each member's key is recorded by root on its machine,
//! then all ports accept TLS beside plain connections, and once nobody calls plain any more, TLS alone.

use std::time::Duration;

use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_api::{convert, v1};
use trestle_model::{Actor, Choice, TransportSecurity};

use super::{Admin, internal};
use crate::access::{Caller, Via};
use crate::identities::own_key;

/// Most reasons that a refusal lists: 15 members may have some each, and a status is bounded.
const REASONS_MAX: usize = 32;
/// How long after a plain call to a peer port its caller counts as one that would be cut off. Members that know all keys make none, and a
/// member that does not is called, and calls, within an election's time.
const MEMBERS_QUIET: Duration = Duration::from_secs(30);

pub(super) fn denied(why: &str) -> Status {
    status::failure(&Failure::Denied(why.to_owned()))
}

/// Whether it is root on this member's machine, or the user that the member runs as.
pub(super) fn is_local_root(caller: &Caller) -> bool {
    caller.via == Via::UnixSocket && caller.actor() == Some(&Actor::LocalRoot)
}

/// The one refusal that lists all reasons.
fn not_yet(mut reasons: Vec<String>) -> Status {
    let more = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    let why = format!("plain connections cannot be refused yet: {}; nothing was changed", reasons.join("; "));
    status::failure(&Failure::Membership(why))
}

impl Admin {
    /// Has the cluster record this member's own key.
    pub(super) async fn enroll(
        &self,
        caller: &Caller,
        request: &v1::EnrollMemberRequest,
    ) -> Result<v1::Member, Status> {
        if !is_local_root(caller) {
            return Err(denied(
                "a member's key is recorded by root on its own machine, or by the user that trestled runs as, over the admin \
                 socket: run \"trestle member enroll\" there",
            ));
        }
        self.require_membership()?;
        let Some(id) = self.local.id() else { return Err(status::failure(&Failure::NoCluster)) };
        let key = own_key::kept_or_new(&self.local.config.data_dir).map_err(|why| internal(&why))?;
        Box::pin(self.write(caller, convert::enroll_member(request, id, key.pin()))).await?;
        let newest = self.read_newest().await?;
        let own = newest.state().members.get(&id);
        own.map(|own| self.local.rendered(own)).ok_or_else(|| status::failure(&Failure::Removed))
    }

    /// Changes what all members' ports accept.
    pub(super) async fn secure(
        &self,
        caller: &Caller,
        request: &v1::SecureClusterRequest,
    ) -> Result<v1::SecureClusterResponse, Status> {
        let (wanted, write) = convert::secure_cluster(request).map_err(|found| status::invalid(&found))?;
        self.require_membership()?;
        let now = self.read_newest().await?.state().transport;
        if now == TransportSecurity::Require && wanted < now && !is_local_root(caller) {
            return Err(denied(
                "plain connections are accepted again only where root on a member's own machine says so, over its admin socket",
            ));
        }
        if wanted == TransportSecurity::Require && now != wanted {
            self.refuse_while_plain(request.refuse_plain_clients).await?;
        }
        let accepted = Box::pin(self.write(caller, Ok(write))).await?;
        Ok(v1::SecureClusterResponse { transport: wanted.number(), revision: accepted.revision })
    }

    /// Refuses to end plain connections while that would cut somebody off.
    async fn refuse_while_plain(&self, despite_clients: bool) -> Result<(), Status> {
        let status = self.cluster_status(false).await;
        let reasons: Vec<String> =
            status.members.iter().flat_map(|member| obstacles(member, despite_clients)).collect();
        if reasons.is_empty() { Ok(()) } else { Err(not_yet(reasons)) }
    }
}

/// Who would be cut off from a member, in words; nobody where clients may be, or where it was long ago.
fn plain_caller(name: &str, caller: &v1::PlainCaller, despite_clients: bool) -> Option<String> {
    let ago = caller.ago.and_then(|ago| Duration::try_from(ago).ok()).unwrap_or_default();
    let when = format!("{} s ago", ago.as_secs());
    if caller.port == "peer" {
        let who = caller.member.strip_prefix("members/").unwrap_or(&caller.address);
        return (ago < MEMBERS_QUIET).then(|| format!("{who} called the peer port of {name} plain {when}"));
    }
    let who = &caller.address;
    (!despite_clients).then(|| {
        format!("a client at {who} called the admin port of {name} plain {when} (\"--yes\" refuses it from then on)")
    })
}

/// What of a member would be cut off, or is not known.
fn obstacles(status: &v1::MemberStatus, despite_clients: bool) -> Vec<String> {
    let record = status.member.clone().unwrap_or_default();
    let name = record.name.strip_prefix("members/").unwrap_or(&record.name);
    let mut found = Vec::new();
    if record.keys.is_empty() {
        found.push(format!("{name} has no key: run \"trestle member enroll\" as root on its machine"));
    }
    if !status.reachable {
        found.push(format!(
            "{name} does not answer ({}), so it is not known who calls it plain",
            status.error
        ));
    }
    found
        .extend(status.plain_callers.iter().filter_map(|caller| plain_caller(name, caller, despite_clients)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(keys: &[&str], reachable: bool) -> v1::MemberStatus {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        let member = Some(v1::Member { name: "members/m2".to_owned(), keys, ..Default::default() });
        v1::MemberStatus { member, reachable, error: "connection refused".to_owned(), ..Default::default() }
    }

    #[test]
    fn whoever_would_be_cut_off_is_named_and_so_is_who_does_not_answer() {
        assert_eq!(obstacles(&member(&["0a"], true), false), Vec::<String>::new());
        let found = obstacles(&member(&[], false), false);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("m2 has no key") && found[1].contains("m2 does not answer"), "{found:?}");
        let caller = |port: &str, member: &str, seconds| v1::PlainCaller {
            port: port.to_owned(),
            address: "10.0.0.9".to_owned(),
            member: member.to_owned(),
            ago: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let plain_callers = vec![
            caller("peer", "members/m3", 5),
            caller("peer", "", 7),
            caller("peer", "members/m1", 40),
            caller("admin", "", 400),
        ];
        let called = v1::MemberStatus { plain_callers, ..member(&["0a"], true) };
        let found = obstacles(&called, false);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("m3 called the peer port of m2"), "{found:?}");
        assert!(found[1].starts_with("10.0.0.9 called the peer port"), "{found:?}");
        assert!(
            found[2].starts_with("a client at 10.0.0.9 called the admin port of m2 plain 400 s ago"),
            "{found:?}"
        );
        assert_eq!(obstacles(&called, true), found[..2]);
        let told = not_yet(vec!["x".to_owned(); 40]).message().to_owned();
        assert!(told.ends_with("x; and 8 more; nothing was changed"), "{told}");
    }
}
