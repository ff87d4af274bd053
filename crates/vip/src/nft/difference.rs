//! Whether the kernel has the fence that it was given: every table, chain, rule, set and element is compared with what was
//! sent.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::batch::{Batch, number, read, text, value};
use super::numbers::*;
use super::ruleset::{self, LEASE4, LEASE6, QUIET4, QUIET6, VIPS4, VIPS6};
use super::{DesiredFence, FenceTimeout, Nft};
use crate::netlink::messages;

/// Attempts at a comparison that somebody else's transaction came in between.
const ATTEMPTS: u32 = 3;
/// By how much the end of an element may be off: the guard's time, ticks of the kernel's clock, and a wait for a processor.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Something that was sent: what kind of message, for which family, with which attributes.
struct Sent<'a> {
    kind: u16,
    family: u8,
    attributes: &'a [u8],
}

impl Nft {
    /// In what the kernel's tables differ from what they should be; `None` when in nothing.
    pub(crate) fn difference(&mut self, wanted: &DesiredFence) -> io::Result<Option<String>> {
        let mut compared = self.compare(wanted);
        for _ in 1..ATTEMPTS {
            match &compared {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => compared = self.compare(wanted),
                _ => break,
            }
        }
        compared
    }

    fn compare(&mut self, wanted: &DesiredFence) -> io::Result<Option<String>> {
        let mut batch = Batch::default();
        batch.begin(0);
        ruleset::replace_tables(&mut batch, &self.table, self.netdev);
        if self.egress {
            for (index, name) in &self.guarded {
                ruleset::guard_egress(&mut batch, &self.table, *index, name);
            }
        }
        let bytes = batch.bytes().to_vec();
        let sent: Vec<Sent<'_>> = messages(&bytes)
            .filter(|message| message.kind >> 8 == SUBSYSTEM)
            .filter_map(|message| {
                let (family, attributes) = (*message.payload.first()?, message.payload.get(4..)?);
                Some(Sent { kind: message.kind & 0xff, family, attributes })
            })
            .collect();
        for family in [FAMILY_INET, FAMILY_ARP, FAMILY_NETDEV] {
            if family == FAMILY_NETDEV && !self.netdev {
                continue;
            }
            let of_family = || sent.iter().filter(|sent| sent.family == family);
            let differs = self.table_differs(family, of_family())?;
            let differs = match differs {
                None => self.elements_differ(family, wanted)?,
                differs => differs,
            };
            if let Some(what) = differs {
                return Ok(Some(format!("table {} {}: {what}", family_name(family), self.table)));
            }
        }
        Ok(None)
    }

