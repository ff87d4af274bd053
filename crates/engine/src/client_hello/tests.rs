#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::fields::{ALPN, HOST_NAME, SERVER_NAME};
use super::*;

/// Bytes behind their length in 16 bits.
fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    extension(SERVER_NAME, &vector16(&[&[HOST_NAME][..], &vector16(name.as_bytes())].concat()))
}

fn alpn(protocols: &[Vec<u8>]) -> Vec<u8> {
    let one = |protocol: &Vec<u8>| [&[u8::try_from(protocol.len()).unwrap()][..], protocol].concat();
    extension(ALPN, &vector16(&protocols.iter().flat_map(one).collect::<Vec<u8>>()))
}

/// The handshake message of a hello with these extensions.
fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.push(0);
    body.extend_from_slice(&vector16(&[0x13, 0x01]));
    body.extend_from_slice(&[1, 0]);
    body.extend_from_slice(&vector16(extensions));
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO][..], &len[1..], &body].concat()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1][..], &vector16(content)].concat()
}

fn hello(input: &[u8]) -> Hello {
    match parse(input) {
        Ok(ParsedHello::Hello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_lower_case_without_a_dot_at_the_end() {
    let named = |name: &str| hello(&record(&message(&server_name(name)))).server_name;
    assert_eq!(named("API.Example.com."), Some("api.example.com".to_owned()));
    assert_eq!(named("localhost"), Some("localhost".to_owned()));
    assert_eq!(named(&["abcdefg"; 32].join(".")[..253]).map(|name| name.len()), Some(253));
    assert_eq!(named("192.0.2.1"), None);
    assert_eq!(named("::1"), None);
}

#[test]
fn a_name_that_is_no_host_name_is_told_apart() {
    let names = ["[::1]", "name:443", "", "*.example.com", "münchen.example", "a b", ".", "a..b", "-\n-"];
    for name in names {
        let hello = hello(&record(&message(&server_name(name))));
        assert_eq!((hello.server_name, hello.odd_name.as_deref()), (None, Some(name)));
    }
    let long = hello(&record(&message(&server_name(&"x".repeat(9000)))));
    assert_eq!((long.server_name, long.odd_name), (None, Some("x".repeat(255))));
    let sent = extension(SERVER_NAME, &vector16(&[&[HOST_NAME][..], &vector16(b"\xff\xfe")].concat()));
    assert_eq!(hello(&record(&message(&sent))).odd_name.as_deref(), Some("\u{fffd}\u{fffd}"));
}

#[test]
fn other_protocols_are_told_at_the_first_byte_that_differs() {
    for other in [&b"G"[..], b"SSH-2.0", b"\x80\x2e\x01", b"\0", b"\x15\x03\x01", b"\x16\x02", b"PROXY "] {
        assert_eq!(parse(other), Ok(ParsedHello::NotTls), "{other:?}");
    }
    for start in [&b""[..], b"\x16", b"\x16\x03"] {
        assert_eq!(parse(start), Ok(ParsedHello::Incomplete { need: 5 }));
    }
}

#[test]
fn the_bounds_are_those_that_are_said() {
    // The bytes of a hello beside the content of an extension.
    let around = message(&extension(21, &[])).len();
    let largest = message(&extension(21, &vec![0; HELLO_MAX - around]));
    assert_eq!(largest.len(), HELLO_MAX);
    assert_eq!(hello(&record(&largest)), Hello::default());

    let scattered: Vec<u8> = largest.chunks(HELLO_MAX / RECORDS_MAX).flat_map(record).collect();
    assert_eq!(scattered.len(), INPUT_MAX);
    assert_eq!(hello(&scattered), Hello::default());
    let more: Vec<u8> = largest.chunks(HELLO_MAX / RECORDS_MAX - 1).flat_map(record).collect();
    assert_eq!(parse(&more), Err(HelloError::TooScattered));

    let larger = message(&extension(21, &vec![0; HELLO_MAX - around + 1]));
    assert_eq!(parse(&record(&larger[..4])), Err(HelloError::TooLong(HELLO_MAX + 1)));
}

fn any_name() -> impl Strategy<Value = Option<String>> {
    let name = "[a-z_][a-zA-Z0-9_-]{0,20}(\\.[a-zA-Z][a-zA-Z0-9-]{0,20}){0,5}";
    prop::option::of(name.prop_map(String::from))
}

fn any_protocols() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..5)
}

/// Extensions that are not looked at.
fn any_others() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let kind = any::<u16>().prop_filter("is looked at", |kind| ![SERVER_NAME, ALPN].contains(kind));
    let content = prop::collection::vec(any::<u8>(), 0..60);
    prop::collection::vec((kind, content).prop_map(|(kind, content)| extension(kind, &content)), 0..6)
}

