//! What holds for every answer of nftables, whatever is in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use trestle_fuzz::{FuzzTarget, Repair, fuzz};

use super::batch::{Batch, attributes, read};
use super::difference::covers;
use super::monitor::{concerned, is_renewal};
use super::numbers::{ELEMENTS_LIST, NEW_ELEMENT, RULE_EXPRESSIONS, SUBSYSTEM, TABLE_NAME};
use super::reading::{Element, elements};
use super::{element, octets};
use crate::netlink::messages;

/// The message of the first length is as long as the input.
pub(crate) fn repair(input: &mut [u8]) {
    let len = u32::try_from(input.len()).unwrap();
    if let Some(first) = input.first_chunk_mut() {
        *first = len.to_ne_bytes();
    }
}

/// Real answers, and each message in them by itself, so that changes fall on all of its fields.
pub(crate) fn seeds(of: &str) -> Vec<Vec<u8>> {
    let answers =
        trestle_fuzz::corpus(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/netlink").join(of));
    let alone = answers.iter().flat_map(|answer| messages(answer).map(|message| message.whole.to_vec()));
    alone.chain(answers.iter().cloned()).collect()
}

/// The messages are parts of the input one after the other, each with its header of 16 bytes and in its own length.
pub(crate) fn messages_are_within(input: &[u8]) {
    let mut at = 0;
    for message in messages(input) {
        assert_eq!(input.get(at..at + message.whole.len()), Some(message.whole));
        assert_eq!(message.whole.len(), message.payload.len() + 16);
        at += message.whole.len().next_multiple_of(4);
    }
}

/// Attributes are parts of the input one after the other, and those in them of theirs.
fn attributes_are_within(bytes: &[u8], depth: usize) -> usize {
    let (mut at, mut deepest) = (0, depth);
    for attribute in read(bytes) {
        let len = attribute.value.len() + 4;
        assert_eq!(bytes.get(at + 4..at + len), Some(attribute.value));
        at += len.next_multiple_of(4);
        if attribute.nested && depth < 8 {
            deepest = deepest.max(attributes_are_within(attribute.value, depth + 1));
        }
    }
    assert!(at < bytes.len() + 4, "{at} of {}", bytes.len());
    deepest
}

/// An answer with these elements.
fn written(found: &[Element]) -> Vec<u8> {
    let mut batch = Batch::default();
    batch.request(NEW_ELEMENT, 1, 0, 1);
    let list = batch.open(ELEMENTS_LIST);
    for one in found {
        element(&mut batch, octets(one.address, &mut [0; 16]), one.left);
    }
    batch.close(list);
    batch.bytes()[20..].to_vec()
}

fn outcome(input: &[u8]) -> Vec<(u16, usize, usize)> {
    messages_are_within(input);
    let mut told = Vec::new();
    for message in messages(input) {
        let Some(inside) = message.payload.get(4..) else { continue };
        let depth = attributes_are_within(inside, 0);
        let found = elements(inside);
        // More would not fit into one attribute, whose length has 16 bits.
        let again: Vec<Element> = found.iter().take(500).copied().collect();
        assert_eq!(elements(&written(&again)), again);
        assert!(covers(inside, inside, None, true), "an answer is as it was sent");
        let more = [inside, &[8, 0, 77, 0, 1, 0, 0, 0][..]].concat();
        if inside.len() % 4 == 0
            && attributes(inside).map(|(_, value)| (value.len() + 4).next_multiple_of(4)).sum::<usize>()
                == inside.len()
        {
            assert!(!covers(inside, &more, None, true), "something was added");
        }
        let table = concerned(message.kind, message.payload);
        assert!(table.is_none_or(|table| message.kind >> 8 == SUBSYSTEM && table.len() <= inside.len()));
        let rules =
            attributes(inside).filter(|(kind, _)| [RULE_EXPRESSIONS, TABLE_NAME].contains(kind)).count();
        let renewal = usize::from(is_renewal(message.kind, message.payload));
        told.push((message.kind, depth * 8 + found.len().min(3) + 100 * renewal, rules.min(3)));
    }
    told.truncate(3);
    told
}

#[test]
fn fuzz_nft_answers() {
    let words: &[&[u8]] =
        &[b"trestle_m1\0", b"vips4\0", b"lease4\0", b"\x08\0\x01\x00\x0a\0\x03\x64", b"\x0c\0\x01\x80"];
    let target = FuzzTarget {
        name: "nft_answers",
        seeds: seeds("nft"),
        words,
        len_max: 1600,
        repair: Some(repair as Repair),
    };
    let summary = fuzz(&target, outcome);
    assert!(summary.outcomes > 40, "{summary:?}");
}
