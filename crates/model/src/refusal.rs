//! Why a command was refused, as types; texts say what to do.

use crate::document::ResourceName;
use crate::join_token::{TokenId, TokenRefusal};
use crate::kind::Kind;
use crate::revision::Revision;
use crate::violation::Invalid;

/// Why the state refused a command. A refused command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The resource does not exist.
    #[error("{kind} \"{name}\" does not exist")]
    NotFound {
        /// What kind of resource.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// A resource of that name exists already.
    #[error("{kind} \"{name}\" exists already (revision {revision}); choose another name or update it")]
    Exists {
        /// What kind of resource.
        kind: Kind,
        /// Its name.
        name: String,
        /// Revision that last changed it.
        revision: Revision,
    },
    /// The resource moved on since the caller looked.
    #[error(
        "{kind} \"{name}\" is at revision {actual}, not at {expected} as the etag says; read it again, then repeat the change"
    )]
    Moved {
        /// What kind of resource.
        kind: Kind,
        /// Its name.
        name: String,
        /// Revision that the caller expected.
        expected: Revision,
        /// Revision that it has.
        actual: Revision,
    },
    /// A pool or a virtual IP is still in use.
    #[error("{kind} \"{name}\" is in use by {}; delete or update {} first", users(.listeners), if .listeners.len() == 1 { "it" } else { "them" })]
    InUse {
        /// What kind of resource.
        kind: Kind,
        /// Its name.
        name: String,
        /// The listeners that lead to the pool, or accept connections on the virtual IP.
        listeners: Vec<String>,
    },
    /// Another listener has the address.
    #[error("address {bind} is bound by listener \"{listener}\" already; choose another address or port")]
    BindTaken {
        /// The address.
        bind: String,
        /// The listener that has it.
        listener: String,
    },
    /// All listeners together would have too many ports.
    #[error(
        "listener \"{listener}\" would have {ports} ports beside {others} of the other listeners, and all together may have \
         {max}; name fewer ports, or delete a listener that nobody needs"
    )]
    TooManyPorts {
        /// The listener.
        listener: String,
        /// The ports that it would have.
        ports: usize,
        /// The ports of all others.
        others: usize,
        /// The bound.
        max: usize,
    },
    /// A bound of the cluster is reached.
    #[error("there are {max} {kind}s already, which is the most there can be")]
    Full {
        /// What there is too much of.
        kind: Kind,
        /// The bound.
        max: usize,
    },
    /// Values that break rules, alone or together with what exists.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A request id came back with another request.
    #[error("request id \"{0}\" was used for a different request; use a new id for each request")]
    RequestIdReused(String),
    /// A later term has a holder of the virtual IPs already, or the tenure is another member's.
    #[error("member {member} has no right to the vips in term {term} any more: {why}")]
    NoTenure {
        /// Who wanted to take or release them.
        member: u64,
        /// The term in which it led.
        term: u64,
        /// What is in the way.
        why: &'static str,
    },
    /// A restore would take away what is configured.
    #[error(
        "the cluster has a configuration already (pools: {pools}, listeners: {listeners}, vips: {vips}); back it up, then restore \
         with --replace to make it exactly what the document says"
    )]
    Configured {
        /// Its pools.
        pools: usize,
        /// Its listeners.
        listeners: usize,
        /// Its virtual IPs.
        vips: usize,
    },
    /// Operations of a batch about several resources failed; nothing was changed.
    #[error("nothing was changed: {}", parts(.0))]
    Batch(Vec<(ResourceName, Refusal)>),
    /// The pieces of a large proposal are not there as they were sent.
    #[error("another large change came in between and nothing was changed; try again")]
    StagingLost,
    /// Not all members' programs know what this needs.
    #[error("this needs feature level {needed}, and the cluster is at {level}: {}", held_back(.members))]
    FeatureLevel {
        /// The level that it needs.
        needed: u32,
        /// The level of the cluster.
        level: u32,
        /// The members whose programs know less; none when all know it and the level was not raised yet.
        members: Vec<String>,
    },
    /// A member's program knows less than what the cluster asks of its members.
    #[error(
        "member \"{member}\" runs a program that knows feature level {known} at most, and the cluster is at {level}; upgrade its \
         program to the version of the other members first"
    )]
    Outdated {
        /// The member.
        member: String,
        /// The highest level that its program knows.
        known: u32,
        /// The level of the cluster.
        level: u32,
    },
    /// Nobody joins by that token.
    #[error("join token {id} {why}; make another one with \"trestle token create\"")]
    Token {
        /// The token.
        id: TokenId,
        /// Why.
        why: TokenRefusal,
    },
    /// The cluster has been founded before.
    #[error("the cluster is founded already; let members join by a token of \"trestle token create\"")]
    Founded,
}

fn parts(failed: &[(ResourceName, Refusal)]) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> =
        failed.iter().take(SHOWN).map(|(name, refusal)| format!("{name}: {refusal}")).collect();
    if failed.len() > SHOWN {
        shown.push(format!("and {} more", failed.len() - SHOWN));
    }
    shown.join("; ")
}

fn held_back(members: &[String]) -> String {
    let quoted = || members.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let who = match members {
        [] => return "once every member answers, the leader raises the level; try again then".to_owned(),
        [only] => format!("member \"{only}\" runs a program that does"),
        _ => format!("members {} run programs that do", quoted()),
    };
    let names = match members.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => members.concat(),
    };
    format!("{who} not know it; upgrade {names}, then try again")
}

fn users(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let kind = if names.len() == 1 { "listener" } else { "listeners" };
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|n| format!("\"{n}\"")).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    format!("{kind} {}", shown.join(", "))
}
