//! Where each virtual IP belongs on this member, and what is in the way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use trestle_engine::ownership::{self, Event};
use trestle_model::{MemberName, VipSpec};

use super::{Grip, Owner};

impl Owner {
    /// Brings what the machine knows of the configuration in line with it: which virtual IPs there are for this member, on
    /// which interface, and what is in the way.
    pub(super) fn settle(&mut self) {
        if self.me.is_none() {
            return;
        }
        self.get_a_grip();
        let id = |name: &MemberName| self.state.member_named(name).map(|member| member.id);
        let (mut vips, mut interfaces, mut lost) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for vip in self.state.vips.values() {
            let address = vip.spec.address.ip;
            // What cannot be served here is the machine's business too: it hands that over like everything else.
            let mut place = String::new();
            match self.interface_of(&vip.spec) {
                Some(Ok(name)) => {
                    place.clone_from(&name);
                    interfaces.insert(address, name);
                }
                Some(Err(why)) => drop(lost.insert(address, why)),
                None => {}
            }
            let wanted = ownership::Vip {
                prefix_len: vip.spec.address.prefix_len,
                interface: place.into(),
                on_quorum_loss: vip.spec.on_quorum_loss,
                preferred: vip.spec.preferred.iter().filter_map(id).collect(),
                preference_delay: vip.spec.preference_delay,
            };
            vips.insert(address, Arc::new(wanted));
        }
        let known: Vec<IpAddr> = self.state.vips.values().map(|vip| vip.spec.address.ip).collect();
        let mut shown = self.shared.shown();
        shown.interfaces = interfaces;
        shown.misplaced = lost.keys().copied().collect();
        shown.placed = self.state.revision;
        shown.problems.retain(|address, _| known.contains(address));
        drop(shown);
        for (address, why) in lost {
            self.problem(address, why);
        }
        self.feed(Event::Vips(vips));
    }

    /// Where a virtual IP belongs here, or why nowhere; `None` without the kernel.
    fn interface_of(&self, vip: &VipSpec) -> Option<Result<String, String>> {
        let Grip::Firm(kernel) = &self.grip else { return None };
        if let Some(name) = vip.interface_on(&self.name) {
            return Some(Ok(name.to_string()));
        }
        Some(match kernel.interface_for(vip.address.ip) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => Err(format!(
                "no interface here has an address in the network of {}; name one with --interface",
                vip.address
            )),
            Err(error) => Err(error.to_string()),
        })
    }
}
