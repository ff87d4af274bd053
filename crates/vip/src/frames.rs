//! What is said on the wire about an address, and what others say: ARP (RFC 826, RFC 5227) and neighbour discovery
//! (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::Mac;

const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// "Override": replaces what the hearer knew (RFC 4861 §4.4).
const OVERRIDE: u8 = 0x20;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// An Ethernet frame to everybody with an ARP message in it.
type ArpFrame = [u8; 42];

fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> ArpFrame {
    let mut frame = [0; 42];
    frame[0..6].copy_from_slice(&BROADCAST.0);
    frame[6..12].copy_from_slice(&sender.0.0);
    frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
    frame[14..20].copy_from_slice(&ARP_HEAD);
    frame[20..22].copy_from_slice(&operation.to_be_bytes());
    frame[22..28].copy_from_slice(&sender.0.0);
    frame[28..32].copy_from_slice(&sender.1.octets());
    frame[32..38].copy_from_slice(&target.0.0);
    frame[38..42].copy_from_slice(&target.1.octets());
    frame
}

/// Both forms of gratuitous ARP, because some hearers take only one of them.
pub(crate) fn announcements(mac: Mac, ip: Ipv4Addr) -> [ArpFrame; 2] {
    [arp(REQUEST, (mac, ip), (NOBODY, ip)), arp(REPLY, (mac, ip), (mac, ip))]
}

/// Asks whether anybody has the address, without saying that we do (RFC 5227 §2.1.1).
pub(crate) fn probe(mac: Mac, ip: Ipv4Addr) -> ArpFrame {
    arp(REQUEST, (mac, Ipv4Addr::UNSPECIFIED), (NOBODY, ip))
}

/// A neighbour discovery message about `target`, without the checksum, which the kernel fills in.
type DiscoveryMessage = [u8; 32];

fn discovery(kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: Mac) -> DiscoveryMessage {
    let mut message = [0; 32];
    message[0] = kind;
    message[4] = flags;
    message[8..24].copy_from_slice(&target.octets());
    message[24] = option;
    message[25] = 1;
    message[26..32].copy_from_slice(&mac.0);
    message
}

/// An unsolicited advertisement, to all nodes.
pub(crate) fn advertisement(mac: Mac, ip: Ipv6Addr) -> DiscoveryMessage {
    discovery(NEIGHBOUR_ADVERTISEMENT, OVERRIDE, ip, TARGET_ADDRESS, mac)
}

/// Asks whether anybody has the address; goes to [`solicited_node`].
pub(crate) fn solicitation(mac: Mac, ip: Ipv6Addr) -> DiscoveryMessage {
    discovery(NEIGHBOUR_SOLICITATION, 0, ip, SOURCE_ADDRESS, mac)
}

/// Where questions about an address are sent (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Somebody's word that an address is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
}

fn six(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// Reads an Ethernet frame with ARP in it.
pub(crate) fn read_arp(frame: &[u8]) -> Option<Heard> {
    let body = frame.get(14..42)?;
    let ours = frame[12..14] == ETHERTYPE_ARP && body[..6] == ARP_HEAD;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&body[14..18]).ok()?);
    // A sender of 0.0.0.0 only asks.
    let claims = ours && !address.is_unspecified();
    claims.then_some(Heard { address: address.into(), mac: six(&body[8..14])? })
}

/// Reads an ICMPv6 message.
pub(crate) fn read_advertisement(message: &[u8]) -> Option<Heard> {
    if *message.first()? != NEIGHBOUR_ADVERTISEMENT {
        return None;
    }
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?);
    let mut options = message.get(24..)?;
    loop {
        // Lengths count eight bytes each; 0 would never end (RFC 4861 §4.6).
        let length = usize::from(*options.get(1)?) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty())?;
        if option[0] == TARGET_ADDRESS {
            return Some(Heard { address: address.into(), mac: six(option.get(2..8)?)? });
        }
        options = &options[length..];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn announcements_are_claims_and_probes_are_not() {
        let ip = Ipv4Addr::new(192, 0, 2, 7);
        for frame in announcements(MAC, ip) {
            assert_eq!(read_arp(&frame), Some(Heard { address: ip.into(), mac: MAC }));
        }
        assert_eq!(read_arp(&probe(MAC, ip)), None);
        let ip: Ipv6Addr = "2001:db8::12:3456".parse().unwrap();
        assert_eq!(read_advertisement(&advertisement(MAC, ip)), Some(Heard { address: ip.into(), mac: MAC }));
        assert_eq!(read_advertisement(&solicitation(MAC, ip)), None);
        assert_eq!(solicited_node(ip).to_string(), "ff02::1:ff12:3456");
    }

    #[test]
    fn broken_messages_are_ignored() {
        let arp = announcements(MAC, Ipv4Addr::LOCALHOST)[0];
        for length in 0..arp.len() {
            assert_eq!(read_arp(&arp[..length]), None);
        }
        let advertisement = advertisement(MAC, Ipv6Addr::LOCALHOST);
        for length in 0..advertisement.len() {
            assert_eq!(read_advertisement(&advertisement[..length]), None);
        }
        let mut endless = advertisement;
        endless[25] = 0;
        assert_eq!(read_advertisement(&endless), None);
    }
}
