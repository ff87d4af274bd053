//! Addresses that cannot be virtual IPs: those of members, and those that no member could hold.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tonic::Status;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{HostPort, Invalid, Violations, VipAddress};

use super::Admin;

/// How long a name server may take; a name that it does not know in time is compared no further.
const LOOKUP_MAX: Duration = Duration::from_secs(1);

/// The addresses that an address of a member stands for.
async fn addresses(of: &HostPort) -> Vec<IpAddr> {
    if let Some(socket) = of.as_socket() {
        return vec![socket.ip()];
    }
    let found = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host(of.as_str())).await;
    found.ok().and_then(Result::ok).map(|found| found.map(|socket| socket.ip()).collect()).unwrap_or_default()
}

fn refused(address: &str, rule: String) -> Status {
    let mut v = Violations::new();
    v.add("vip.address", address, rule);
    status::invalid(&Invalid(v.into_vec()))
}

impl Admin {
    /// Refuses a virtual IP that is an address of a member, or that none of those that answer could hold.
    pub(super) async fn refuse_unfit(&self, vip: &v1::Vip) -> Result<(), Status> {
        let Ok(address) = VipAddress::parse(&vip.address) else { return Ok(()) };
        let known = self.member.known();
        let recorded = known.iter().flat_map(|member| {
            let spec = &member.spec;
            [(&spec.name, "peer", &spec.peer_address), (&spec.name, "admin", &spec.admin_address)]
        });
        let recorded = recorded.map(|(name, what, at)| async move { (name, what, addresses(at).await) });
        for (name, what, found) in join_all(recorded).await {
            if found.contains(&address.ip) {
                let rule = format!(
                    "must not be the {what} address of member \"{name}\": two hosts would answer for it"
                );
                return Err(refused(&vip.address, rule));
            }
        }
        let ask =
            peer::ReportRequest { vip_candidate: Some(vip.clone()), no_digest: true, ..Default::default() };
        let (reports, _) = self.member.ask_all(ask).await;
        let mut problems = Vec::new();
        for report in &reports {
            let Some(fit) = &report.vip_fit else { continue };
            let name = report.status.as_ref().and_then(|status| status.member.as_ref());
            let name = name.map_or("", |member| member.name.strip_prefix("members/").unwrap_or(&member.name));
            if !fit.own.is_empty() {
                let rule = format!("must not be an address that member \"{name}\" has: it is {}", fit.own);
                return Err(refused(&vip.address, rule));
            }
            if !fit.problem.is_empty() {
                problems.push(format!("{name}: {}", fit.problem));
            }
        }
        // A member that does not answer, or does not say, might.
        if problems.is_empty() || problems.len() < reports.len() {
            return Ok(());
        }
        let rule = format!(
            "must be one that a member could hold; name an interface if that is meant ({})",
            problems.join("; ")
        );
        Err(refused(&vip.address, rule))
    }

    /// The virtual IP that an address of a member is, by its name.
    pub(super) async fn vip_at(&self, of: &HostPort) -> Option<String> {
        let found = addresses(of).await;
        let state = self.member.consensus.view().borrow().state.clone();
        let vip = state.vips.values().find(|vip| found.contains(&vip.spec.address.ip))?;
        Some(vip.name.to_string())
    }

    /// As [`Self::refuse_unfit`], for a change that may leave a virtual IP without a named interface.
    pub(super) async fn refuse_unfit_change(&self, request: &v1::UpdateVipRequest) -> Result<(), Status> {
        let Some(change) = &request.vip else { return Ok(()) };
        let named = |path: &str| {
            request
                .update_mask
                .as_ref()
                .is_none_or(|mask| mask.paths.iter().any(|one| one == path || one == "*"))
        };
        let mut v = Violations::new();
        let Some(name) = convert::parse_vip_name("vip.name", &change.name, &mut v) else { return Ok(()) };
        let state = self.member.consensus.view().borrow().state.clone();
        let Some(current) = state.vips.get(&name) else { return Ok(()) };
        if !named("interface") && !named("interface_overrides") {
            return Ok(());
        }
        let mut wanted = convert::vip(current);
        if named("interface") {
            wanted.interface.clone_from(&change.interface);
        }
        if named("interface_overrides") {
            wanted.interface_overrides.clone_from(&change.interface_overrides);
        }
        self.refuse_unfit(&wanted).await
    }
}
