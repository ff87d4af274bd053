//! What holds for every first flight of a connection, whatever is in it: nothing panics, pieces are read as the whole is,
//! no more is asked for or consumed than there may be, and what was read is read again when it is written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Debug;
use std::path::Path;

use trestle_engine::client_hello::{self, HELLO_MAX, Hello, INPUT_MAX};
use trestle_engine::proxy::{self, HEADER_MAX, LINE_MAX, ProxyError, TLVS_MAX, Tlvs};
use trestle_fuzz::{FuzzTarget, fuzz, gist};

fn corpus(of: &str) -> Vec<Vec<u8>> {
    trestle_fuzz::corpus(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(of))
}

/// Where an input is cut: everywhere while it is short, and at its beginning and every 61 bytes when it is long.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |cut| len <= 300 || *cut < 80 || cut % 61 == 0)
}

/// How a prefix was read: incomplete, with what is needed; whole; or as what cannot become whole any more.
#[derive(PartialEq, Debug)]
enum Reading<T> {
    Needs(usize),
    Whole(T),
    Refused(T),
}

/// Reads all prefixes. Those that say that more is needed need more than there is, none is whole before that is there, and the
/// first that says anything else says what all of it says.
fn pieces_are_read_as_the_whole<T: PartialEq + Debug>(
    input: &[u8],
    need_max: usize,
    read: impl Fn(&[u8]) -> Reading<T>,
) {
    let all = read(input);
    let mut promised = 0;
    for cut in cuts(input.len()).chain([input.len()]) {
        let part = read(&input[..cut]);
        if let Reading::Needs(need) = part {
            assert!(need > cut && need <= need_max, "at {cut} of {}: needs {need}", input.len());
            promised = promised.max(need);
            continue;
        }
        assert_eq!(part, all, "at {cut} of {}", input.len());
        let whole = matches!(part, Reading::Whole(_));
        assert!(!whole || cut >= promised, "at {cut}: {part:?}, and {promised} bytes were to be needed");
    }
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

/// A hello that asks for the same, in one record (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301 §3.1).
fn written(hello: &Hello) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = &hello.server_name {
        let names = vector16(&[&[0][..], &vector16(name.as_bytes())].concat());
        extensions.extend([&[0, 0][..], &vector16(&names)].concat());
    }
    if !hello.alpn.is_empty() {
        let one = |protocol: &Vec<u8>| [&[u8::try_from(protocol.len()).unwrap()][..], protocol].concat();
        let protocols = vector16(&hello.alpn.iter().flat_map(one).collect::<Vec<u8>>());
        extensions.extend([&[0, 16][..], &vector16(&protocols)].concat());
    }
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &vector16(&extensions)].concat();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[22, 3, 1][..], &vector16(&[&[1][..], &len[1..], &body].concat())].concat()
}

/// The lengths of a hello in one record are made right.
fn repair_hello(input: &mut [u8]) {
    if let (Ok(record), Some(message)) = (u16::try_from(input.len().saturating_sub(5)), record_len(input)) {
        input[3..5].copy_from_slice(&record.to_be_bytes());
        input[6..9].copy_from_slice(&message.to_be_bytes()[1..]);
    }
}

fn record_len(input: &[u8]) -> Option<u32> {
    u32::try_from(input.len().checked_sub(9)?).ok()
}

fn hello_outcome(input: &[u8]) -> String {
    let read = |input: &[u8]| match client_hello::parse(input) {
        Ok(client_hello::ParsedHello::Incomplete { need }) => Reading::Needs(need),
        Ok(client_hello::ParsedHello::Hello(hello)) => Reading::Whole(Ok(hello)),
        Ok(client_hello::ParsedHello::NotTls) => Reading::Refused(Err(None)),
        Err(error) => Reading::Refused(Err(Some(error))),
    };
    pieces_are_read_as_the_whole(input, INPUT_MAX, read);
    match client_hello::parse(input) {
        Err(error) => gist(&error),
        Ok(client_hello::ParsedHello::NotTls) => "not TLS".to_owned(),
        Ok(client_hello::ParsedHello::Incomplete { .. }) => "incomplete".to_owned(),
        Ok(client_hello::ParsedHello::Hello(hello)) => {
            assert!(input.len() > 40 && hello.alpn.iter().map(Vec::len).sum::<usize>() < HELLO_MAX);
            assert!(hello.server_name.is_none() || hello.odd_name.is_none(), "{hello:?}");
            if let Some(name) = &hello.server_name {
                let host = name.len() <= 253 && !name.ends_with('.') && *name == name.to_ascii_lowercase();
                assert!(host && !name.is_empty() && name.is_ascii(), "{name:?}");
            }
            assert!(hello.odd_name.as_ref().is_none_or(|name| name.chars().count() <= 255), "{hello:?}");
            assert!(hello.alpn.iter().all(|protocol| (1..=255).contains(&protocol.len())), "{hello:?}");
            let again = client_hello::parse(&written(&hello));
            let wanted = Hello { odd_name: None, ..hello.clone() };
            assert_eq!(again, Ok(client_hello::ParsedHello::Hello(wanted)));
            let (named, odd) = (hello.server_name.is_some(), hello.odd_name.is_some());
            format!("{named} {odd} {}", hello.alpn.len().min(4))
        }
    }
}

