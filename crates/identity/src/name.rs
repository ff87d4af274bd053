//! Names in certificates, as SPIFFE IDs (the SPIFFE-ID specification, section 2): a URI whose authority is the cluster.

use std::fmt;

use trestle_model::defaults::NUMBER_MAX;
use trestle_model::{ClusterId, MemberId, UserName};

const SCHEME: &str = "spiffe://";
const MEMBER: &str = "member";
const USER: &str = "user";

/// The rule that names in certificates follow, as it is told to users.
const RULE: &str = "must be spiffe://CLUSTER/member/ID or spiffe://CLUSTER/user/NAME, where CLUSTER is the id of the cluster";

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateSubject {
    /// A member.
    Member(MemberId),
    /// A user.
    User(UserName),
}

impl CertificateSubject {
    /// What people read in the certificate's common name.
    pub(crate) fn common(&self) -> String {
        match self {
            Self::Member(id) => format!("trestle member {id}"),
            Self::User(name) => name.to_string(),
        }
    }
}

/// The name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The cluster that the name is of.
    pub cluster: ClusterId,
    /// Whom it names.
    pub subject: CertificateSubject,
}

/// A member's id as [`fmt::Display`] writes it, and in no other form: two names of one member would be two identities.
fn member_id(text: &str) -> Option<MemberId> {
    let number = text.parse().ok().filter(|number| (1..=NUMBER_MAX).contains(number))?;
    Some(MemberId(number)).filter(|id| id.to_string() == text)
}

impl SpiffeId {
    /// Parses a URI; the error is the broken rule.
    ///
    /// # Errors
    /// When it is anything but the one form of a member's or a user's name: no other case, no escapes, no port, no query, nothing
    /// behind it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rule = || RULE.to_owned();
        let rest = text.strip_prefix(SCHEME).ok_or_else(rule)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(rule());
        };
        let cluster = ClusterId::parse(cluster).map_err(|_| rule())?;
        let subject = match kind {
            MEMBER => CertificateSubject::Member(member_id(name).ok_or_else(rule)?),
            USER => CertificateSubject::User(UserName::parse(name).map_err(|_| rule())?),
            _ => return Err(rule()),
        };
        Ok(Self { cluster, subject })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            CertificateSubject::Member(id) => write!(f, "{SCHEME}{}/{MEMBER}/{id}", self.cluster),
            CertificateSubject::User(name) => write!(f, "{SCHEME}{}/{USER}/{name}", self.cluster),
        }
    }
}

/// The DNS name under which members' certificates have the admin API, so that TLS libraries that look for one find it, whichever
/// address they dial.
pub fn admin_host(cluster: &ClusterId) -> String {
    format!("admin.{cluster}.trestle")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn there_is_one_form_of_each_name() {
        for good in ["member/1", "member/4611686018427387904", "user/alice", "user/ops-1.prod_x", "user/A"] {
            let text = format!("spiffe://{CLUSTER}/{good}");
            assert_eq!(SpiffeId::parse(&text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "/",
            "member",
            "member/",
            "member/0",
            "member/01",
            "member/+1",
            "member/-1",
            "member/1/",
            "member/1/x",
            "member/9223372036854775807",
            "member/x",
            "members/1",
            "Member/1",
            "user/",
            "user/a/b",
            "user/..",
            "user/a%62",
            "user/a?x",
            "user/a#x",
            "user//a",
            "user/-a",
            "user/ü",
            "user/a ",
            "root/a",
        ] {
            let text = format!("spiffe://{CLUSTER}/{bad}");
            assert!(SpiffeId::parse(&text).is_err(), "{text}");
        }
        for bad in [
            format!("SPIFFE://{CLUSTER}/member/1"),
            format!("https://{CLUSTER}/member/1"),
            format!("spiffe:/{CLUSTER}/member/1"),
            format!("spiffe://{CLUSTER}:80/member/1"),
            format!("spiffe://u@{CLUSTER}/member/1"),
            format!("spiffe://{}/member/1", CLUSTER.to_uppercase()),
            format!("spiffe://{}/member/1", &CLUSTER[1..]),
            format!(" spiffe://{CLUSTER}/member/1"),
            format!("spiffe://{CLUSTER}/member/1\0"),
            "spiffe:///member/1".to_owned(),
        ] {
            assert!(SpiffeId::parse(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_written_again(text in "(spiffe://)?[0-9a-f]{32}/(member|user)/[0-9a-zA-Z._/%-]{0,9}") {
            if let Ok(name) = SpiffeId::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn what_is_written_is_parsed_again(cluster in "[0-9a-f]{32}", id in 1..=NUMBER_MAX, user in "[a-zA-Z0-9]([a-z._-]{0,20}[a-z])?") {
            let cluster = ClusterId::parse(&cluster).unwrap();
            for subject in [CertificateSubject::Member(MemberId(id)), CertificateSubject::User(UserName::parse(&user).unwrap())] {
                let name = SpiffeId { cluster: cluster.clone(), subject };
                prop_assert_eq!(SpiffeId::parse(&name.to_string()), Ok(name));
            }
        }
    }
}
