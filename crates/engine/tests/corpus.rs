//! Real headers and hellos, and some made to be wrong: whole, cut at every byte, and with every byte changed.
//!
//! `haproxy-*` came from HAProxy 2.6, `openssl-*`, `curl*`, `python*`, `node-*` and `rustls-*` from those clients (OpenSSL
//! 3.0, curl 7.88, CPython 3.11, Node.js 20, rustls 0.23). `spec-*`, `split-*` and `made-*` are written after the
//! specifications. What begins with `bad-` must be refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use trestle_engine::{client_hello, proxy};

/// Name of each file without its extension, and its bytes.
fn corpus(of: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(of);
    let paths = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let stem = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let found: BTreeMap<_, _> = paths.map(|path| (stem(&path), std::fs::read(&path).unwrap())).collect();
    assert!(found.len() > 40, "{} files in {}: the corpus is gone", found.len(), dir.display());
    found
}

/// The bytes with each byte replaced by each other value in turn; in long ones, which differ from short ones in keys and
/// padding, by those that differ in one bit.
fn mutations(bytes: &[u8], mut check: impl FnMut(&[u8])) {
    let mut mutant = bytes.to_vec();
    for at in 0..bytes.len() {
        for change in (1..=255u8).filter(|change| bytes.len() <= 400 || change.is_power_of_two()) {
            mutant[at] = bytes[at] ^ change;
            check(&mutant);
        }
        mutant[at] = bytes[at];
    }
}

fn proxy_line(name: &str, bytes: &[u8]) -> String {
    match proxy::parse(bytes) {
        Ok(proxy::ParsedHeader::Done { header, len }) => {
            assert_eq!(len, bytes.len(), "{name}");
            let ends =
                header.addresses.map_or("none".to_owned(), |a| format!("{} {}", a.source, a.destination));
            let tlvs: Vec<String> =
                header.tlvs.iter().map(|(kind, v)| format!("{kind:x}:{}", v.len())).collect();
            format!("{name} {:?} {ends} [{}]", header.version, tlvs.join(" "))
        }
        Ok(proxy::ParsedHeader::Incomplete { need }) => {
            panic!("{name} is incomplete: {need} of {}", bytes.len())
        }
        Err(error) => format!("{name}: {error}"),
    }
}

fn hello_line(name: &str, bytes: &[u8]) -> String {
    match client_hello::parse(bytes) {
        Ok(client_hello::ParsedHello::Hello(hello)) => {
            let alpn: Vec<String> = hello.alpn.iter().map(|p| p.escape_ascii().to_string()).collect();
            format!("{name} {:?} [{}]", hello.server_name, alpn.join(" "))
        }
        Ok(other) => panic!("{name}: {other:?}"),
        Err(error) => format!("{name}: {error}"),
    }
}

/// Compares with the text beside the corpus, which says for each file what it must be read as.
fn expect(of: &str, line: impl Fn(&str, &[u8]) -> String) {
    let found: Vec<String> = corpus(of).iter().map(|(name, bytes)| line(name, bytes)).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(format!("{of}.txt"));
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    for (found, wanted) in found.iter().zip(wanted.lines()) {
        assert_eq!(found, wanted, "in {}", path.display());
    }
    assert_eq!(found.len(), wanted.lines().count(), "{}:\n{}", path.display(), found.join("\n"));
    for line in found.iter().filter(|line| line.starts_with("bad-")) {
        assert!(line.contains(": "), "{line}: must be refused");
    }
}

#[test]
fn proxy_headers_are_read_as_written_down() {
    expect("proxy", proxy_line);
}

#[test]
fn hellos_are_read_as_written_down() {
    expect("client_hello", hello_line);
}

