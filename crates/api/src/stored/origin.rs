//! Where a proposal came from. Nothing depends on it, so what cannot be read is left out and stops no member.

use std::net::IpAddr;

use trestle_model::{MemberId, Origin};

use crate::storage;

impl From<&Origin> for storage::Origin {
    fn from(origin: &Origin) -> Self {
        let octets = |ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self {
            time_ms: origin.time_ms,
            member_id: origin.member.map_or(0, |id| id.0),
            client: origin.client.map(octets).unwrap_or_default(),
        }
    }
}

impl From<storage::Origin> for Origin {
    fn from(message: storage::Origin) -> Self {
        let octets = &message.client[..];
        let v4 = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(octets).ok().map(IpAddr::from);
        Self {
            time_ms: message.time_ms,
            member: (message.member_id > 0).then_some(MemberId(message.member_id)),
            client: v4().or_else(v6),
        }
    }
}
