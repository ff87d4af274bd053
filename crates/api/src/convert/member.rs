//! Members.

use trestle_model::{HostPort, Invalid, Member, Violation};

use super::name::member_name;
use crate::v1;

/// Renders a member's record; `role` and `leader` are Raft's to know and left for the caller to set.
pub fn member(member: &Member) -> v1::Member {
    v1::Member {
        name: member_name(&member.spec.name),
        id: member.id.0,
        peer_address: member.spec.peer_address.to_string(),
        admin_address: member.spec.admin_address.to_string(),
        role: v1::MemberRole::Unspecified.into(),
        leader: false,
        revision: member.revision,
    }
}

/// Parses the address of a member that is to be added.
///
/// # Errors
/// When it is not HOST:PORT.
pub fn parse_add_member(request: &v1::AddMemberRequest) -> Result<HostPort, Invalid> {
    let given = &request.peer_address;
    HostPort::parse(given).map_err(|rule| Invalid(vec![Violation::new("peer_address", given, rule)]))
}
