//! What this member says of a virtual IP that somebody wants to make.

use trestle_api::{convert, peer, v1};
use trestle_model::VipAddress;
use trestle_vip::Fit;

use crate::member::Member;

impl Member {
    /// Whether this member could hold it.
    pub(crate) fn vip_fit(&self, candidate: &v1::Vip) -> peer::VipFit {
        let Ok(address) = VipAddress::parse(&candidate.address) else { return peer::VipFit::default() };
        let config = &self.config;
        let own = [
            ("its admin address", Some(config.admin_address.ip())),
            ("its peer address", Some(config.peer_address.ip())),
            ("its HTTP address", Some(config.http_address.ip())),
            ("its data address", config.data_address),
        ];
        if let Some((what, _)) = own.iter().find(|(_, ip)| *ip == Some(address.ip)) {
            return peer::VipFit { own: (*what).to_owned(), problem: String::new() };
        }
        let me = convert::member_name(&config.name);
        let named = !candidate.interface.is_empty()
            || candidate.interface_overrides.iter().any(|one| one.member == me);
        match trestle_vip::fit(address.ip, named) {
            Ok(Fit::Own) => peer::VipFit { own: "an address of its host".to_owned(), problem: String::new() },
            Ok(Fit::NoNetwork) => peer::VipFit {
                own: String::new(),
                problem: format!("no interface has an address in the network of {address}"),
            },
            // What cannot be asked about says nothing.
            Ok(Fit::Fits) | Err(_) => peer::VipFit::default(),
        }
    }
}
