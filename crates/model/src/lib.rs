//! What a Trestle cluster agrees on: validated names and resources, the commands that change them, and the one
//! replicated state they change.
//!
//! Everything here is pure. There is no clock, no random source, no I/O, and no map with random order, because every
//! member must compute the same state from the same log.

#![forbid(unsafe_code)]

mod actor;
mod address;
mod agreed_time;
mod apply;
mod authority;
mod change;
mod check;
mod choice;
mod cidr;
mod command;
mod configuration;
pub mod defaults;
mod diff;
mod digest;
mod document;
mod join_token;
mod keeping;
mod key_pin;
mod kind;
mod listen;
mod listener;
mod machine;
mod member;
mod member_keys;
mod metadata;
mod name;
mod overlap;
mod pool;
mod record;
mod refusal;
mod revision;
mod role;
mod secret;
mod sockets;
mod state;
mod tenure;
mod transport;
mod user;
mod violation;
mod vip;
mod weight;

pub use actor::Actor;
pub use address::{BackendAddress, Bind, Host, HostPort, Port, usable_ip};
pub use agreed_time::{agreed_by_quorum, reached_by_quorum};
pub use authority::{Authority, AuthorityState, CrossCertificate};
pub use change::{Change, ChangeKind, Resource};
pub use check::{
    CheckKind, ClientIdentity, ExchangeCheck, ExchangeStep, GrpcCheck, HttpCheck, Method, StatusRange,
    TlsCheck,
};
pub use choice::{Choice, Chosen};
pub use cidr::Cidr;
pub use command::{Command, Origin, Outcome, Proposal, Request, RequestId};
pub use configuration::{Configuration, Restored};
pub use digest::Digest;
pub use document::{Document, Expected, Operation, ResourceName};
pub use join_token::{JoinAs, JoinToken, JoinTokenSpec, SecretHash, TokenId, TokenRefusal};
pub use key_pin::KeyPin;
pub use kind::Kind;
pub use listen::ListenAddress;
pub use listener::{Listener, ListenerSpec, NamePattern, OnSilence, Route};
pub use machine::{Applied, Machine, Remembered, Staged};
pub use member::{ClusterId, Member, MemberId, MemberSpec, check_drain_timeout};
pub use metadata::Metadata;
pub use name::{BackendName, ListenerName, MemberName, PoolName, UserName, VipName};
pub use overlap::{Claim, Overlaps};
pub use pool::{
    AdminState, Algorithm, AllDown, Backend, BackendSpec, HealthCheck, InitialState, OnDown, OnPrimaryUp,
    Pool, PoolEntry, PoolSpec, SendProxy,
};
pub use record::{DocumentChange, RevisionRecord};
pub use refusal::Refusal;
pub use revision::Revision;
pub use role::Role;
pub use secret::Secret;
pub use sockets::{MemberSockets, stands_in_the_way};
pub use state::ClusterState;
pub use tenure::{Tenure, VipEvent, VipEventKind};
pub use transport::{FoundingIdentities, TransportSecurity};
pub use user::{User, UserKey, UserSpec};
pub use violation::{Invalid, Violation, Violations};
pub use vip::{InterfaceName, OnQuorumLoss, Vip, VipAddress, VipSpec};
