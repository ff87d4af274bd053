//! A member's certificate where an authority outside of the cluster signs, for whoever is on the member's machine.

use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_api::v1;
use trestle_model::{Invalid, Violation};

use super::securing::{denied, is_local_root};
use super::{Admin, internal};
use crate::access::Caller;
use crate::identities::{NotOutside, certificate_request, install};

fn not_done(why: NotOutside) -> Status {
    match why {
        NotOutside::NoCluster => status::failure(&Failure::NoCluster),
        NotOutside::OwnAuthority => status::failure(&Failure::Authority(
            "the cluster's own authority signs: its members get their certificates by themselves. \"trestle ca add FILE\" has one outside \
             of the cluster believed"
                .to_owned(),
        )),
        NotOutside::Refused(rule) => {
            status::invalid(&Invalid(vec![Violation::new("certificate", "(not shown)", rule)]))
        }
        NotOutside::Files(why) => internal(&why),
    }
}

fn require_local_root(caller: &Caller) -> Result<(), Status> {
    match is_local_root(caller) {
        true => Ok(()),
        false => Err(denied(
            "a member's certificate is seen to by root on its own machine, or by the user that trestled runs as, over the admin socket: run \
             \"trestle certificate\" there",
        )),
    }
}

impl Admin {
    /// What is to be signed for this member.
    pub(super) fn member_request(
        &self,
        caller: &Caller,
    ) -> Result<v1::RequestMemberCertificateResponse, Status> {
        require_local_root(caller)?;
        self.require_membership()?;
        let certificate_request = certificate_request(&self.local).map_err(not_done)?;
        Ok(v1::RequestMemberCertificateResponse { certificate_request })
    }

    /// Puts what was signed in place.
    pub(super) fn install_certificate(
        &self,
        caller: &Caller,
        certificate: &str,
    ) -> Result<v1::InstallMemberCertificateResponse, Status> {
        require_local_root(caller)?;
        self.require_membership()?;
        let installed = install(&self.local, &self.leaf, certificate).map_err(not_done)?;
        Ok(v1::InstallMemberCertificateResponse {
            generation: installed.generation,
            expire_time: Some(installed.not_after.into()),
            warnings: installed.warnings,
        })
    }
}
