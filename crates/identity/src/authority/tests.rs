#![allow(clippy::unwrap_used)]
//! What is signed, as OpenSSL sees it under its strictest rules.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::certificate::to_pem;

fn cluster() -> ClusterId {
    ClusterId::parse(&"0a".repeat(16)).unwrap()
}

fn authority(now: SystemTime) -> CertificateAuthority {
    CertificateAuthority::make(PrivateKey::generate().unwrap(), &cluster(), 1, now).unwrap()
}

fn openssl(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn openssl_believes_what_is_signed() {
    let (now, dir) = (SystemTime::now(), tempfile::tempdir().unwrap());
    let write = |name: &str, der: &[u8]| std::fs::write(dir.path().join(name), to_pem(der)).unwrap();
    let (ca, stranger) = (authority(now), authority(now));
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::read(&CertificateRequest::make(&key).unwrap()).unwrap();
    let alice = UserName::parse("alice").unwrap();
    let names = [
        LeafName::Dns(format!("admin.{}.trestle", cluster())),
        LeafName::Ip([10, 0, 0, 1].into()),
        LeafName::Dns("x".repeat(300)),
    ];
    write("ca", ca.certificate());
    write("stranger", stranger.certificate());
    write("user", &ca.sign_user(&request, &alice, now, Duration::from_secs(3600)).unwrap());
    write("member", &ca.sign_member(&request, MemberId(7), &names, now).unwrap());
    let verify = |ca: &str, purpose: &str, more: &[&str], leaf: &str| {
        let strict = ["verify", "-x509_strict", "-CAfile", ca, "-purpose", purpose];
        openssl(dir.path(), &[&strict, more, &[leaf]].concat())
    };
    let host = format!("admin.{}.trestle", cluster());
    for (purpose, more, leaf) in [
        ("sslclient", vec![], "user"),
        ("sslserver", vec!["-verify_ip", "10.0.0.1"], "member"),
        ("sslserver", vec!["-verify_hostname", &host], "member"),
        ("sslclient", vec![], "member"),
    ] {
        let (good, said) = verify("ca", purpose, &more, leaf);
        assert!(good, "{leaf}: {said}");
    }
    assert!(!verify("stranger", "sslclient", &[], "user").0);
    assert!(!verify("ca", "sslserver", &[], "user").0, "a user is no server");
    assert!(!verify("ca", "sslserver", &["-verify_ip", "10.0.0.2"], "member").0);
    let (_, text) = openssl(dir.path(), &["x509", "-in", "user", "-noout", "-text"]);
    assert!(text.contains(&format!("URI:spiffe://{}/user/alice", cluster())), "{text}");
}

#[test]
fn openssl_believes_what_a_newer_authority_has_signed_by_each_older_one() {
    let (now, dir) = (SystemTime::now(), tempfile::tempdir().unwrap());
    let make = |generation| {
        CertificateAuthority::make(PrivateKey::generate().unwrap(), &cluster(), generation, now).unwrap()
    };
    let authorities = [make(1), make(2), make(3), make(4)];
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::read(&CertificateRequest::make(&key).unwrap()).unwrap();
    let leaf = authorities[3].sign_member(&request, MemberId(1), &[], now).unwrap();
    let crossed = |newer: usize| {
        let generation = u32::try_from(newer + 1).unwrap();
        to_pem(&authorities[newer - 1].cross_sign(&authorities[newer], generation).unwrap())
    };
    let chain: String = [3, 2, 1].map(crossed).concat() + &to_pem(authorities[0].certificate());
    std::fs::write(dir.path().join("leaf"), to_pem(&leaf)).unwrap();
    std::fs::write(dir.path().join("chain"), chain).unwrap();
    for (number, known) in authorities.iter().enumerate() {
        std::fs::write(dir.path().join("ca"), to_pem(known.certificate())).unwrap();
        let strict = [
            "verify",
            "-x509_strict",
            "-CAfile",
            "ca",
            "-untrusted",
            "chain",
            "-purpose",
            "sslserver",
            "leaf",
        ];
        let (good, said) = openssl(dir.path(), &strict);
        assert!(good, "by authority {}: {said}", number + 1);
    }
    std::fs::write(dir.path().join("ca"), to_pem(make(1).certificate())).unwrap();
    assert!(!openssl(dir.path(), &["verify", "-CAfile", "ca", "-untrusted", "chain", "leaf"]).0);
}

#[test]
fn nothing_is_signed_for_longer_than_it_may_be() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let ca = authority(now);
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::read(&CertificateRequest::make(&key).unwrap()).unwrap();
    let name = UserName::parse("alice").unwrap();
    let hour = Duration::from_secs(3600);
    for (life, at, end) in [
        (hour, now, now + hour),
        (Duration::ZERO, now, now + *USER_CERTIFICATE_LIFE_BOUNDS.start()),
        (Duration::MAX, now, now + *USER_CERTIFICATE_LIFE_BOUNDS.end()),
        (hour, now + AUTHORITY_LIFE - hour / 2, now + AUTHORITY_LIFE),
    ] {
        let facts = CertificateFacts::read(&ca.sign_user(&request, &name, at, life).unwrap()).unwrap();
        assert_eq!((facts.not_before, facts.not_after), (at - hour, end), "{life:?}");
        assert_eq!((facts.pin, facts.uris.len()), (key.pin(), 1));
    }
}

#[test]
fn a_key_and_a_certificate_must_belong_together() {
    let now = SystemTime::now();
    let ca = authority(now);
    let again = PrivateKey::from_pem(ca.key.to_pem().expose()).unwrap();
    assert_eq!(
        CertificateAuthority::load(again, &cluster(), ca.certificate()).unwrap().not_after,
        ca_end(&ca)
    );
    let other = PrivateKey::generate().unwrap();
    let refused = CertificateAuthority::load(other, &cluster(), ca.certificate()).unwrap_err();
    assert!(matches!(refused, SigningError::OtherKey { .. }), "{refused}");
    assert!(!format!("{ca:?}").contains("PRIVATE"), "{ca:?}");
}

/// A certificate counts whole seconds.
fn ca_end(ca: &CertificateAuthority) -> SystemTime {
    CertificateFacts::read(ca.certificate()).unwrap().not_after
}
