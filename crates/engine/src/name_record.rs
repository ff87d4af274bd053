//! What a name stands for, by what its name servers have said, and when they are asked again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses of one name that are made use of; of a longer answer the others are left out.
pub const CANDIDATES_MAX: usize = 16;

/// What is known of a name: the last answer for each family, and what follows from both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameRecord {
    families: [Vec<IpAddr>; 2],
    candidates: Vec<IpAddr>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4, asked for by A.
    V4,
    /// IPv6, asked for by AAAA.
    V6,
}

impl NameRecord {
    /// Takes the addresses of a family from an answer that says so; a lost answer says nothing. False when the name stands
    /// for the same as before.
    ///
    /// While an answer leaves no address at all, the last ones stay: a name server that has lost a name says nothing of the
    /// backend.
    pub fn learn(&mut self, family: Family, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let usable = addresses.into_iter().map(|ip| ip.to_canonical()).filter(can_be_dialled).collect();
        let [v4, v6] = &mut self.families;
        match family {
            Family::V4 => *v4 = usable,
            Family::V6 => *v6 = usable,
        }
        // By number, IPv4 first, so that all members take the same.
        let mut all: BTreeSet<IpAddr> = v4.iter().chain(v6.iter()).copied().collect();
        if all.is_empty() {
            return false;
        }
        // Of too many, those stay that may be in use.
        let known = self.candidates.iter().filter(|ip| all.contains(ip)).count();
        let mut room = CANDIDATES_MAX.saturating_sub(known);
        all.retain(|ip| {
            let is_known = self.candidates.contains(ip);
            let fits = is_known || room > 0;
            room -= usize::from(fits && !is_known);
            fits
        });
        let candidates: Vec<IpAddr> = all.into_iter().collect();
        let changed = candidates != self.candidates;
        self.candidates = candidates;
        changed
    }

    /// The addresses that it stands for, in the order in which they are tried; none as long as there was no answer.
    pub fn candidates(&self) -> &[IpAddr] {
        &self.candidates
    }
}

/// Whether a connect could reach another machine. Wildcards are what some filters answer for names that they block, and
/// would reach this one; a link-local address says nothing without its interface.
fn can_be_dialled(ip: &IpAddr) -> bool {
    let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !(ip.is_unspecified() || ip.is_multicast() || is_link_local || *ip == IpAddr::from([255; 4]))
}

/// An answer is used for as long as it says, but at least this long: some servers answer with a TTL of 0 to be asked for
/// each connection, and a member asks for none. Nor is a name asked more often when it is in doubt.
const TTL_MIN: Duration = Duration::from_secs(1);

/// And at most this long: a TTL of hours is a promise that is often not kept when a machine has to be replaced.
const TTL_MAX: Duration = Duration::from_secs(300);

/// Time between two attempts while there is no answer: about the time that a resolver gives a server (5 s in
/// resolv.conf(5)), so that a server that is down is asked little more often than it is waited for.
const RETRY: Duration = Duration::from_secs(3);

/// When a name is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AskTimer {
    asked: Duration,
    due: Duration,
}

impl AskTimer {
    /// The name is asked at `now`.
    pub fn asked(&mut self, now: Duration) {
        self.asked = now;
    }

    /// It was answered, for as long as `ttl`, or not at all.
    pub fn answered(&mut self, ttl: Option<Duration>, now: Duration) {
        self.due = now.saturating_add(ttl.map_or(RETRY, |ttl| ttl.clamp(TTL_MIN, TTL_MAX)));
    }

    /// A check or a connect has failed at what it stands for: it may stand for something else by now.
    pub fn doubt(&mut self) {
        self.due = self.due.min(self.asked.saturating_add(TTL_MIN));
    }

    /// When it is asked again.
    pub fn due(&self) -> Duration {
        self.due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn both_families_are_candidates_by_number() {
        let mut name = NameRecord::default();
        assert!(name.learn(Family::V6, ips("2001:db8::2 2001:db8::1")));
        assert!(name.learn(Family::V4, ips("10.0.0.9 10.0.0.10 10.0.0.2 10.0.0.9")));
        assert!(!name.learn(Family::V4, ips("10.0.0.10 10.0.0.2 10.0.0.9")));
        assert_eq!(name.candidates(), ips("10.0.0.2 10.0.0.9 10.0.0.10 2001:db8::1 2001:db8::2"));
        assert!(name.learn(Family::V4, []));
        assert_eq!(name.candidates(), ips("2001:db8::1 2001:db8::2"));
        // The last ones stay where nothing is left.
        assert!(!name.learn(Family::V6, []));
        assert_eq!(name.candidates(), ips("2001:db8::1 2001:db8::2"));
        assert!(name.learn(Family::V4, ips("10.0.0.1")));
        assert_eq!(name.candidates(), ips("10.0.0.1"));
    }

    #[test]
    fn what_cannot_be_dialled_is_no_address() {
        let mut name = NameRecord::default();
        assert!(!name.learn(Family::V4, ips("0.0.0.0 224.0.0.1 255.255.255.255")));
        assert!(!name.learn(Family::V6, ips(":: ff02::1 fe80::1 ::ffff:0.0.0.0")));
        assert!(name.learn(Family::V6, ips("::ffff:10.0.0.1 ::1")));
        assert_eq!(name.candidates(), ips("10.0.0.1 ::1"));
    }

    #[test]
    fn of_too_many_the_known_ones_stay() {
        let numbered = |range: std::ops::Range<u8>| range.map(|n| IpAddr::from([10, 0, 0, n]));
        let mut name = NameRecord::default();
        name.learn(Family::V4, numbered(100..200));
        assert_eq!(name.candidates(), numbered(100..116).collect::<Vec<_>>());
        name.learn(Family::V4, numbered(0..110));
        let expected: Vec<_> = numbered(0..6).chain(numbered(100..110)).collect();
        assert_eq!(name.candidates(), expected);
    }

    #[test]
    fn a_name_is_asked_again_when_its_answer_expires_and_soon_where_there_is_none() {
        let secs = Duration::from_secs;
        let mut timer = AskTimer::default();
        for (ttl, due) in [(Some(0), 11), (Some(60), 70), (Some(86_400), 310), (None, 13)] {
            timer.asked(secs(9));
            timer.answered(ttl.map(secs), secs(10));
            assert_eq!(timer.due(), secs(due), "{ttl:?}");
        }
    }

    #[test]
    fn a_name_in_doubt_is_asked_at_once_but_once_a_second() {
        let secs = Duration::from_secs;
        let mut timer = AskTimer::default();
        timer.asked(secs(9));
        timer.answered(Some(secs(600)), secs(9));
        timer.doubt();
        assert_eq!(timer.due(), secs(10));
        timer.asked(secs(20));
        timer.answered(None, secs(25));
        timer.doubt();
        assert_eq!(timer.due(), secs(21));
    }
}
