#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn done(input: &[u8]) -> (Header, usize) {
    match parse(input) {
        Ok(ParsedHeader::Done { header, len }) => (header, len),
        other => panic!("{other:?}"),
    }
}

fn ends(source: &str, destination: &str) -> (SocketAddr, SocketAddr) {
    (source.parse().unwrap(), destination.parse().unwrap())
}

fn v1(source: &str, destination: &str) -> String {
    let (source, destination) = ends(source, destination);
    String::from_utf8(format_v1(source, destination)).unwrap()
}

/// A TLV as bytes.
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], value].concat()
}

/// A version 2 header for TCP over IPv4 with these bytes after the addresses.
fn v2_with(rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(12 + rest.len()).unwrap().to_be_bytes();
    [&v2::SIGNATURE[..], &[0x21, 0x11], &len, &[10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2], rest].concat()
}

#[test]
fn lines_are_written_as_in_the_specification() {
    let line = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    assert_eq!(v1("192.168.0.1:56324", "192.168.0.11:443"), line);
    let line = "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n";
    assert_eq!(v1("[2001:db8::1]:56324", "[2001:db8::2]:443"), line);
}

#[test]
fn one_ipv4_end_is_mapped_and_two_mapped_ends_are_ipv4() {
    let mixed = "PROXY TCP6 ::ffff:a00:1 2001:db8::2 56324 443\r\n";
    assert_eq!(v1("10.0.0.1:56324", "[2001:db8::2]:443"), mixed);
    assert_eq!(v1("[::ffff:10.0.0.1]:56324", "[2001:db8::2]:443"), mixed);
    let plain = "PROXY TCP4 10.0.0.1 10.0.0.2 56324 443\r\n";
    assert_eq!(v1("[::ffff:10.0.0.1]:56324", "10.0.0.2:443"), plain);
    assert_eq!(v1("[::ffff:10.0.0.1]:56324", "[::ffff:10.0.0.2]:443"), plain);

    let (source, destination) = ends("10.0.0.1:56324", "[2001:db8::2]:443");
    let header = format_v2(source, destination, &Tlvs::default());
    assert_eq!((header[13], header.len()), (0x21, 52));
    assert_eq!(header[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(done(&header).0.addresses, Some(Addresses { source, destination }));
}

#[test]
fn the_bounds_are_those_that_are_said() {
    let largest = v2_with(&tlv(0xe1, &vec![0; TLVS_MAX - 3]));
    let (header, len) = done(&largest);
    assert_eq!(len, largest.len());
    let (source, destination) = ends("10.0.0.1:1", "[::1]:2");
    let passed_on = format_v2(source, destination, &header.tlvs);
    assert_eq!(passed_on.len(), HEADER_MAX);
    assert_eq!(done(&passed_on).0.tlvs, header.tlvs);

    let larger = v2_with(&tlv(0xe1, &vec![0; TLVS_MAX - 2]));
    assert_eq!(parse(&larger), Err(ProxyError::TlvsTooLong(TLVS_MAX + 1)));
    let mut huge = v2_with(&[]);
    huge[14..16].fill(0xff);
    assert_eq!(parse(&huge[..16]), Err(ProxyError::TooLong(16 + 0xffff)));
    assert_eq!(parse(&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat()), Err(ProxyError::LineTooLong));
}

#[test]
fn a_checksum_is_made_anew_when_it_is_passed_on() {
    let tlvs = [tlv(1, b"h2"), tlv(3, &[0; 4]), tlv(5, b"id")].concat();
    let mut header = v2_with(&tlvs);
    assert!(matches!(parse(&header), Err(ProxyError::Checksum { said: 0, .. })));
    tlv::write_checksum(&mut header, tlvs.len());
    let came = done(&header).0.tlvs;

    let (source, destination) = ends("192.0.2.1:1", "192.0.2.2:2");
    let sent = format_v2(source, destination, &came);
    let (passed_on, _) = done(&sent);
    let pair = |(kind, value): (u8, &[u8])| (kind, value.to_vec());
    let (came, passed_on): (Vec<_>, Vec<_>) =
        (came.iter().map(pair).collect(), passed_on.tlvs.iter().map(pair).collect());
    assert_eq!((&came[0], &came[2]), (&passed_on[0], &passed_on[2]));
    assert_ne!(came[1], passed_on[1]);
}

#[test]
fn something_else_is_told_at_once() {
    for other in [&b"G"[..], b"\x16\x03\x01", b"PROXX", b"\r\n\r\n\r", b"\0", b"proxy "] {
        assert!(matches!(parse(other), Err(ProxyError::NotProxy(_))), "{other:?}");
    }
}

fn any_ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let mapped =
        any::<SocketAddrV4>().prop_map(|v4| SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()));
    let end = prop_oneof![4 => any::<SocketAddr>(), 1 => mapped];
    (end.clone(), end)
}

