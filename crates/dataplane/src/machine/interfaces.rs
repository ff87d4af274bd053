//! The addresses of this machine.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses of all interfaces; none when the operating system does not tell.
pub fn addresses() -> HashSet<IpAddr> {
    let mut list = std::ptr::null_mut();
    // SAFETY: getifaddrs(3) writes a pointer to `list`, which is ours, and nothing when it fails.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "cannot list this machine's addresses; a backend that is one of them is not recognised");
        return HashSet::new();
    }
    let mut found = HashSet::new();
    let mut next = list;
    // SAFETY: `next` is null or points to an entry of the list, which stays until freeifaddrs(3).
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: the address is null or one of the family that it names.
        found.extend(unsafe { address(entry.ifa_addr) });
        next = entry.ifa_next;
    }
    // SAFETY: the list is the one from above, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// Reads an address of either family of IP.
///
/// # Safety
/// `address` is null, or points to a socket address that is as long as its family says.
unsafe fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller says.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: as the caller says; the structures are laid out for this cast (sockaddr(3type)).
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_them() {
        assert!(addresses().contains(&IpAddr::from(Ipv4Addr::LOCALHOST)));
    }
}