#[test]
fn a_cut_proxy_header_is_incomplete() {
    for (name, bytes) in corpus("proxy") {
        for cut in 0..bytes.len() {
            match proxy::parse(&bytes[..cut]) {
                Ok(proxy::ParsedHeader::Incomplete { need }) => {
                    assert!(need > cut, "{name} at {cut}: {need}");
                    assert!(need <= bytes.len() || name.starts_with("bad-"), "{name} at {cut}: {need}");
                }
                Ok(done) => panic!("{name} at {cut}: {done:?}"),
                Err(error) => assert!(name.starts_with("bad-"), "{name} at {cut}: {error}"),
            }
        }
    }
}

#[test]
fn a_cut_hello_is_incomplete() {
    for (name, bytes) in corpus("client_hello") {
        for cut in 0..bytes.len() {
            match client_hello::parse(&bytes[..cut]) {
                Ok(client_hello::ParsedHello::Incomplete { need }) => {
                    assert!(need > cut, "{name} at {cut}: {need}");
                    assert!(need <= bytes.len() || name.starts_with("bad-"), "{name} at {cut}: {need}");
                }
                Ok(other) => panic!("{name} at {cut}: {other:?}"),
                Err(error) => assert!(name.starts_with("bad-"), "{name} at {cut}: {error}"),
            }
        }
    }
}

#[test]
fn what_follows_is_not_looked_at() {
    for (name, mut bytes) in corpus("proxy").into_iter().filter(|(name, _)| !name.starts_with("bad-")) {
        let len = bytes.len();
        bytes.extend_from_slice(b"PROXY \r\n\x16\x03\x01");
        let parsed = proxy::parse(&bytes);
        assert!(
            matches!(parsed, Ok(proxy::ParsedHeader::Done { len: l, .. }) if l == len),
            "{name}: {parsed:?}"
        );
    }
    for (name, mut bytes) in corpus("client_hello").into_iter().filter(|(name, _)| !name.starts_with("bad-"))
    {
        let alone = client_hello::parse(&bytes);
        bytes.extend_from_slice(b"\x14\x03\x03\0\x01\x01");
        assert_eq!(alone, client_hello::parse(&bytes), "{name}");
    }
}

#[test]
fn a_changed_proxy_header_is_never_read_beyond_its_end() {
    for (name, bytes) in corpus("proxy") {
        mutations(&bytes, |mutant| match proxy::parse(mutant) {
            Ok(proxy::ParsedHeader::Done { len, .. }) => {
                assert!((15..=mutant.len()).contains(&len), "{name}: {len}")
            }
            Ok(proxy::ParsedHeader::Incomplete { need }) => {
                assert!(need > mutant.len() && need <= proxy::HEADER_MAX, "{name}: {need}");
            }
            Err(_) => {}
        });
    }
}

/// A header with a checksum is refused wherever it is changed, but for the changes that turn it into one without.
#[test]
fn a_checksum_finds_every_change() {
    let headers = corpus("proxy");
    let header = &headers["haproxy-v2-unique-id-crc32c"];
    let mut passed = 0;
    mutations(header, |mutant| {
        if let Ok(proxy::ParsedHeader::Done { header, .. }) = proxy::parse(mutant) {
            assert!(header.tlvs.iter().all(|(kind, _)| kind != 3), "{header:?}");
            passed += 1;
        }
    });
    assert!(passed < 600, "{passed} changed headers passed");
}

#[test]
fn a_changed_hello_does_no_harm() {
    for (name, bytes) in corpus("client_hello") {
        mutations(&bytes, |mutant| match client_hello::parse(mutant) {
            Ok(client_hello::ParsedHello::Hello(hello)) => {
                let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
                assert!(hello.server_name.is_none_or(|name| name.chars().all(good)), "{name}");
            }
            Ok(client_hello::ParsedHello::Incomplete { need }) => {
                assert!(need > mutant.len() && need <= client_hello::INPUT_MAX, "{name}: {need}");
            }
            Ok(client_hello::ParsedHello::NotTls) => assert!(mutant[0] != 22 || mutant[1] != 3, "{name}"),
            Err(_) => {}
        });
    }
}