/// Hellos of any make, and what must be read in them.
fn any_message() -> impl Strategy<Value = (Vec<u8>, Hello)> {
    (any_name(), any_protocols(), any_others(), any::<u64>()).prop_map(|(name, protocols, others, order)| {
        let mut extensions = others;
        if let Some(name) = &name {
            extensions.insert(order as usize % (extensions.len() + 1), server_name(name));
        }
        if !protocols.is_empty() {
            extensions.insert((order >> 32) as usize % (extensions.len() + 1), alpn(&protocols));
        }
        let server_name = name.map(|name| name.to_ascii_lowercase());
        let wanted = Hello { server_name, odd_name: None, alpn: protocols };
        (message(&extensions.concat()), wanted)
    })
}

/// The message in records that end at these places.
fn scatter(message: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len())).collect();
    cuts.extend([0, message.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).flat_map(|pair| record(&message[pair[0]..pair[1]])).collect()
}

fn any_hello() -> impl Strategy<Value = (Vec<u8>, Hello)> {
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..8);
    (any_message(), cuts).prop_map(|((message, wanted), cuts)| (scatter(&message, &cuts), wanted))
}

proptest! {
    #[test]
    fn what_was_put_in_is_read((input, wanted) in any_hello(), after in any::<[u8; 7]>()) {
        prop_assert_eq!(hello(&input), wanted.clone());
        prop_assert_eq!(hello(&[&input[..], &after].concat()), wanted);
    }

    #[test]
    fn a_beginning_is_incomplete_and_need_is_never_too_much((input, _) in any_hello()) {
        for cut in 0..input.len() {
            match parse(&input[..cut]) {
                Ok(ParsedHello::Incomplete { need }) => prop_assert!(need > cut && need <= input.len()),
                other => prop_assert!(false, "{other:?} at {cut}"),
            }
        }
    }

    #[test]
    fn asking_for_what_is_needed_ends_at_the_end((input, wanted) in any_hello(), after in any::<[u8; 20]>()) {
        let stream = [&input[..], &after].concat();
        let mut have = 0;
        let read = loop {
            match parse(&stream[..have]).unwrap() {
                ParsedHello::Incomplete { need } => have = need,
                ParsedHello::Hello(hello) => break hello,
                ParsedHello::NotTls => panic!("not TLS"),
            }
        };
        prop_assert_eq!((read, have), (wanted, input.len()));
    }

    #[test]
    fn a_changed_hello_does_no_harm(
        (input, _) in any_hello(), at in any::<prop::sample::Index>(), change in 1u8..,
    ) {
        let mut mutant = input;
        let at = at.index(mutant.len());
        mutant[at] ^= change;
        match parse(&mutant) {
            Ok(ParsedHello::Incomplete { need }) => prop_assert!(need > mutant.len() && need <= INPUT_MAX),
            Ok(ParsedHello::NotTls) => prop_assert!(at < 2),
            Ok(ParsedHello::Hello(_)) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_bytes_do_no_harm(
        start in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        match start {
            0 => { let _ = parse(&bytes); }
            1 => { let _ = parse(&record(&bytes)); }
            _ => {
                let whole = parse(&record(&message(&bytes)));
                prop_assert!(matches!(whole, Ok(ParsedHello::Hello(_)) | Err(_)), "{whole:?}");
            }
        }
    }
}