#[test]
fn fuzz_client_hello() {
    let words: &[&[u8]] = &[
        b"\0\0",
        b"\0\x10",
        b"\xfe\x0d",
        b"\x16\x03\x01",
        b"\x16\x03\x03\0\x01",
        b"\x02h2",
        b"\x08http/1.1",
        b".",
    ];
    let (seeds, repair) = (corpus("client_hello"), Some(repair_hello as trestle_fuzz::Repair));
    let target = FuzzTarget { name: "client_hello", seeds, words, len_max: 3000, repair };
    let summary = fuzz(&target, hello_outcome);
    assert!(summary.outcomes > 25, "{summary:?}");
}

/// The length of a version 2 header is made right, and its checksum, if it has one (proxy-protocol.txt §2.2).
fn repair_proxy(input: &mut [u8]) {
    let Some(announced) = input.len().checked_sub(16).and_then(|len| u16::try_from(len).ok()) else { return };
    if !input.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        return;
    }
    input[14..16].copy_from_slice(&announced.to_be_bytes());
    let addresses = [0, 12, 36, 216].get(usize::from(input[13] >> 4)).copied().unwrap_or(0);
    let mut at = 16 + addresses;
    while let Some(&[kind, high, low]) = input.get(at..).and_then(|rest| rest.first_chunk::<3>()) {
        let len = usize::from(u16::from_be_bytes([high, low]));
        if let (3, 4, Some(place)) = (kind, len, input.get_mut(at + 3..at + 7)) {
            place.fill(0);
            let checksum = crc32c(input).to_be_bytes();
            input[at + 3..at + 7].copy_from_slice(&checksum);
            return;
        }
        at += 3 + len;
    }
}

/// Bit by bit, beside the table of the code under test (RFC 3720 §12.1).
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// What may differ in what is passed on: the checksum is that of the new header.
fn without_checksum(tlvs: &Tlvs) -> Vec<(u8, Vec<u8>)> {
    tlvs.iter().filter(|(kind, _)| *kind != 3).map(|(kind, value)| (kind, value.to_vec())).collect()
}

fn proxy_outcome(input: &[u8]) -> String {
    let read = |input: &[u8]| match proxy::parse(input) {
        Ok(proxy::ParsedHeader::Incomplete { need }) => Reading::Needs(need),
        Ok(done) => Reading::Whole(Ok(done)),
        // A line that is too long may turn out to be wrong in another way, too, and errors quote what had come by then.
        Err(ProxyError::LineTooLong | ProxyError::Line { .. }) => Reading::Refused(Err(None)),
        Err(error) => Reading::Refused(Err(Some(std::mem::discriminant(&error)))),
    };
    pieces_are_read_as_the_whole(input, HEADER_MAX, read);
    match proxy::parse(input) {
        Err(error) => gist(&error),
        Ok(proxy::ParsedHeader::Incomplete { .. }) => "incomplete".to_owned(),
        Ok(proxy::ParsedHeader::Done { header, len }) => {
            assert!((15..=input.len()).contains(&len) && len <= HEADER_MAX, "{len} of {}", input.len());
            assert!(header.tlvs.as_bytes().len() <= TLVS_MAX);
            if let Some(ends) = header.addresses {
                let v2 = proxy::format_v2(ends.source, ends.destination, &header.tlvs);
                let Ok(proxy::ParsedHeader::Done { header: again, len }) = proxy::parse(&v2) else {
                    panic!("{:?} of {ends:?}", v2.escape_ascii().to_string());
                };
                assert_eq!((again.addresses, len), (Some(ends), v2.len()));
                assert_eq!(without_checksum(&again.tlvs), without_checksum(&header.tlvs));
                let v1 = proxy::format_v1(ends.source, ends.destination);
                let Ok(proxy::ParsedHeader::Done { header: again, len }) = proxy::parse(&v1) else {
                    panic!("{:?} of {ends:?}", v1.escape_ascii().to_string());
                };
                assert_eq!((again.addresses, len), (Some(ends), v1.len()));
                assert!(v1.len() <= LINE_MAX, "{}", v1.escape_ascii());
            }
            // Types that mean something (proxy-protocol.txt §2.2); others are all alike.
            let known = |kind: u8| if [3, 5, 0x20].contains(&kind) { kind } else { 0 };
            let kinds: Vec<u8> = header.tlvs.iter().map(|(kind, _)| known(kind)).take(3).collect();
            format!("{:?} {:?} {kinds:?}", header.version, header.addresses.map(|ends| ends.source.is_ipv4()))
        }
    }
}

#[test]
fn fuzz_proxy() {
    let words: &[&[u8]] = &[
        b"PROXY TCP4 ",
        b"PROXY TCP6 ",
        b"PROXY UNKNOWN",
        b" 65535",
        b"::ffff:",
        b"\r\n",
        b"\x03\0\x04\0\0\0\0",
        b"\x20\0\x05\x01\0\0\0\0",
        b"\x05\0\x80",
    ];
    let (seeds, repair) = (corpus("proxy"), Some(repair_proxy as trestle_fuzz::Repair));
    let target = FuzzTarget { name: "proxy", seeds, words, len_max: 600, repair };
    let summary = fuzz(&target, proxy_outcome);
    assert!(summary.outcomes > 25, "{summary:?}");
}
