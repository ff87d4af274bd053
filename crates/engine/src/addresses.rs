//! Which of the addresses of a backend's name is in use.

use std::net::IpAddr;

/// The addresses of one backend, in the order in which they are tried, and the one of them that is in use.
///
/// There is one in use at a time, so that a backend known by name is one backend for everything else: verdict, bounds, turns,
/// drains. The first is taken at the beginning, by every member alike, and the one in use is kept for as long as it works:
/// who went back to an earlier one as soon as that answers again would go back and forth with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Never empty.
    all: Vec<IpAddr>,
    /// Position in `all`.
    current: usize,
    /// Addresses that were left because a check failed there, and have not answered one since; with how many failed in a
    /// row. Connections may still be there.
    left: Vec<(IpAddr, u32)>,
}

/// What follows from one round of checks at the addresses of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Whether the backend answered at the address that is in use now; `None` when no check could be made there.
    pub success: Option<bool>,
    /// Addresses that were left and are dead, as many checks having failed there as make a backend unhealthy. Told twice, for
    /// what had been on its way there the first time.
    pub dead: Vec<IpAddr>,
}

impl Candidates {
    /// The addresses of a backend, of which the first is in use, or `in_use` if it is among them; `None` when there are none.
    pub fn new(addresses: &[IpAddr], in_use: Option<IpAddr>) -> Option<Self> {
        let current = addresses.iter().position(|ip| Some(*ip) == in_use).unwrap_or(0);
        (!addresses.is_empty()).then(|| Self { all: addresses.to_vec(), current, left: Vec::new() })
    }

    /// The one in use.
    pub fn current(&self) -> IpAddr {
        // It is a position in a list that is not empty.
        self.all.get(self.current).or(self.all.first()).copied().unwrap_or(IpAddr::from([0; 4]))
    }

    /// The others, beginning with the one after that in use.
    pub fn others(&self) -> impl Iterator<Item = IpAddr> {
        let (before, from) = self.all.split_at(self.current.min(self.all.len()));
        from.iter().skip(1).chain(before).copied()
    }

    /// Addresses that are checked beside the one in use, since connections may be left there.
    pub fn left(&self) -> impl Iterator<Item = IpAddr> {
        self.left.iter().map(|(ip, _)| *ip)
    }

    /// Other addresses from now on. The one in use stays in use, or is the first of them where it is not among them; then the
    /// answer is false.
    pub fn renew(&mut self, addresses: &[IpAddr]) -> bool {
        if addresses.is_empty() {
            return true;
        }
        let position = addresses.iter().position(|ip| *ip == self.current());
        self.all = addresses.to_vec();
        self.current = position.unwrap_or(0);
        let current = self.current();
        self.left.retain(|(ip, _)| addresses.contains(ip) && *ip != current);
        position.is_some()
    }

    /// A connect to `ip` has failed, and there are no checks to ask: the one after it is in use now, if it was the one.
    pub fn failed(&mut self, ip: IpAddr) {
        if self.current() == ip {
            self.current = (self.current + 1) % self.all.len().max(1);
        }
    }

    /// Takes the results of checks that were made together: at the address in use, at those left, and where that in use
    /// failed, at others. `None` is a check that could not be made. If the address in use failed, the first of
    /// [`Self::others`] that answered is in use now. A backend is unhealthy after `fall` failures in a row.
    pub fn observe(&mut self, results: &[(IpAddr, Option<bool>)], fall: u32) -> Round {
        let of = |ip: IpAddr| results.iter().find(|(at, _)| *at == ip).and_then(|(_, result)| *result);
        let current = self.current();
        let mut success = of(current);
        let next = match success {
            Some(false) => self.others().find(|ip| of(*ip) == Some(true)),
            Some(true) | None => None,
        };
        if let Some(next) = next {
            self.current = self.all.iter().position(|ip| *ip == next).unwrap_or(self.current);
            self.left.retain(|(ip, _)| *ip != next);
            self.left.push((current, 0));
            success = Some(true);
        }
        let mut dead = Vec::new();
        self.left.retain_mut(|(ip, failures)| match of(*ip) {
            Some(true) => false,
            None => true,
            Some(false) => {
                *failures = failures.saturating_add(1);
                if *failures >= fall {
                    dead.push(*ip);
                }
                *failures <= fall
            }
        });
        Round { success, dead }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FALL: u32 = 3;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(ip).collect()
    }

    fn candidates(text: &str) -> Candidates {
        Candidates::new(&ips(text), None).unwrap()
    }

    /// Observes results such as `10.0.0.1- 10.0.0.2+ 10.0.0.3?`.
    fn observe(candidates: &mut Candidates, results: &str) -> (Option<bool>, Vec<IpAddr>) {
        let result = |text: &str| {
            let (at, sign) = text.split_at(text.len() - 1);
            (ip(at), Some(sign == "+").filter(|_| sign != "?"))
        };
        let results: Vec<_> = results.split_whitespace().map(result).collect();
        let round = candidates.observe(&results, FALL);
        (round.success, round.dead)
    }

