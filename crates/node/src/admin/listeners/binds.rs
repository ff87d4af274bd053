//! Names of virtual IPs where a listener's addresses are asked for. What members agree on has addresses only, so that a
//! listener means the same whatever becomes of the name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use trestle_model::{Invalid, Violation, Vip, VipName};

/// The name and the ports of `NAME:PORTS`, if the name may be that of a virtual IP. What is an address is none.
fn named(bind: &str) -> Option<(VipName, &str)> {
    let (name, ports) = bind.rsplit_once(':')?;
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    Some((VipName::parse(name).ok()?, ports))
}

/// Whether any of these asks for a virtual IP by name.
pub(super) fn any_named(asked: &[String]) -> bool {
    asked.iter().any(|bind| named(bind).is_some())
}

/// The addresses of a request, as they were asked for and as they are parsed.
#[derive(Debug)]
pub(super) struct Binds {
    asked: Vec<String>,
    resolved: Vec<String>,
}

impl Binds {
    /// Puts addresses in place of the names of virtual IPs. A name that none of them has stays.
    pub(super) fn resolve(asked: &[String], vips: &BTreeMap<VipName, Arc<Vip>>) -> Self {
        let address = |bind: &String| {
            let (name, ports) = named(bind)?;
            Some(match vips.get(&name)?.spec.address.ip {
                IpAddr::V4(ip) => format!("{ip}:{ports}"),
                IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
            })
        };
        let resolved = asked.iter().map(|bind| address(bind).unwrap_or_else(|| bind.clone())).collect();
        Self { asked: asked.to_vec(), resolved }
    }

    /// What to parse.
    pub(super) fn resolved(&self) -> Vec<String> {
        self.resolved.clone()
    }

    /// Says what is wrong with them in the words of the request.
    pub(super) fn explain(&self, found: Invalid) -> Invalid {
        Invalid(found.0.into_iter().map(|one| self.explained(one)).collect())
    }

    fn explained(&self, found: Violation) -> Violation {
        let alone = self.asked.len() == 1;
        let place = |i| if alone { "listener.binds".to_owned() } else { format!("listener.binds[{i}]") };
        let Some((_, asked)) = self.asked.iter().enumerate().find(|(i, _)| found.field == place(*i)) else {
            return found;
        };
        match named(asked) {
            Some((name, _)) if self.resolved.contains(asked) => {
                let rule = format!(
                    "must be an address, or the name of a vip, with a port, as in 0.0.0.0:6443; there is no vip \
                     \"{name}\"; see \"trestle vip list\""
                );
                Violation::new(found.field, asked, rule)
            }
            Some(_) => Violation::new(found.field, asked, found.rule),
            None => found,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_api::{convert, v1};
    use trestle_model::{Command, VipAddress, VipSpec};

    use super::*;

    fn vips() -> BTreeMap<VipName, Arc<Vip>> {
        let vips = [("api", "10.0.3.100/24"), ("six", "2001:db8::100/64"), ("10.0.9.9", "10.0.3.101/24")];
        vips.into_iter()
            .map(|(name, address)| {
                let name = VipName::parse(name).unwrap();
                let spec = VipSpec::new(VipAddress::parse(address).unwrap());
                (name.clone(), Arc::new(Vip { name, spec, revision: 1 }))
            })
            .collect()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn create(asked: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let binds = Binds::resolve(&texts(asked), &vips());
        let listener =
            Some(v1::Listener { binds: binds.resolved(), pool: "pools/p".to_owned(), ..Default::default() });
        let request =
            v1::CreateListenerRequest { listener_id: "l".to_owned(), listener, ..Default::default() };
        match convert::create_listener(&request) {
            Ok(write) => {
                let Command::CreateListener { spec, .. } = write.proposal.command else { unreachable!() };
                Ok(spec.binds.iter().map(ToString::to_string).collect())
            }
            Err(found) => Err(binds.explain(found).0.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn names_stand_for_addresses() {
        assert_eq!(
            create(&["api:6443", "six:443", "api:30000-30100", "*:80", ":81", "[::]:82", "10.0.9.9:83"]),
            Ok(texts(&[
                "10.0.3.100:6443",
                "[2001:db8::100]:443",
                "10.0.3.100:30000-30100",
                "0.0.0.0:80",
                "0.0.0.0:81",
                "[::]:82",
                // An address is an address, even where a virtual IP has it for its name.
                "10.0.9.9:83",
            ]))
        );
    }

    #[test]
    fn mistakes_are_told_as_they_were_written() {
        let unknown =
            "must be an address, or the name of a vip, with a port, as in 0.0.0.0:6443; there is no vip";
        let found = create(&["web:80"]).unwrap_err();
        let rule = format!("listener.binds \"web:80\": {unknown} \"web\"; see \"trestle vip list\"");
        assert_eq!(found, [rule]);
        let found =
            create(&["api:80", "10.0.0.300:80", "api:0", "10.0.0.1:0", "2001:db8::1:80"]).unwrap_err();
        let [address, port, plain, brackets] = &found[..] else { panic!("four mistakes, not {found:#?}") };
        assert!(address.starts_with("listener.binds[1] \"10.0.0.300:80\"") && address.contains(unknown));
        assert_eq!(port, "listener.binds[2] \"api:0\": port must be 1 to 65535");
        assert_eq!(plain, "listener.binds[3] \"10.0.0.1:0\": port must be 1 to 65535");
        assert!(brackets.contains("needs brackets"), "{brackets}");
    }
}