    fn table_differs<'a>(
        &mut self,
        family: u8,
        sent: impl Iterator<Item = &'a Sent<'a>> + Clone,
    ) -> io::Result<Option<String>> {
        let name = self.table.clone();
        let table = self.ask(GET_TABLE, family, false, |batch| batch.put_text(TABLE_NAME, &name))?;
        let Some(table) = table.as_deref().and_then(<[_]>::first) else {
            return Ok(Some("it is gone".to_owned()));
        };
        if number(&table.attributes, TABLE_FLAGS).unwrap_or(0) != 0 {
            return Ok(Some("it is dormant, or another program's".to_owned()));
        }
        for set in sent.clone().filter(|sent| sent.kind == NEW_SET) {
            if !self.has(GET_SET, family, (SET_TABLE, SET_NAME), set.attributes)? {
                return Ok(Some(format!(
                    "set {} is gone or another",
                    text(set.attributes, SET_NAME).unwrap_or("")
                )));
            }
        }
        let chains = sent.clone().filter(|sent| sent.kind == NEW_CHAIN);
        for chain in chains {
            let name = text(chain.attributes, CHAIN_NAME).unwrap_or("");
            if !self.has(GET_CHAIN, family, (CHAIN_TABLE, CHAIN_NAME), chain.attributes)? {
                return Ok(Some(format!("chain {name} is gone or another")));
            }
            let of_chain = sent
                .clone()
                .filter(|sent| sent.kind == NEW_RULE && text(sent.attributes, RULE_CHAIN) == Some(name));
            if let Some(what) = self.rules_differ(family, name, of_chain)? {
                return Ok(Some(what));
            }
        }
        let things = sent.filter(|sent| [NEW_SET, NEW_CHAIN].contains(&sent.kind)).count();
        let found = number(&table.attributes, TABLE_USE).unwrap_or(0);
        Ok((usize::try_from(found) != Ok(things)).then(|| "something was added to it".to_owned()))
    }

    /// Whether a set or chain is as it was sent; a chain without a verdict of its own, too.
    fn has(&mut self, kind: u16, family: u8, names: (u16, u16), sent: &[u8]) -> io::Result<bool> {
        let found = self.ask(kind, family, false, |batch| {
            for name in [names.0, names.1] {
                batch.put_text(name, text(sent, name).unwrap_or(""));
            }
        })?;
        let Some(found) = found.as_deref().and_then(<[_]>::first) else { return Ok(false) };
        let accepts = kind != GET_CHAIN || number(&found.attributes, CHAIN_POLICY) == Some(ACCEPT);
        let ignored = if kind == GET_SET { Some(SET_ID) } else { None };
        Ok(accepts && covers(sent, &found.attributes, ignored, false))
    }

    fn rules_differ<'a>(
        &mut self,
        family: u8,
        chain: &str,
        sent: impl Iterator<Item = &'a Sent<'a>>,
    ) -> io::Result<Option<String>> {
        let table = self.table.clone();
        let found = self.ask(GET_RULE, family, true, |batch| {
            batch.put_text(RULE_TABLE, &table);
            batch.put_text(RULE_CHAIN, chain);
        })?;
        let found = found.unwrap_or_default();
        // A kernel that does not filter its list sends the rules of other chains, too.
        let mut found = found.iter().filter(|rule| {
            text(&rule.attributes, RULE_TABLE) == Some(&*table)
                && text(&rule.attributes, RULE_CHAIN) == Some(chain)
        });
        for sent in sent {
            let expressions = |of| value(of, RULE_EXPRESSIONS).unwrap_or_default();
            match found.next() {
                None => return Ok(Some(format!("a rule of chain {chain} is gone"))),
                Some(rule) => {
                    let (sent, found) = (expressions(sent.attributes), expressions(&rule.attributes));
                    if !covers(sent, found, None, true) {
                        return Ok(Some(format!("a rule of chain {chain} is another")));
                    }
                }
            }
        }
        Ok(found.next().map(|_| format!("a rule was added to chain {chain}")))
    }

    fn elements_differ(&mut self, family: u8, wanted: &DesiredFence) -> io::Result<Option<String>> {
        let sets: &[(bool, &str, &str, Option<&str>)] = match family {
            FAMILY_INET => &[(true, VIPS4, LEASE4, Some(QUIET4)), (false, VIPS6, LEASE6, Some(QUIET6))],
            _ => &[(true, VIPS4, LEASE4, None)],
        };
        for (ipv4, vips, leases, quiet) in sets {
            let of_family = |address: &IpAddr| address.is_ipv4() == *ipv4;
            let table = self.table.clone();
            let found = self.elements_of(family, &table, vips)?.unwrap_or_default();
            let mut found: Vec<IpAddr> = found.into_iter().map(|element| element.address).collect();
            let mut fenced: Vec<IpAddr> = wanted.fenced.iter().copied().filter(of_family).collect();
            found.sort_unstable();
            fenced.sort_unstable();
            if found != fenced {
                return Ok(Some(format!("set {vips} has {found:?}, to be {fenced:?}")));
            }
            let timed = [(Some(*leases), &wanted.leases, true), (*quiet, &wanted.quiet, false)];
            for (set, armed, needed) in timed {
                let Some(set) = set else { continue };
                let armed: Vec<FenceTimeout> =
                    armed.iter().copied().filter(|one| of_family(&one.address)).collect();
                if let Some(what) = self.deadlines_differ(family, set, &armed, needed)? {
                    return Ok(Some(what));
                }
            }
        }
        Ok(None)
    }

    /// Whether every element of a set ends when it should, and with `needed` whether all are there.
    fn deadlines_differ(
        &mut self,
        family: u8,
        set: &str,
        armed: &[FenceTimeout],
        needed: bool,
    ) -> io::Result<Option<String>> {
        let (table, before) = (self.table.clone(), Instant::now());
        let found = self.elements_of(family, &table, set)?.unwrap_or_default();
        for element in &found {
            let until = armed.iter().find(|armed| armed.address == element.address).map(|armed| armed.until);
            let most = until.map(|until| until.saturating_duration_since(before) + TOLERANCE);
            let left = element.left.map(Duration::from_millis);
            if !matches!((left, most), (Some(left), Some(most)) if left <= most) {
                return Ok(Some(format!("set {set} has {} for too long", element.address)));
            }
        }
        let now = Instant::now();
        let missing = armed.iter().find(|armed| {
            let due = armed.until.saturating_duration_since(now) > TOLERANCE;
            needed && due && found.iter().all(|element| element.address != armed.address)
        });
        Ok(missing.map(|armed| format!("set {set} lacks {}", armed.address)))
    }
}

