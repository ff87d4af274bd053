//! Names of resources: short, printable, safe in paths, URLs, metrics and log lines.

use std::fmt;
use std::sync::Arc;

/// Longest name, in characters; the length of a DNS label (RFC 1035 §2.3.4).
pub(crate) const NAME_MAX: usize = 63;

/// The rule that [`check`] applies, as it is told to users.
const RULE: &str = "must be 1 to 63 characters of a-z, A-Z, 0-9, '-', '_' and '.', \
                    and begin and end with a letter or digit";

/// HAProxy's and Kubernetes' names both fit, so that a set-up moves over under the names its operators know.
fn check(name: &str) -> Result<(), String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = name.len() <= NAME_MAX
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(inner);
    if good { Ok(()) } else { Err(RULE.to_owned()) }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name; the error is the rule that it breaks.
            ///
            /// # Errors
            /// When the name is empty, longer than 63 characters, or has a character other than letters, digits,
            /// `-`, `_` and `.`, or does not begin and end with a letter or digit.
            pub fn parse(name: &str) -> Result<Self, String> {
                check(name).map(|()| Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type!(
    /// Name of a pool, unique in the cluster.
    PoolName
);
name_type!(
    /// Name of a backend, unique in its pool.
    BackendName
);
name_type!(
    /// Name of a listener, unique in the cluster.
    ListenerName
);
name_type!(
    /// Name of a virtual IP, unique in the cluster.
    VipName
);
name_type!(
    /// Name of a member, unique among the current members.
    MemberName
);
name_type!(
    /// Name of a user, unique in the cluster.
    UserName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_field_are_accepted() {
        for name in
            ["a", "web", "kubeAPI_backend", "k0s-controller1", "10.0.3.2", "A-b_c.d9", &"x".repeat(63)]
        {
            assert!(PoolName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_could_hurt_are_refused() {
        let long = "x".repeat(64);
        for name in [
            "", "-a", "a-", ".", "..", "../etc", "a/b", "a b", "a\nb", "a\0", "\u{7f}", "ü", "a%2f", "_a",
            &long,
        ] {
            assert!(PoolName::parse(name).is_err(), "{name:?}");
        }
    }
}
