//! Users.

use std::time::{Duration, SystemTime};

use prost::Message;
use trestle_model::defaults::{USER_CERTIFICATE_LIFE, USER_CERTIFICATE_LIFE_BOUNDS};
use trestle_model::{
    Choice, Command, Expected, Invalid, Role, User, UserKey, UserName, UserSpec, Violations,
};

use super::write::Asked;
use super::{Write, parse_user_name, user_name};
use crate::v1;

/// A certificate that is wanted for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCertificate {
    /// Whose it is to be.
    pub name: UserName,
    /// How long it is to be valid.
    pub lifetime: Duration,
}

/// How long a certificate is to be valid.
fn lifetime(given: Option<&prost_types::Duration>, v: &mut Violations) -> Option<Duration> {
    let Some(given) = given else { return Some(USER_CERTIFICATE_LIFE) };
    let bounds = USER_CERTIFICATE_LIFE_BOUNDS;
    let life = Duration::try_from(*given).ok().filter(|life| bounds.contains(life));
    if life.is_none() {
        let [least, most] = [bounds.start(), bounds.end()].map(Duration::as_secs);
        v.add("lifetime", format_args!("{}s", given.seconds), format!("must be {least}s to {most}s"));
    }
    life
}

fn role(number: i32, v: &mut Violations) -> Option<Role> {
    let role = Role::of_number(number).filter(|_| number != 0);
    if role.is_none() {
        v.add(
            "user.role",
            number,
            "must be USER_ROLE_VIEWER (1), USER_ROLE_OPERATOR (2) or USER_ROLE_ADMIN (3)",
        );
    }
    role
}

/// Parses the creation of a user, but for the request for its certificate; answers its role too.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_user(request: &v1::CreateUserRequest) -> Result<(WantedCertificate, Role), Invalid> {
    let mut v = Violations::new();
    let name = v.take("user_id", &request.user_id, UserName::parse(&request.user_id));
    let role = role(request.user.as_ref().map_or(0, |user| user.role), &mut v);
    let wanted = wanted(name, request.lifetime.as_ref(), v)?;
    Ok((wanted, role.unwrap_or_default()))
}

/// Parses the rotation of a user's key, but for the request for its certificate.
///
/// # Errors
/// Every value that breaks a rule.
pub fn rotate_user(request: &v1::RotateUserRequest) -> Result<WantedCertificate, Invalid> {
    let mut v = Violations::new();
    let name = parse_user_name("name", &request.name, &mut v);
    wanted(name, request.lifetime.as_ref(), v)
}

/// What is wanted, or every mistake that was noted.
fn wanted(
    name: Option<UserName>,
    given: Option<&prost_types::Duration>,
    mut v: Violations,
) -> Result<WantedCertificate, Invalid> {
    let lifetime = lifetime(given, &mut v);
    v.into_result()?;
    // Parsers give nothing only together with a violation.
    let whole = name.zip(lifetime).map(|(name, lifetime)| WantedCertificate { name, lifetime });
    whole.ok_or_else(|| Invalid(vec![trestle_model::Violation::new("request", "", "must be complete")]))
}

/// The write that makes a user what it says, recognised by the request that it comes of.
///
/// # Errors
/// When the request's id breaks a rule.
pub fn put_user<R: Message + prost::Name>(
    request: &R,
    request_id: &str,
    user: UserSpec,
    expected: Expected,
) -> Result<Write, Invalid> {
    let asked = Asked { request, request_id, validate_only: false };
    asked.command(Some(Command::PutUser { user, expected }), Violations::new())
}

/// Parses the deletion of a user.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_user(request: &v1::DeleteUserRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_user_name("name", &request.name, &mut v);
    let asked = Asked { request, request_id: &request.request_id, validate_only: false };
    asked.command(name.map(|name| Command::DeleteUser { name, expected: None }), v)
}

/// Renders a user.
pub fn user(user: &User) -> v1::User {
    let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Into::into);
    let key = |key: &UserKey| v1::UserKey {
        pin: key.pin.to_string(),
        expire_time: time(key.not_after),
        begin_time: Some(key.not_before).filter(|begin| *begin != 0).and_then(time),
        authority: key.authority,
    };
    v1::User {
        name: user_name(&user.spec.name),
        role: user.spec.role.number(),
        keys: user.spec.keys.iter().map(key).collect(),
        revision: user.revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_of_a_creation_are_told_together() {
        let request = v1::CreateUserRequest {
            user_id: "a/b".into(),
            user: Some(v1::User { role: 7, ..Default::default() }),
            lifetime: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            ..Default::default()
        };
        let found = create_user(&request).map_err(|found| found.to_string());
        let told = found.err().unwrap_or_default();
        for part in ["user_id", "user.role", "lifetime", "must be 60s to 315360000s"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(create_user(&v1::CreateUserRequest { user_id: "a".into(), ..Default::default() }).is_err());
    }
}
