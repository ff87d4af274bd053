//! Whether this machine could hold a virtual IP, before there is one.

use std::net::IpAddr;

use crate::error::VipError;
use crate::route::Route;

/// What this machine's addresses say of a virtual IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It could hold it, or it is told on which interface.
    Fits,
    /// The address is one of its own.
    Own,
    /// No interface has an address in its network.
    NoNetwork,
}

/// Looks at the addresses of this machine; `named` when the interface is named. Takes no capability.
///
/// # Errors
/// When the kernel does not list its addresses.
pub fn fit(address: IpAddr, named: bool) -> Result<Fit, VipError> {
    let mut route = Route::open().map_err(VipError::system("open a routing socket"))?;
    let addresses = route.addresses().map_err(VipError::system("list addresses"))?;
    // A virtual IP that is held does not last.
    if addresses.iter().any(|own| own.lasting && own.address == address) {
        return Ok(Fit::Own);
    }
    let found = named || route.interface_in(address).map_err(VipError::system("list addresses"))?.is_some();
    Ok(if found { Fit::Fits } else { Fit::NoNetwork })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn own_addresses_and_strange_networks_are_told() {
        assert_eq!(fit([127, 0, 0, 1].into(), true).unwrap(), Fit::Own);
        // Reserved (RFC 1112, section 4): in no network.
        assert_eq!(fit([240, 0, 0, 7].into(), false).unwrap(), Fit::NoNetwork);
        assert_eq!(fit([240, 0, 0, 7].into(), true).unwrap(), Fit::Fits);
    }
}