fn family_name(family: u8) -> &'static str {
    match family {
        FAMILY_ARP => "arp",
        FAMILY_NETDEV => "netdev",
        _ => "inet",
    }
}

/// Whether everything that was sent, other than attributes of the kind `ignored`, is there, and in the same order. What the
/// kernel adds of its own is passed over, but with `strict` it must say nothing (zeros, as flags that are not set).
pub(super) fn covers(sent: &[u8], found: &[u8], ignored: Option<u16>, strict: bool) -> bool {
    let mut rest: Vec<(u16, &[u8])> = read(found).map(|found| (found.kind, found.value)).collect();
    let nothing = |value: &[u8]| value.iter().all(|byte| *byte == 0);
    for sent in read(sent).filter(|sent| Some(sent.kind) != ignored) {
        let Some(at) = rest.iter().position(|(kind, _)| *kind == sent.kind) else {
            // Flags that are not set are not always told.
            if nothing(sent.value) {
                continue;
            }
            return false;
        };
        let (_, value) = rest.remove(at);
        let same = match sent.nested {
            true => covers(sent.value, value, None, strict),
            // Not everybody ends text with a zero byte.
            false => trimmed(sent.value) == trimmed(value),
        };
        if !same {
            return false;
        }
    }
    !strict || rest.iter().all(|(_, value)| nothing(value))
}

fn trimmed(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    value.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(write: impl FnOnce(&mut Batch)) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.request(0, 0, 0, 1);
        write(&mut batch);
        batch.bytes().get(20..).unwrap_or_default().to_vec()
    }

    fn list(numbers: &[u32], more: Option<u32>) -> Vec<u8> {
        attributes(|batch| {
            let nest = batch.open(4);
            for number in numbers {
                let element = batch.open(LIST_ELEMENT);
                batch.put_number(2, *number);
                batch.put_number(3, 0);
                batch.close(element);
            }
            batch.close(nest);
            if let Some(more) = more {
                batch.put_number(9, more);
            }
        })
    }

    #[test]
    fn what_was_sent_must_be_there_in_order_and_nothing_that_matters_besides() {
        let sent = list(&[1, 2], None);
        assert!(covers(&sent, &sent, None, true));
        assert!(covers(&sent, &list(&[1, 2], Some(7)), None, false), "a handle");
        assert!(covers(&sent, &list(&[1, 2], Some(0)), None, true), "a flag that is not set");
        assert!(!covers(&sent, &list(&[1, 2], Some(7)), None, true), "a flag");
        for other in [&[2, 1][..], &[1], &[1, 2, 3], &[]] {
            assert!(!covers(&sent, &list(other, None), None, true), "{other:?}");
        }
        assert!(covers(&attributes(|b| b.put_number(1, 0)), &[], None, true));
        assert!(!covers(&attributes(|b| b.put_number(1, 5)), &[], None, true));
        assert!(covers(&attributes(|b| b.put_number(1, 5)), &[], Some(1), true));
        assert!(covers(
            &attributes(|b| b.put_text(1, "eth0")),
            &attributes(|b| b.put(1, b"eth0")),
            None,
            true
        ));
    }
}
