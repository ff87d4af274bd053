//! What the ports of a cluster's members accept.

use trestle_model::{Choice, Command, Invalid, TransportSecurity, Violations};

use super::Write;
use super::write::Asked;
use crate::v1;

/// Parses a change of what ports accept; answers that too.
///
/// # Errors
/// Every value that breaks a rule.
pub fn secure_cluster(request: &v1::SecureClusterRequest) -> Result<(TransportSecurity, Write), Invalid> {
    let mut v = Violations::new();
    let wanted = TransportSecurity::of_number(request.transport).filter(|_| request.transport != 0);
    if wanted.is_none() {
        let rule = "must be TRANSPORT_SECURITY_OFF (1), TRANSPORT_SECURITY_ACCEPT (2) or TRANSPORT_SECURITY_REQUIRE (3)";
        v.add("transport", request.transport, rule);
    }
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    let write = asked.command(wanted.map(Command::SetTransport), v)?;
    // A value that cannot be parsed is a violation.
    Ok((wanted.unwrap_or_default(), write))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_said_is_no_choice() {
        for number in [0, 4, -1] {
            let request = v1::SecureClusterRequest { transport: number, ..Default::default() };
            assert!(
                secure_cluster(&request).unwrap_err().to_string().contains("TRANSPORT_SECURITY_REQUIRE (3)")
            );
        }
        let request = v1::SecureClusterRequest { transport: 3, ..Default::default() };
        assert_eq!(secure_cluster(&request).unwrap().0, TransportSecurity::Require);
    }
}
