#![allow(clippy::unwrap_used)]
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use trestle_model::{ClusterId, MemberId, UserName};

use super::*;
use crate::authority::{LeafName, common_name};
use crate::certificate::from_pem;
use crate::private_key::PrivateKey;
use crate::request::CertificateRequest;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 30_000 * DAY
}

fn cluster() -> ClusterId {
    ClusterId::parse(&"0a".repeat(16)).unwrap()
}

fn name(subject: CertificateSubject) -> SpiffeId {
    SpiffeId { cluster: cluster(), subject }
}

/// An authority of a firm, with nothing of Trestle's in its certificate.
struct Firm {
    key: KeyPair,
    certificate: Vec<u8>,
}

fn params(common: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(common);
    params.is_ca = is_ca;
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + 30 * DAY).into();
    params
}

impl Firm {
    fn root() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = params("Firm Root", IsCa::Ca(BasicConstraints::Unconstrained));
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { key, certificate }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_ca_cert_der(&self.certificate.as_slice().into(), &self.key).unwrap()
    }

    fn intermediate(&self) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = params("Firm Issuing", IsCa::Ca(BasicConstraints::Constrained(0)));
        let certificate = params.signed_by(&key, &self.issuer()).unwrap().der().to_vec();
        Self { key, certificate }
    }

    /// Signs a request as it is, for these uses.
    fn sign(&self, request: &str, usages: &[ExtendedKeyUsagePurpose]) -> Vec<u8> {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.not_before = (now() - DAY).into();
        request.params.not_after = (now() + DAY).into();
        request.params.extended_key_usages = usages.to_vec();
        request.signed_by(&self.issuer()).unwrap().der().to_vec()
    }
}

fn at(time: SystemTime) -> VerificationTime {
    VerificationTime::by_clock(time)
}

const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

#[test]
fn what_a_firms_authority_signs_by_way_of_another_is_believed_with_that_one_shown() {
    let (root, key) = (Firm::root(), PrivateKey::generate().unwrap());
    let issuing = root.intermediate();
    let member = name(CertificateSubject::Member(MemberId(7)));
    let hosts = [LeafName::Dns("m7.example".to_owned()), LeafName::Ip([10, 0, 0, 7].into())];
    let request = CertificateRequest::named(&key, &member, &hosts).unwrap();
    let leaf = issuing.sign(&request, BOTH);
    let authorities = [root.certificate.clone()];
    let others: [&[u8]; 1] = [&issuing.certificate];
    let shown = ShownChain { leaf: &leaf, others: &others };
    let facts = verify_issued(&member, &authorities, shown, at(now())).unwrap();
    assert_eq!((facts.pin, facts.dns_names), (key.pin(), vec!["m7.example".to_owned()]));
    assert_eq!(facts.addresses, [std::net::IpAddr::from([10, 0, 0, 7])]);

    let refused = |wanted: &SpiffeId, authorities: &[Vec<u8>], shown, time| {
        verify_issued(wanted, authorities, shown, at(time)).unwrap_err().to_string()
    };
    let alone = refused(&member, &authorities, ShownChain::alone(&leaf), now());
    assert!(alone.contains("\"CN=Firm Issuing\", which is no authority of cluster"), "{alone}");
    let other = refused(&member, &[Firm::root().certificate], shown, now());
    assert!(other.contains("no authority of cluster"), "{other}");
    let another = name(CertificateSubject::Member(MemberId(8)));
    let told = refused(&another, &authorities, shown, now());
    assert!(told.contains("/member/7\", and must be for") && told.contains("/member/8\""), "{told}");
    assert!(refused(&member, &authorities, shown, now() + 2 * DAY).contains("expired at"));
    assert!(refused(&member, &authorities, shown, now() - 2 * DAY).contains("valid from"));
}

#[test]
fn a_member_calls_and_is_called_and_a_user_calls() {
    let (root, key) = (Firm::root(), PrivateKey::generate().unwrap());
    let user = name(CertificateSubject::User(UserName::parse("alice").unwrap()));
    let member = name(CertificateSubject::Member(MemberId(7)));
    let authorities = [root.certificate.clone()];
    let judged = |name: &SpiffeId, usages: &[ExtendedKeyUsagePurpose]| {
        let leaf = root.sign(&CertificateRequest::named(&key, name, &[]).unwrap(), usages);
        verify_issued(name, &authorities, ShownChain::alone(&leaf), at(now())).map_err(|why| why.to_string())
    };
    assert!(judged(&user, &BOTH[1..]).is_ok() && judged(&user, &[]).is_ok() && judged(&member, &[]).is_ok());
    let as_server = judged(&member, &BOTH[1..]).unwrap_err();
    assert!(as_server.contains("as the certificate of a server"), "{as_server}");
    let as_client = judged(&user, &BOTH[..1]).unwrap_err();
    assert!(as_client.contains("as the certificate of a client"), "{as_client}");
    // Any other certificate that the firm has signed, as that of a web server.
    let mut site = params("www", IsCa::NoCa);
    site.subject_alt_names = vec![rcgen::SanType::DnsName("www.example".try_into().unwrap())];
    let site = site.signed_by(&KeyPair::generate().unwrap(), &root.issuer()).unwrap().der().to_vec();
    let none = verify_issued(&member, &authorities, ShownChain::alone(&site), at(now())).unwrap_err();
    assert_eq!(none, CertificateRefusal::NoName);
}

#[test]
fn only_an_authority_is_taken_for_one() {
    let root = Firm::root();
    assert!(check_authority(&root.certificate, now()).is_ok());
    assert!(check_authority(&root.intermediate().certificate, now()).is_ok());
    assert!(check_authority(&root.certificate, now() + 31 * DAY).unwrap_err().contains("has expired at"));
    for wrong in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let leaf = params("leaf", wrong).self_signed(&root.key).unwrap().der().to_vec();
        assert!(check_authority(&leaf, now()).unwrap_err().contains("must be an authority's"));
    }
    let mut crl = params("crl", IsCa::Ca(BasicConstraints::Unconstrained));
    crl.key_usages = vec![KeyUsagePurpose::CrlSign];
    let crl = crl.self_signed(&root.key).unwrap().der().to_vec();
    assert!(check_authority(&crl, now()).unwrap_err().contains("keyCertSign"));
    for broken in [&b""[..], b"\x30\x03\x02\x01\x01", &root.certificate[..root.certificate.len() - 1]] {
        assert!(check_authority(broken, now()).unwrap_err().contains("can be read"));
    }
    assert_eq!(from_pem(&crate::certificate::to_pem(&root.certificate)).unwrap(), [root.certificate]);
}
