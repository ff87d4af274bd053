//! When certificates end, and what is said of that before.

use std::time::{Duration, SystemTime};

use trestle_identity::{CertificateFacts, time_text};
use trestle_model::defaults::{AUTHORITY_WARNED, CERTIFICATE_WARNED};
use trestle_model::{ClusterState, Role, User, UserKey};

/// Most users that a sentence names.
const NAMED_MAX: usize = 5;

/// The certificate of a user that ends last.
fn last_key(user: &User) -> Option<&UserKey> {
    user.spec.keys.iter().max_by_key(|key| key.not_after)
}

fn moment(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Whether the end of a user's certificate is to be told: it is near, as far as that is within the last third of its life, or was not long
/// ago. Who was not renewed for longer is missed by nobody.
fn is_told(key: &UserKey, now: SystemTime) -> bool {
    let Some(end) = moment(key.not_after) else { return false };
    match end.duration_since(now) {
        Ok(left) => {
            let life = key.not_after.saturating_sub(key.not_before);
            let third = Duration::from_secs(life / 3);
            left < CERTIFICATE_WARNED && (key.not_before == 0 || left < third)
        }
        Err(over) => over.duration() < CERTIFICATE_WARNED,
    }
}

/// What is to be said of users' certificates, `named` to whoever may know who there is.
fn user_problem(state: &ClusterState, now: SystemTime, named: bool) -> Option<String> {
    let told = |user: &&User| last_key(user).is_some_and(|key| is_told(key, now));
    let mut users: Vec<&User> = state.users.values().map(AsRef::as_ref).filter(told).collect();
    if users.is_empty() {
        return None;
    }
    // Nobody misses a user as much as an admin.
    users.sort_by_key(|user| (user.spec.role != Role::Admin, last_key(user).map(|key| key.not_after)));
    let admins = users.iter().filter(|user| user.spec.role == Role::Admin).count();
    let whose = match users.len() {
        1 => "the certificate of 1 user ends within 30 days or has ended".to_owned(),
        many => format!("the certificates of {many} users end within 30 days or have ended"),
    };
    if !named {
        return Some(format!(
            "{whose}, {admins} of them admins: \"trestle user list\" of an admin says whose"
        ));
    }
    let name = |user: &&User| {
        let end = last_key(user).and_then(|key| moment(key.not_after)).map(time_text).unwrap_or_default();
        format!("{} ({}) at {end}", user.spec.name, user.spec.role)
    };
    let names: Vec<String> = users.iter().take(NAMED_MAX).map(name).collect();
    let more = users.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    Some(format!(
        "{whose}: {}{more}; \"trestle\" renews what it is used with before that, \"trestle user rotate NAME\" makes a new one, and \"trestle \
         user delete NAME\" ends a user that is not needed",
        names.join(", ")
    ))
}

/// What is to be said of the authority that signs.
fn authority_problem(state: &ClusterState, now: SystemTime) -> Option<String> {
    let active = state.active_authority()?;
    let authority = CertificateFacts::read(&active.certificate).ok()?;
    let left = authority.not_after.duration_since(now).unwrap_or_default();
    // An external one may be made for a year.
    let life = authority.not_after.duration_since(authority.not_before).unwrap_or_default();
    (left < AUTHORITY_WARNED.min(life / 3)).then(|| {
        let (end, replace) = (time_text(authority.not_after), if active.external { "add FILE" } else { "rotate" });
        format!(
            "the authority that signs this cluster's certificates ends at {end}, and no certificate is valid after that: replace it with \
             \"trestle ca {replace}\""
        )
    })
}

/// A sentence for each kind of certificate of the cluster that ends soon, with what to do.
pub(crate) fn problems(state: &ClusterState, now: SystemTime, named: bool) -> Vec<String> {
    authority_problem(state, now).into_iter().chain(user_problem(state, now, named)).collect()
}

/// When the certificates of each kind end, of users the one that does first, in seconds since the beginning of 1970.
pub(crate) fn ends(state: &ClusterState, own: Option<&CertificateFacts>) -> Vec<(&'static str, u64)> {
    let seconds = |facts: &CertificateFacts| {
        facts.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    };
    let authority = state.active_authority().and_then(|one| CertificateFacts::read(&one.certificate).ok());
    let user = state.users.values().filter_map(|user| last_key(user)).map(|key| key.not_after).min();
    let kinds = [
        ("member", own.map(seconds)),
        ("authority", authority.as_ref().map(seconds)),
        ("user", user.filter(|end| *end != 0)),
    ];
    kinds.into_iter().filter_map(|(kind, end)| Some((kind, end?))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use trestle_identity::{CertificateAuthority, PrivateKey};
    use trestle_model::{Authority, AuthorityState, ClusterId, KeyPin, UserName, UserSpec};

    use super::*;

    const DAY: u64 = 24 * 3600;
    const NOW: u64 = 1_800_000_000;

    fn now() -> SystemTime {
        moment(NOW).unwrap()
    }

    fn state(users: &[(&str, Role, u64, u64)]) -> ClusterState {
        let user = |(name, role, not_before, not_after): &(&str, Role, u64, u64)| {
            let name = UserName::parse(name).unwrap();
            let (not_before, not_after) = (*not_before, *not_after);
            let keys = vec![UserKey { pin: KeyPin([1; 32]), not_after, not_before, authority: 1 }];
            let spec = UserSpec { name: name.clone(), role: *role, keys };
            (name, Arc::new(User { spec, revision: 1 }))
        };
        ClusterState { users: users.iter().map(user).collect(), ..ClusterState::default() }
    }

    #[test]
    fn users_are_told_of_thirty_days_before_admins_first_and_summed_up() {
        let year = |left: u64| (NOW + left - 365 * DAY, NOW + left);
        let (soon, later) = (year(29 * DAY), year(31 * DAY));
        let quiet = state(&[("a", Role::Viewer, later.0, later.1), ("old", Role::Admin, 1, NOW - 31 * DAY)]);
        assert_eq!(problems(&quiet, now(), true), Vec::<String>::new());
        // A certificate of an hour is told of when it was not renewed, and not from the beginning.
        assert!(problems(&state(&[("h", Role::Viewer, NOW - 60, NOW + 3600)]), now(), true).is_empty());
        assert_eq!(problems(&state(&[("h", Role::Viewer, NOW - 3600, NOW + 60)]), now(), true).len(), 1);
        let mut all: Vec<_> = [("v1"), ("v2"), ("v3"), ("v4"), ("v5")]
            .iter()
            .map(|name| (*name, Role::Viewer, soon.0, soon.1))
            .collect();
        all.push(("zoe", Role::Admin, soon.0, soon.1));
        all.push(("gone", Role::Operator, 1, NOW - DAY));
        let told = problems(&state(&all), now(), true);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with(
                "the certificates of 7 users end within 30 days or have ended: zoe (admin) at 2027-02-13T08:00:00Z, gone (operator) at \
                 2027-01-14T08:00:00Z, v1 (viewer)"
            ) && told[0].contains(", and 2 more; "),
            "{told:?}"
        );
        let unnamed = problems(&state(&all), now(), false);
        assert!(unnamed[0].contains("7 users") && unnamed[0].contains("1 of them admins"), "{unnamed:?}");
        assert!(!unnamed[0].contains("zoe"), "{unnamed:?}");
        assert_eq!(ends(&state(&all), None), [("user", NOW - DAY)]);
    }

    #[test]
    fn an_authority_is_told_of_a_year_before() {
        let cluster = ClusterId::parse(&"0a".repeat(16)).unwrap();
        let made = CertificateAuthority::make(PrivateKey::generate().unwrap(), &cluster, 1, now()).unwrap();
        let authority = Authority {
            generation: 1,
            certificate: made.certificate().into(),
            state: AuthorityState::Active,
            external: false,
            key_holders: Vec::new(),
            cross: None,
        };
        let state = ClusterState { authorities: [(1, authority.into())].into(), ..ClusterState::default() };
        let year = Duration::from_secs(365 * DAY);
        assert!(problems(&state, now() + 9 * year, true).is_empty());
        let told = problems(&state, now() + 9 * year + Duration::from_secs(1), true);
        assert!(told[0].contains("trestle ca rotate"), "{told:?}");
        assert_eq!(ends(&state, None), [("authority", NOW + 3650 * DAY)]);
    }
}
