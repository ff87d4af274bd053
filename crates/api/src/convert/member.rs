//! Members.

use trestle_model::{
    Command, HostPort, Invalid, KeyPin, Member, MemberId, MemberName, Violation, Violations,
    check_drain_timeout,
};

use super::name::member_name;
use super::write::Asked;
use super::{Write, duration, field, parse_member_name};
use crate::v1;

/// Renders a member's record; `role` and `leader` are Raft's to know, `keys` the state's, and all are left for the caller to set.
pub fn member(member: &Member) -> v1::Member {
    v1::Member {
        name: member_name(&member.spec.name),
        id: member.id.0,
        peer_address: member.spec.peer_address.to_string(),
        admin_address: member.spec.admin_address.to_string(),
        role: v1::MemberRole::Unspecified.into(),
        leader: false,
        revision: member.revision,
        draining: member.draining,
        drain_timeout: member.drain_timeout.map(duration),
        feature_level_max: member.spec.feature_level_max,
        keys: Vec::new(),
    }
}

/// The write that records a member's key.
///
/// # Errors
/// When the request's id breaks a rule.
pub fn enroll_member(request: &v1::EnrollMemberRequest, id: MemberId, key: KeyPin) -> Result<Write, Invalid> {
    let asked = Asked { request, request_id: &request.request_id, validate_only: false };
    asked.command(Some(Command::PinMemberKey { id, key }), Violations::new())
}

/// Parses the address of a member that is to be added.
///
/// # Errors
/// When it is not HOST:PORT, or no address that others can dial.
pub fn parse_add_member(request: &v1::AddMemberRequest) -> Result<HostPort, Invalid> {
    let given = &request.peer_address;
    HostPort::parse_reachable(given)
        .map_err(|rule| Invalid(vec![Violation::new("peer_address", given, rule)]))
}

/// Parses the beginning of a drain.
///
/// # Errors
/// Every value that breaks a rule.
pub fn drain_member(request: &v1::DrainMemberRequest) -> Result<Write, Invalid> {
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    drained(asked, &request.name, true, request.drain_timeout.as_ref())
}

/// Parses the end of a drain.
///
/// # Errors
/// Every value that breaks a rule.
pub fn enable_member(request: &v1::EnableMemberRequest) -> Result<Write, Invalid> {
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    drained(asked, &request.name, false, None)
}

fn drained<R: prost::Message + prost::Name>(
    asked: Asked<'_, R>,
    name: &str,
    draining: bool,
    timeout: Option<&prost_types::Duration>,
) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_member_name("name", name, &mut v);
    let timeout = field::duration("drain_timeout", timeout, &mut v);
    check_drain_timeout(timeout, &mut v);
    let command = name.map(|name| Command::DrainMember { name, draining, timeout });
    asked.command(command, v)
}

/// Parses a change of where a member is reached: its name, and the addresses that change.
///
/// # Errors
/// Every value that breaks a rule, or that none is given.
pub fn update_member(
    request: &v1::UpdateMemberRequest,
) -> Result<(MemberName, Option<HostPort>, Option<HostPort>), Invalid> {
    let mut v = Violations::new();
    let name = parse_member_name("name", &request.name, &mut v);
    let mut address = |field: &str, text: &str| match text {
        "" => None,
        text => v.take(field, text, HostPort::parse_reachable(text)),
    };
    let peer = address("peer_address", &request.peer_address);
    let admin = address("admin_address", &request.admin_address);
    if request.peer_address.is_empty() && request.admin_address.is_empty() {
        v.add("peer_address", "", "or admin_address must be given");
    }
    let name = v.into_result().map(|()| name)?;
    // A name that cannot be parsed is a violation.
    name.map(|name| (name, peer, admin)).ok_or_else(|| Invalid(Vec::new()))
}
