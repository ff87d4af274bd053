//! Who answers for an address, read from frames; and for how long two do.

use std::net::IpAddr;
use std::time::Duration;

use super::host::MacAddress;

/// Pauses of one interface that are no end of its answering. The witness asks every 30 ms or so.
const PAUSE: Duration = Duration::from_millis(200);

/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// EtherType of ARP.
const ARP: u16 = 0x0806;
/// EtherType of IPv6.
const IPV6: u16 = 0x86dd;

/// What claimed the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimKind {
    /// An ARP message whose sender has the address: a reply or an announcement (RFC 826, RFC 5227).
    Arp,
    /// A neighbour advertisement for the address (RFC 4861, section 4.4).
    Advertisement,
    /// A TCP segment from the address that accepts a connection, or ends one by a reset.
    Segment,
}

/// A frame by which an interface claimed the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressClaim {
    /// When the switch had it, since 1970.
    pub at: Duration,
    /// Who sent it.
    pub mac: MacAddress,
    /// What it was.
    pub kind: ClaimKind,
}

/// What a packet says about `address`: `protocol` is its EtherType, `packet` what follows that. `None` when it does not
/// claim the address, or is cut short.
pub(super) fn claim(protocol: u16, packet: &[u8], address: IpAddr) -> Option<ClaimKind> {
    match (protocol, address) {
        // RFC 826 with Ethernet and IPv4 addresses: the sender's protocol address is at 14.
        (ARP, IpAddr::V4(address)) => (packet.get(14..18)? == address.octets()).then_some(ClaimKind::Arp),
        (IPV4, IpAddr::V4(address)) if packet.get(12..16)? == address.octets() => {
            let header = usize::from(packet[0] & 0x0f) * 4;
            (packet[9] == 6).then_some(()).and_then(|()| segment(packet.get(header..)?))
        }
        (IPV6, IpAddr::V6(address)) => match *packet.get(6)? {
            // The target is after the type, code, checksum and flags of ICMPv6.
            58 if *packet.get(40)? == 136 => {
                (packet.get(48..64)? == address.octets()).then_some(ClaimKind::Advertisement)
            }
            6 if packet.get(8..24)? == address.octets() => segment(packet.get(40..)?),
            _ => None,
        },
        _ => None,
    }
}

/// SYN or RST (RFC 9293, section 3.1). What else flows belongs to connections that were accepted before.
fn segment(tcp: &[u8]) -> Option<ClaimKind> {
    (tcp.get(13)? & 0x06 != 0).then_some(ClaimKind::Segment)
}

/// How much two interfaces answered for one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dual {
    /// How long both did.
    pub time: Duration,
    /// Answers of one while the other was answering. One alone takes no time and is one too many.
    pub answers: usize,
}

/// Time during which one interface answered, without longer pauses.
struct Stint {
    mac: MacAddress,
    first: Duration,
    last: Duration,
}

/// Judges answers, which are in order of time. An interface that answers again within 200 ms has answered all the while;
/// answers of another in between are answers of two.
pub fn dual(answers: &[AddressClaim]) -> Dual {
    let mut stints: Vec<Stint> = Vec::new();
    for answer in answers {
        let going_on = |stint: &&mut Stint| stint.mac == answer.mac && stint.last + PAUSE >= answer.at;
        match stints.iter_mut().find(going_on) {
            Some(stint) => stint.last = answer.at,
            None => stints.push(Stint { mac: answer.mac, first: answer.at, last: answer.at }),
        }
    }
    let foreign = |answer: &&AddressClaim| {
        stints
            .iter()
            .any(|stint| stint.mac != answer.mac && stint.first <= answer.at && answer.at <= stint.last)
    };
    let mut dual = Dual { time: Duration::ZERO, answers: answers.iter().filter(foreign).count() };
    for (place, one) in stints.iter().enumerate() {
        for other in stints[place + 1..].iter().filter(|other| other.mac != one.mac) {
            dual.time += one.last.min(other.last).saturating_sub(one.first.max(other.first));
        }
    }
    dual
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Answers at these milliseconds; the first byte of the address is a letter.
    fn sequence(text: &str) -> Vec<AddressClaim> {
        let answer = |word: &str| AddressClaim {
            at: Duration::from_millis(word[1..].parse().unwrap()),
            mac: [word.as_bytes()[0]; 6],
            kind: ClaimKind::Arp,
        };
        text.split(' ').map(answer).collect()
    }

    fn judged(text: &str) -> (u128, usize) {
        let dual = dual(&sequence(text));
        (dual.time.as_millis(), dual.answers)
    }

    #[test]
    fn one_after_the_other_is_no_overlap() {
        assert_eq!(judged("a0 a30 a60"), (0, 0));
        assert_eq!(judged("a0 a30 b31 b60"), (0, 0));
        // Back after a time in which it was silent though it was asked.
        assert_eq!(judged("a0 a30 b31 b60 b90 b120 b150 b180 b210 b240 a250 a280"), (0, 0));
    }

    #[test]
    fn answers_between_answers_are_an_overlap() {
        // B's one answer fell into A's time, and took none itself.
        assert_eq!(judged("a0 b10 a20"), (0, 1));
        assert_eq!(judged("a0 b10 a20 b30"), (10, 2));
        assert_eq!(judged("a0 a100 b110 a200 b210 b300"), (90, 2));
        // A comes back once while B goes on.
        assert_eq!(judged("a0 a30 b300 b400 a410 b500"), (0, 1));
        // Three at once count once for each pair.
        assert_eq!(judged("a0 b0 c0 a10 b10 c10"), (30, 6));
    }

    #[test]
    fn frames_claim_the_address_of_their_sender() {
        let vip = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 50));
        let arp = |sender: [u8; 4], target: [u8; 4]| {
            let head = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1];
            [&head[..], &sender, &[0; 6], &target].concat()
        };
        assert_eq!(claim(ARP, &arp([10, 77, 0, 50], [10, 77, 0, 100]), vip), Some(ClaimKind::Arp));
        assert_eq!(claim(ARP, &arp([10, 77, 0, 100], [10, 77, 0, 50]), vip), None);
        let ip = |flags: u8| {
            let mut packet = [0; 40];
            (packet[0], packet[9], packet[33]) = (0x45, 6, flags);
            packet[12..16].copy_from_slice(&[10, 77, 0, 50]);
            packet
        };
        assert_eq!(claim(IPV4, &ip(0x12), vip), Some(ClaimKind::Segment));
        assert_eq!(claim(IPV4, &ip(0x14), vip), Some(ClaimKind::Segment));
        assert_eq!(claim(IPV4, &ip(0x10), vip), None);
        for length in 0..34 {
            assert_eq!(claim(IPV4, &ip(0x12)[..length], vip), None, "{length} bytes");
        }
    }

    #[test]
    fn advertisements_claim_their_target() {
        let vip = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x50);
        let mut packet = [0; 72];
        (packet[6], packet[40]) = (58, 136);
        packet[48..64].copy_from_slice(&vip.octets());
        assert_eq!(claim(IPV6, &packet, vip.into()), Some(ClaimKind::Advertisement));
        packet[40] = 135;
        assert_eq!(claim(IPV6, &packet, vip.into()), None);
        (packet[6], packet[53]) = (6, 0x12);
        assert_eq!(claim(IPV6, &packet, vip.into()), None);
        packet[8..24].copy_from_slice(&vip.octets());
        assert_eq!(claim(IPV6, &packet, vip.into()), Some(ClaimKind::Segment));
    }
}
