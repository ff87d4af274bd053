//! The addresses of this machine.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with, sockopt,
};

/// The kernel sends lists in parts of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;

/// The answer is in the queue before the request returns, so one that is not there by then does not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// All addresses of all interfaces; none when the operating system does not tell.
pub fn addresses() -> HashSet<IpAddr> {
    list().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list this machine's addresses; a backend that is one of them is not recognised");
        HashSet::new()
    })
}

/// Asks for the list over rtnetlink(7).
fn list() -> io::Result<HashSet<IpAddr>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    send(&socket, &bytes, SendFlags::empty())?;
    let (mut found, mut buffer) = (HashSet::new(), vec![0; RECEIVE_BYTES]);
    loop {
        let (received, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = buffer.get(..received).unwrap_or_default();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    found.extend(own_address(&address));
                }
                _ => {}
            }
            // A header is never shorter than 16 bytes, or it would not have been read.
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// On point-to-point links IFA_ADDRESS is the other end; IFA_LOCAL is missing for IPv6.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_is_among_them() {
        assert!(addresses().contains(&IpAddr::from(Ipv4Addr::LOCALHOST)));
    }
}