/// Sound rows of TLVs, some with a checksum that is not right yet.
fn any_tlvs() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let one = prop_oneof![
        6 => (any::<u8>().prop_filter("has a form of its own", |k| ![3, 0x20].contains(k)), bytes())
            .prop_map(|(kind, value)| tlv(kind, &value)),
        1 => (any::<[u8; 5]>(), any::<u8>(), bytes())
            .prop_map(|(head, kind, value)| tlv(0x20, &[&head[..], &tlv(kind, &value)].concat())),
    ];
    (prop::collection::vec(one, 0..6), any::<Option<prop::sample::Index>>()).prop_map(
        |(mut row, checksum)| {
            if let Some(index) = checksum {
                row.insert(index.index(row.len() + 1), tlv(3, &[0; 4]));
            }
            row.concat()
        },
    )
}

/// Valid headers of both versions.
fn any_header() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any_ends().prop_map(|(source, destination)| format_v1(source, destination)),
        "PROXY UNKNOWN( [ -~]{0,90})?\r\n".prop_map(String::into_bytes),
        (any_ends(), any_tlvs()).prop_map(|((source, destination), tlvs)| {
            format_v2(source, destination, &Tlvs::parse(&tlvs).unwrap())
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again((source, destination) in any_ends(), row in any_tlvs(), after in any::<[u8; 4]>()) {
        let wanted = Addresses { source: canonical(source), destination: canonical(destination) };
        let mut line = format_v1(source, destination);
        let len = line.len();
        line.extend_from_slice(&after);
        let header = Header { version: Version::V1, addresses: Some(wanted), tlvs: Tlvs::default() };
        prop_assert_eq!(parse(&line), Ok(ParsedHeader::Done { header, len }));

        let tlvs = Tlvs::parse(&row).unwrap();
        let mut binary = format_v2(source, destination, &tlvs);
        let len = binary.len();
        binary.extend_from_slice(&after);
        let (header, read) = done(&binary);
        prop_assert_eq!((header.version, header.addresses, read), (Version::V2, Some(wanted), len));
        let plain = |tlvs: &Tlvs| {
            let all = tlvs.iter().map(|(kind, value)| (kind, if kind == 3 { Vec::new() } else { value.to_vec() }));
            all.collect::<Vec<_>>()
        };
        prop_assert_eq!(plain(&header.tlvs), plain(&tlvs));
    }

    #[test]
    fn a_beginning_is_incomplete_and_need_is_never_too_much(header in any_header()) {
        for cut in 0..header.len() {
            match parse(&header[..cut]) {
                Ok(ParsedHeader::Incomplete { need }) => prop_assert!(need > cut && need <= header.len()),
                other => prop_assert!(false, "{other:?} at {cut}"),
            }
        }
    }

    /// Reading just what is asked for ends at the header's end, so a caller never takes a byte of the client's.
    #[test]
    fn asking_for_what_is_needed_ends_at_the_end(header in any_header(), after in any::<[u8; 20]>()) {
        let stream = [&header[..], &after].concat();
        let mut have = 0;
        while let ParsedHeader::Incomplete { need } = parse(&stream[..have]).unwrap() {
            have = need;
        }
        prop_assert_eq!(have, header.len());
    }

    #[test]
    fn a_changed_header_is_never_read_beyond_its_end(
        header in any_header(), at in any::<prop::sample::Index>(), change in 1u8..,
    ) {
        let mut mutant = header;
        let at = at.index(mutant.len());
        mutant[at] ^= change;
        match parse(&mutant) {
            Ok(ParsedHeader::Done { len, .. }) => prop_assert!(len <= mutant.len()),
            Ok(ParsedHeader::Incomplete { need }) => prop_assert!(need > mutant.len() && need <= HEADER_MAX),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_bytes_do_no_harm(start in 0usize..4, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let starts: [&[u8]; 4] = [b"", b"PROXY ", &v2::SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];
        let _ = parse(&[starts[start], &bytes].concat());
        if let Ok(tlvs) = Tlvs::parse(&bytes) {
            let again: Vec<u8> = tlvs.iter().flat_map(|(kind, value)| tlv(kind, value)).collect();
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn a_header_of_ones_own_names_nobody() {
    let header = Header { version: Version::V2, addresses: None, tlvs: Tlvs::default() };
    assert_eq!(parse(OWN_V2), Ok(ParsedHeader::Done { header, len: OWN_V2.len() }));
}
