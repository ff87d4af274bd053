//! What the kernel has now, asked for.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};

use super::Nft;
use super::batch::{Batch, attributes, number, text, value};
use super::numbers::*;
use super::ruleset::{LEASE4, LEASE6, VIPS4, VIPS6};
use crate::netlink::{INTERRUPTED, NLMSG_DONE, NLMSG_ERROR, messages};

/// One thing that was asked for: its family and its attributes.
pub(super) struct Found {
    pub(super) family: u8,
    pub(super) attributes: Vec<u8>,
}

/// An element of a set of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) address: IpAddr,
    /// Milliseconds that it has left; `None` when it does not end by itself.
    pub(crate) left: Option<u64>,
}

/// The tables of one name.
#[derive(Debug)]
pub(crate) struct TableNames {
    pub(crate) name: String,
    families: Vec<u8>,
}

impl Nft {
    /// Asks for one thing, or with `dump` for a list; `None` when it is not there.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        family: u8,
        dump: bool,
        fill: impl FnOnce(&mut Batch),
    ) -> io::Result<Option<Vec<Found>>> {
        let sequence = self.socket.number(1);
        self.batch.request(kind, family, if dump { NLM_F_DUMP } else { NLM_F_ACK }, sequence);
        fill(&mut self.batch);
        self.socket.send(self.batch.bytes())?;
        let (mut found, mut changed) = (Vec::new(), false);
        loop {
            for answer in messages(self.socket.receive()?).filter(|answer| answer.sequence == sequence) {
                changed |= dump && answer.flags & INTERRUPTED != 0;
                if answer.kind == NLMSG_ERROR || answer.kind == NLMSG_DONE {
                    return match answer.error() {
                        Some(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
                        Some(error) => Err(error),
                        None if changed => Err(io::ErrorKind::Interrupted.into()),
                        None => Ok(Some(found)),
                    };
                }
                // `struct nfgenmsg` comes before the attributes.
                let family = answer.payload.first().copied().unwrap_or(FAMILY_NONE);
                let attributes = answer.payload.get(4..).unwrap_or_default().to_vec();
                found.push(Found { family, attributes });
            }
        }
    }

    /// The elements of a set; `None` when there is no such set.
    pub(super) fn elements_of(
        &mut self,
        family: u8,
        table: &str,
        set: &str,
    ) -> io::Result<Option<Vec<Element>>> {
        let answers = self.ask(GET_ELEMENT, family, true, |batch| {
            batch.put_text(ELEMENTS_TABLE, table);
            batch.put_text(ELEMENTS_SET, set);
        })?;
        Ok(answers.map(|answers| answers.iter().flat_map(|found| elements(&found.attributes)).collect()))
    }

    /// The addresses that tables of this name fence now: what an earlier run left.
    pub(crate) fn leftovers(&mut self) -> io::Result<Vec<IpAddr>> {
        let table = self.table.clone();
        let mut found = Vec::new();
        for set in [VIPS4, VIPS6] {
            found.extend(self.elements_of(FAMILY_INET, &table, set)?.unwrap_or_default());
        }
        Ok(found.into_iter().map(|element| element.address).collect())
    }

    /// All tables whose names begin so, by name.
    pub(crate) fn tables(&mut self, prefix: &str) -> io::Result<Vec<TableNames>> {
        let answers = self.ask(GET_TABLE, FAMILY_NONE, true, |_| ())?.unwrap_or_default();
        let mut tables: Vec<TableNames> = Vec::new();
        for found in answers {
            let Some(name) = text(&found.attributes, TABLE_NAME).filter(|name| name.starts_with(prefix))
            else {
                continue;
            };
            match tables.iter_mut().find(|table| table.name == name) {
                Some(table) => table.families.push(found.family),
                None => tables.push(TableNames { name: name.to_owned(), families: vec![found.family] }),
            }
        }
        Ok(tables)
    }

    /// The addresses that these tables fence, and whether each is open; `None` when they are no fence of ours.
    pub(crate) fn fenced_by(&mut self, tables: &TableNames) -> io::Result<Option<Vec<(IpAddr, bool)>>> {
        let mut fenced: Option<Vec<(IpAddr, bool)>> = None;
        for family in tables.families.clone() {
            for (vips, leases) in [(VIPS4, LEASE4), (VIPS6, LEASE6)] {
                let listed = self.elements_of(family, &tables.name, vips)?;
                let (Some(listed), Some(open)) = (listed, self.elements_of(family, &tables.name, leases)?)
                else {
                    continue;
                };
                let fenced = fenced.get_or_insert_default();
                for Element { address, .. } in listed {
                    let open = open.iter().any(|lease| lease.address == address);
                    match fenced.iter_mut().find(|(known, _)| *known == address) {
                        // Open is what is open everywhere.
                        Some((_, everywhere)) => *everywhere &= open,
                        None => fenced.push((address, open)),
                    }
                }
            }
        }
        Ok(fenced)
    }

    /// Closes every fence of these tables.
    pub(crate) fn shut_all(&mut self, tables: &TableNames) -> io::Result<()> {
        for family in &tables.families {
            for leases in [LEASE4, LEASE6] {
                self.begin();
                // Without elements it is about all.
                self.batch.message(DEL_ELEMENT, *family, 0);
                self.batch.put_text(ELEMENTS_TABLE, &tables.name);
                self.batch.put_text(ELEMENTS_SET, leases);
                match self.commit() {
                    Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                    _ => (),
                }
            }
        }
        Ok(())
    }

    /// Removes these tables.
    pub(crate) fn remove_tables(&mut self, tables: &TableNames) -> io::Result<()> {
        self.begin();
        for family in &tables.families {
            super::ruleset::drop_table(&mut self.batch, *family, &tables.name);
        }
        self.commit()
    }
}

/// The elements in an answer.
pub(super) fn elements(message: &[u8]) -> Vec<Element> {
    let lists = attributes(message).filter(|(kind, _)| *kind == ELEMENTS_LIST);
    let found = lists.flat_map(|(_, list)| attributes(list)).filter_map(|(_, element)| {
        let key = value(value(element, ELEMENT_KEY)?, DATA_VALUE)?;
        let timeout = number(element, ELEMENT_TIMEOUT);
        let left = timeout.map(|timeout| number(element, ELEMENT_EXPIRATION).unwrap_or(timeout));
        Some(Element { address: address(key)?, left })
    });
    found.collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::octets;
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let known: IpAddr = text.parse().unwrap_or(IpAddr::from([0; 4]));
            assert_eq!(address(octets(known, &mut [0; 16])), Some(known));
        }
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
