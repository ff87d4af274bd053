//! Which users of this machine have which role, over the UNIX socket of the admin API.

use std::path::Path;

use trestle_model::{Actor, Role};

use super::Subject;
use crate::accept::UnixCredentials;
use crate::config::{LocalAccount, SocketRole};

/// The number that the kernel shows for users and groups that another user namespace has and this one has not
/// (user_namespaces(7)).
const OVERFLOW_ID: u32 = 65_534;

/// Who has which role.
#[derive(Debug)]
pub(crate) struct LocalUsers {
    /// The user that this process runs as.
    own_uid: u32,
    overflow_uid: u32,
    overflow_gid: u32,
    roles: Vec<SocketRole>,
}

/// The number in a file of the kernel's.
fn kernel_number(path: &str) -> u32 {
    let text = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    text.trim().parse().unwrap_or(OVERFLOW_ID)
}

impl LocalUsers {
    /// Of this process, with what its file says.
    pub(crate) fn new(roles: &[SocketRole]) -> Self {
        Self {
            own_uid: rustix::process::geteuid().as_raw(),
            overflow_uid: kernel_number("/proc/sys/kernel/overflowuid"),
            overflow_gid: kernel_number("/proc/sys/kernel/overflowgid"),
            roles: roles.to_vec(),
        }
    }

    /// Who is at the other end of a connection. Of several roles the highest counts.
    pub(super) fn subject(&self, process: Option<&UnixCredentials>) -> Subject {
        let Some(process) = process else {
            return Subject::Stranger(
                "the kernel does not say which user this is: use another endpoint".to_owned(),
            );
        };
        let uid = process.uid;
        if uid == self.overflow_uid {
            return Subject::Stranger(format!(
                "uid {uid} stands for every user of another user namespace, so this may be anybody: call from the user \
                 namespace that trestled runs in"
            ));
        }
        if uid == 0 || uid == self.own_uid {
            return Subject::Known(Actor::LocalRoot);
        }
        let is_in =
            |gid: u32| gid != self.overflow_gid && (gid == process.gid || process.groups.contains(&gid));
        let given = self.roles.iter().filter(|given| match given.account {
            LocalAccount::User(user) => user == uid,
            LocalAccount::Group(group) => is_in(group),
        });
        match given.map(|given| given.role).max() {
            Some(role) => Subject::Known(Actor::LocalUser { uid, role }),
            None => Subject::Stranger(self.without_role(uid)),
        }
    }

    fn without_role(&self, uid: u32) -> String {
        let own = match self.own_uid {
            0 => String::new(),
            own => format!(" or as the user that trestled runs as (uid {own})"),
        };
        format!(
            "uid {uid} has no role on this member: call as root{own}, or give it one by socket_roles in the member's file, as \
             in [\"uid:{uid}={}\"], and start the member again",
            Role::Operator
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    fn users(own_uid: u32) -> LocalUsers {
        let role = |account, role| SocketRole { account, role };
        LocalUsers {
            own_uid,
            overflow_uid: OVERFLOW_ID,
            overflow_gid: OVERFLOW_ID,
            roles: vec![
                role(LocalAccount::User(1000), Role::Viewer),
                role(LocalAccount::Group(2000), Role::Operator),
                role(LocalAccount::Group(OVERFLOW_ID), Role::Admin),
                role(LocalAccount::User(OVERFLOW_ID), Role::Admin),
            ],
        }
    }

    fn process(uid: u32, gid: u32, groups: &[u32]) -> UnixCredentials {
        UnixCredentials { uid, gid, groups: groups.into() }
    }

    fn role(users: &LocalUsers, process: &UnixCredentials) -> Option<Role> {
        match users.subject(Some(process)) {
            Subject::Known(Actor::LocalUser { uid, role }) if uid == process.uid => Some(role),
            Subject::Stranger(_) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn root_and_the_daemons_own_user_are_local_root() {
        for (own, uid) in [(0, 0), (600, 0), (600, 600)] {
            let subject = users(own).subject(Some(&process(uid, 5, &[])));
            assert_eq!(subject, Subject::Known(Actor::LocalRoot), "{own} {uid}");
        }
    }

    #[test]
    fn of_several_roles_the_highest_counts_and_all_groups_do() {
        let users = users(600);
        assert_eq!(role(&users, &process(1000, 5, &[])), Some(Role::Viewer));
        assert_eq!(role(&users, &process(1000, 5, &[7, 2000])), Some(Role::Operator));
        assert_eq!(role(&users, &process(1001, 2000, &[])), Some(Role::Operator));
        assert_eq!(role(&users, &process(1001, 5, &[6, 7])), None);
        // A group is no user, nor the other way round.
        assert_eq!(role(&users, &process(2000, 1000, &[1000])), None);
    }

    #[test]
    fn what_another_namespace_may_hide_behind_is_nobody() {
        for own in [600, OVERFLOW_ID] {
            let users = users(own);
            assert_eq!(role(&users, &process(OVERFLOW_ID, 5, &[2000])), None, "{own}");
            assert_eq!(role(&users, &process(1001, OVERFLOW_ID, &[OVERFLOW_ID])), None, "{own}");
        }
        assert!(matches!(users(600).subject(None), Subject::Stranger(_)));
    }

    #[test]
    fn a_stranger_is_told_who_it_is_and_what_to_do() {
        let Subject::Stranger(said) = users(600).subject(Some(&process(1001, 5, &[]))) else { panic!() };
        for part in ["uid 1001", "as root", "uid 600", "socket_roles", "uid:1001=operator"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
