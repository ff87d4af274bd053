//! Netlink messages to nftables, many of which take effect as one.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};

use super::numbers::{BATCH_BEGIN, BATCH_END, FAMILY_NONE, NESTED, SUBSYSTEM};

/// A transaction under construction. All of it happens or nothing. The memory is kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where the message under construction begins.
    message: usize,
    first: u32,
    sequence: u32,
}

/// An attribute that holds others; closed by [`Batch::close`].
#[must_use]
pub(super) struct Nest(usize);

impl Batch {
    /// Forgets what was there and begins a transaction whose messages are numbered from `sequence`.
    pub(super) fn begin(&mut self, sequence: u32) {
        self.bytes.clear();
        self.first = sequence;
        self.sequence = sequence;
        self.header(BATCH_BEGIN, FAMILY_NONE, NLM_F_REQUEST, SUBSYSTEM);
    }

    /// Begins a message of the transaction.
    pub(super) fn message(&mut self, kind: u16, family: u8, flags: u16) {
        self.end_message();
        self.sequence = self.sequence.wrapping_add(1);
        self.header(SUBSYSTEM << 8 | kind, family, NLM_F_REQUEST | flags, 0);
    }

    /// Begins a message that creates something unless it is there.
    pub(super) fn create(&mut self, kind: u16, family: u8) {
        self.message(kind, family, NLM_F_CREATE);
    }

    /// Ends the transaction. Answers the numbers of its beginning and of its last message, which is answered in any case.
    pub(super) fn end(&mut self) -> (u32, u32) {
        let last = self.sequence;
        let flags = self.message + 6;
        let acknowledged = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | NLM_F_ACK;
        self.bytes[flags..flags + 2].copy_from_slice(&acknowledged.to_ne_bytes());
        self.end_message();
        self.sequence = self.sequence.wrapping_add(1);
        self.header(BATCH_END, FAMILY_NONE, NLM_F_REQUEST, SUBSYSTEM);
        (self.first, last)
    }

    /// A single request outside of any transaction.
    pub(super) fn request(&mut self, kind: u16, family: u8, flags: u16, sequence: u32) {
        self.bytes.clear();
        self.sequence = sequence;
        self.header(SUBSYSTEM << 8 | kind, family, NLM_F_REQUEST | flags, 0);
    }

    pub(super) fn bytes(&mut self) -> &[u8] {
        self.end_message();
        &self.bytes
    }

    /// `struct nlmsghdr` and `struct nfgenmsg`.
    fn header(&mut self, kind: u16, family: u8, flags: u16, resource: u16) {
        self.message = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
    }

    fn end_message(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.message).unwrap_or(u32::MAX);
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute. Everything in it is in network byte order.
    pub(super) fn put(&mut self, attribute: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&attribute.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn put_number(&mut self, attribute: u16, value: u32) {
        self.put(attribute, &value.to_be_bytes());
    }

    /// Text, with the zero byte that the kernel wants at its end.
    pub(super) fn put_text(&mut self, attribute: u16, value: &str) {
        let nest = self.open(attribute);
        // Not nested after all: only the length is filled in later.
        let kind = nest.0 + 2;
        self.bytes[kind..kind + 2].copy_from_slice(&attribute.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(nest);
    }

    pub(super) fn open(&mut self, attribute: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0_u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(attribute | NESTED).to_ne_bytes());
        Nest(at)
    }

    pub(super) fn close(&mut self, nest: Nest) {
        let length = u16::try_from(self.bytes.len() - nest.0).unwrap_or(u16::MAX);
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// An attribute as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u16,
    /// It says that it holds others, which not everything does that the kernel sends.
    pub(super) nested: bool,
    pub(super) value: &'a [u8],
}

/// The attributes in `bytes`. Ends at the first that is cut short.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The top bits say "nested" and "network byte order".
        Some(Attribute { kind: kind & 0x3fff, nested: kind & NESTED != 0, value })
    })
}

/// The attributes in `bytes`: their kinds and values.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    read(bytes).map(|attribute| (attribute.kind, attribute.value))
}

/// The value of the first attribute of a kind.
pub(super) fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number of up to eight bytes, in network byte order as all are.
pub(super) fn number(bytes: &[u8], kind: u16) -> Option<u64> {
    let value = value(bytes, kind).filter(|value| value.len() <= 8)?;
    Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Text, without the zero bytes at its end.
pub(super) fn text(bytes: &[u8], kind: u16) -> Option<&str> {
    std::str::from_utf8(value(bytes, kind)?).ok().map(|text| text.trim_end_matches('\0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn attributes_are_read_as_written_and_broken_ones_end_the_list() {
        let mut batch = Batch::default();
        batch.request(1, 2, 0, 3);
        let nest = batch.open(7);
        batch.put_text(8, "name");
        batch.put_number(9, 10);
        batch.close(nest);
        let bytes = batch.bytes().to_vec();
        assert_eq!(usize::try_from(u32::from_ne_bytes(bytes[..4].try_into().unwrap())).unwrap(), bytes.len());
        // `struct nlmsghdr` and `struct nfgenmsg` come first.
        let outer: Vec<_> = attributes(&bytes[20..]).collect();
        let [(7, inside)] = outer[..] else { panic!("{outer:?}") };
        let inner: Vec<_> = attributes(inside).collect();
        assert_eq!(inner, [(8, b"name\0".as_slice()), (9, 10_u32.to_be_bytes().as_slice())]);
        for length in 0..inside.len() {
            assert!(attributes(&inside[..length]).count() < 2);
        }
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