    #[test]
    fn the_first_is_in_use_until_it_fails_and_another_answers() {
        let mut all = candidates("10.0.0.1 10.0.0.2 2001:db8::1");
        assert_eq!((all.current(), all.others().collect()), (ip("10.0.0.1"), ips("10.0.0.2 2001:db8::1")));
        assert_eq!(observe(&mut all, "10.0.0.1+"), (Some(true), vec![]));
        assert_eq!(observe(&mut all, "10.0.0.1- 10.0.0.2- 2001:db8::1-"), (Some(false), vec![]));
        assert_eq!(all.current(), ip("10.0.0.1"));
        assert_eq!(observe(&mut all, "10.0.0.1- 10.0.0.2- 2001:db8::1+"), (Some(true), vec![]));
        assert_eq!(all.current(), ip("2001:db8::1"));
        assert_eq!(all.others().collect::<Vec<_>>(), ips("10.0.0.1 10.0.0.2"));
        // It is kept when the former answers again.
        observe(&mut all, "2001:db8::1+ 10.0.0.1+");
        assert_eq!(all.current(), ip("2001:db8::1"));
    }

    #[test]
    fn a_check_that_could_not_be_made_moves_nothing() {
        let mut all = candidates("10.0.0.1 10.0.0.2");
        assert_eq!(observe(&mut all, "10.0.0.1? 10.0.0.2+"), (None, vec![]));
        assert_eq!(observe(&mut all, "10.0.0.1- 10.0.0.2?"), (Some(false), vec![]));
        assert_eq!(all.current(), ip("10.0.0.1"));
    }

    #[test]
    fn an_address_that_was_left_is_dead_after_as_many_failures_as_a_backend() {
        let mut all = candidates("10.0.0.1 10.0.0.2");
        observe(&mut all, "10.0.0.1- 10.0.0.2+");
        assert_eq!(all.left().collect::<Vec<_>>(), ips("10.0.0.1"));
        assert_eq!(observe(&mut all, "10.0.0.2+ 10.0.0.1?"), (Some(true), vec![]));
        assert_eq!(observe(&mut all, "10.0.0.2+ 10.0.0.1-"), (Some(true), vec![]));
        for _ in 0..2 {
            assert_eq!(observe(&mut all, "10.0.0.2+ 10.0.0.1-"), (Some(true), ips("10.0.0.1")));
        }
        assert_eq!(all.left().count(), 0);
        // One that answers again in time keeps what is there.
        observe(&mut all, "10.0.0.2- 10.0.0.1+");
        assert_eq!(all.left().collect::<Vec<_>>(), ips("10.0.0.2"));
        assert_eq!(observe(&mut all, "10.0.0.1+ 10.0.0.2+"), (Some(true), vec![]));
        assert_eq!(all.left().count(), 0);
    }

    #[test]
    fn with_a_fall_of_one_an_address_is_dead_as_it_is_left() {
        let mut all = candidates("10.0.0.1 10.0.0.2");
        let round = all.observe(&[(ip("10.0.0.1"), Some(false)), (ip("10.0.0.2"), Some(true))], 1);
        assert_eq!(round, Round { success: Some(true), dead: ips("10.0.0.1") });
    }

    #[test]
    fn other_addresses_keep_the_one_in_use() {
        let mut all = candidates("10.0.0.1 10.0.0.2");
        observe(&mut all, "10.0.0.1- 10.0.0.2+");
        assert!(all.renew(&ips("10.0.0.0 10.0.0.1 10.0.0.2")));
        assert_eq!((all.current(), all.left().collect()), (ip("10.0.0.2"), ips("10.0.0.1")));
        assert!(all.renew(&[]));
        assert_eq!(all.current(), ip("10.0.0.2"));
        assert!(!all.renew(&ips("10.0.0.7 10.0.0.8")));
        assert_eq!((all.current(), all.left().count()), (ip("10.0.0.7"), 0));
    }

    #[test]
    fn a_failed_connect_leads_to_the_next_where_there_are_no_checks() {
        let mut all = candidates("10.0.0.1 10.0.0.2");
        all.failed(ip("10.0.0.1"));
        assert_eq!(all.current(), ip("10.0.0.2"));
        // That another client failed there as well is no news.
        all.failed(ip("10.0.0.1"));
        assert_eq!(all.current(), ip("10.0.0.2"));
        all.failed(ip("10.0.0.2"));
        assert_eq!(all.current(), ip("10.0.0.1"));
        let mut single = candidates("10.0.0.1");
        single.failed(ip("10.0.0.1"));
        assert_eq!(single.current(), ip("10.0.0.1"));
    }
}
