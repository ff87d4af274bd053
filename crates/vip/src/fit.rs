//! Whether this machine could hold a virtual IP, before there is one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::error::VipError;
use crate::route::RouteSocket;

/// What this machine's addresses and interfaces say of a virtual IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It could hold it.
    Fits,
    /// The address is one of its own.
    Own,
    /// No interface has an address in its network.
    NoNetwork,
    /// It has no interface of that name.
    NoInterface {
        /// The names of those that it has and that could hold one, in order.
        there: Vec<String>,
    },
    /// The interface of that name has no Ethernet address, so nothing could be announced on it.
    NotEthernet {
        /// As above.
        there: Vec<String>,
    },
}

/// Looks at the addresses of this machine, and for the interface if one is named. Takes no capability.
///
/// # Errors
/// When the kernel does not list its addresses or interfaces.
pub fn fit(address: IpAddr, interface: Option<&str>) -> Result<Fit, VipError> {
    let mut route = RouteSocket::open().map_err(VipError::system("open a routing socket"))?;
    if lasting(&mut route)?.contains(&address) {
        return Ok(Fit::Own);
    }
    let Some(name) = interface else {
        let found = route.interface_in(address).map_err(VipError::system("list addresses"))?;
        return Ok(if found.is_some() { Fit::Fits } else { Fit::NoNetwork });
    };
    let interfaces = route.interfaces().map_err(VipError::system("list interfaces"))?;
    let named = interfaces.iter().find(|found| found.is_called(name)).map(|found| found.mac.is_some());
    if named == Some(true) {
        return Ok(Fit::Fits);
    }
    let ethernet = interfaces.into_iter().filter(|found| found.mac.is_some());
    let there: BTreeSet<String> = ethernet.map(|found| found.name).collect();
    let there = there.into_iter().collect();
    Ok(if named.is_some() { Fit::NotEthernet { there } } else { Fit::NoInterface { there } })
}

/// The addresses that this machine has for good; a virtual IP that is held is none of them. Takes no capability.
///
/// # Errors
/// When the kernel does not list its addresses.
pub fn lasting_addresses() -> Result<BTreeSet<IpAddr>, VipError> {
    lasting(&mut RouteSocket::open().map_err(VipError::system("open a routing socket"))?)
}

fn lasting(route: &mut RouteSocket) -> Result<BTreeSet<IpAddr>, VipError> {
    let addresses = route.addresses().map_err(VipError::system("list addresses"))?;
    Ok(addresses.into_iter().filter(|own| own.lasting).map(|own| own.address).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn own_addresses_strange_networks_and_missing_interfaces_are_told() {
        assert_eq!(fit([127, 0, 0, 1].into(), Some("lo")).unwrap(), Fit::Own);
        assert!(lasting_addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
        // Reserved (RFC 1112, section 4): in no network.
        let strange = IpAddr::from([240, 0, 0, 7]);
        assert_eq!(fit(strange, None).unwrap(), Fit::NoNetwork);
        let Fit::NotEthernet { there } = fit(strange, Some("lo")).unwrap() else {
            panic!("nothing can be announced on loopback");
        };
        assert!(!there.contains(&"lo".to_owned()), "{there:?}");
        let Fit::NoInterface { there } = fit(strange, Some("nowhere0")).unwrap() else {
            panic!("there is an interface of that name");
        };
        assert!(!there.contains(&"lo".to_owned()), "{there:?}");
    }
}
