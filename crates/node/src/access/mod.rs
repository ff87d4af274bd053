//! Who calls, by what way, and what the caller may do.
//!
//! Every call to the gRPC ports passes [`AccessControl`] before its service sees it: the method is looked up in the one table of
//! methods ([`rules`]), the [`Caller`] is made of where the connection comes from, and [`authorize`] decides. What a call
//! turns out to read or write is authorised once more by name where the state is read and proposals are made, and again by
//! the leader where another member passes it on.

mod caller;
mod guarded;
mod local_users;
mod rules;
#[cfg(test)]
mod tests;

pub(crate) use caller::{Caller, Subject, Via};
pub(crate) use local_users::LocalUsers;
pub(crate) use rules::{Action, Target, TargetKind};

use std::sync::Arc;
use std::time::Instant;

use hyper::Request;
use hyper::body::Incoming;
use tonic::{Code, Status};
use tracing::warn;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::status::{self, Failure};
use trestle_model::{Actor, ClusterState, Command, Role};

use self::rules::Least;
use crate::accept::{CallingUser, Client, ClientSource, ConnectionOrigin, Guard, Proof, RefusalLog};

/// Whether a caller may do something to a resource.
///
/// # Errors
/// `PERMISSION_DENIED`, with who the caller is, what it lacks, and what to do.
pub(crate) fn authorize(caller: &Caller, action: Action, target: &Target) -> Result<(), Status> {
    let denied = |why: String| Err(status::failure(&Failure::Denied(why)));
    if let Subject::Stranger(why) = &caller.subject {
        return denied(why.clone());
    }
    if action == Action::Renew && !target.name.is_empty() && caller.user_name().as_ref() != Some(&target.name)
    {
        return denied(format!(
            "{caller} may not {action} {target}: only that user itself may; \"trestle user rotate\" gives it a new key and certificate"
        ));
    }
    let least = rules::least(action, target.kind);
    match (least, caller.peer()) {
        (Least::Anybody, Some(_)) | (_, Some(PeerCaller::Unproven)) if least.is_peers() => return Ok(()),
        (Least::Former, Some(PeerCaller::Former(_) | PeerCaller::Newer(_) | PeerCaller::Member(_)))
        | (Least::Replica, Some(PeerCaller::Newer(_) | PeerCaller::Member(_)))
        | (Least::Member, Some(PeerCaller::Member(_))) => return Ok(()),
        (Least::Member, Some(PeerCaller::Newer(id))) => {
            return denied(format!("this member does not know member {id} yet; it may only send its log"));
        }
        (Least::Replica | Least::Member, Some(PeerCaller::Former(id))) => {
            return denied(format!("member {id} was removed from this cluster"));
        }
        (Least::Unproven, Some(_)) => {
            return denied(
                "in a cluster that requires TLS nobody is taken in by an address: join it by a token"
                    .to_owned(),
            );
        }
        _ => {}
    }
    match least {
        Least::Anybody | Least::Unproven | Least::Former | Least::Replica | Least::Member => {
            denied(format!("only members {action} one another, and {caller} is none"))
        }
        Least::Role(least) if caller.subject.role() >= Some(least) => Ok(()),
        Least::Role(least) => denied(format!(
            "{caller} may not {action} {target}: that takes the role {least}; ask somebody who has it"
        )),
    }
}

/// Whether a caller may make a change, for a state.
///
/// # Errors
/// As [`authorize`], for each part of it; and for settings of checks that only an admin changes.
pub(crate) fn authorize_command(
    caller: &Caller,
    command: &Command,
    state: &ClusterState,
) -> Result<(), Status> {
    for (action, target) in rules::targets(command) {
        authorize(caller, action, &target)?;
    }
    if caller.subject.role() >= Some(Role::Admin) {
        return Ok(());
    }
    for document in command.documents() {
        let fields = guarded::changed(document, state);
        if !fields.is_empty() {
            return Err(status::failure(&Failure::Denied(format!(
                "{caller} may not change {} of {}: what checks send as free text and which files they read takes the role {}; \
                 the other settings may be changed without them",
                fields.join(", "),
                document.resource(),
                Role::Admin
            ))));
        }
    }
    Ok(())
}

/// The port on which a call arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Where operators and automation call, over TCP or over the UNIX socket.
    Admin,
    /// Where members call one another.
    Peer,
}

/// What stands before the services of a member's gRPC ports.
pub(crate) struct AccessControl {
    users: LocalUsers,
    refusals: RefusalLog,
}

impl AccessControl {
    pub(crate) fn new(users: LocalUsers) -> Self {
        Self { users, refusals: RefusalLog::default() }
    }

    /// What stands before the services of one port.
    pub(crate) fn at(self: &Arc<Self>, entrance: Entrance) -> Arc<dyn Guard> {
        Arc::new(GuardedEntrance { access: self.clone(), entrance })
    }

    fn caller(&self, entrance: Entrance, client: &Client<'_>) -> Caller {
        let subject = match (entrance, &client.proof, client.origin) {
            (Entrance::Peer, Proof::Peer(peer), _) => Subject::Peer(*peer),
            (Entrance::Peer, ..) => Subject::Peer(PeerCaller::Unproven),
            (Entrance::Admin, Proof::User(CallingUser { name, role }), _) => {
                Subject::Known(Actor::User { name: name.clone(), role: *role })
            }
            (Entrance::Admin, _, ConnectionOrigin::Tcp(_)) => Subject::Unproven,
            (Entrance::Admin, _, ConnectionOrigin::Unix(process)) => self.users.subject(process.as_ref()),
        };
        Caller { via: Via::new(entrance, client.origin), subject }
    }

    /// Makes the caller of a request and leaves it with the request, if it may call the method at all.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for a method that the port does not have; what [`authorize`] refuses.
    fn intercept<B>(
        &self,
        entrance: Entrance,
        client: &Client<'_>,
        request: &mut Request<B>,
    ) -> Result<(), Status> {
        let path = request.uri().path();
        let rule = rules::rule(path).filter(|(action, kind)| {
            // What members do to one another is not served to anybody else, whoever it is, nor anything else to them.
            (entrance == Entrance::Peer) == rules::least(*action, *kind).is_peers()
        });
        let Some((action, kind)) = rule else {
            return Err(Status::unimplemented(format!("there is no method {path}")));
        };
        let caller = self.caller(entrance, client);
        authorize(&caller, action, &Target::all(kind))?;
        if let Some(peer) = caller.peer() {
            request.extensions_mut().insert(peer);
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }
}

/// One of a member's gRPC ports, as its accept loop sees it.
struct GuardedEntrance {
    access: Arc<AccessControl>,
    entrance: Entrance,
}

impl Guard for GuardedEntrance {
    fn admit(&self, client: &Client<'_>, request: &mut Request<Incoming>) -> Result<(), Status> {
        self.access.intercept(self.entrance, client, request)
    }

    /// A line for the first refusal of a source in a minute, with how many there were before without one: strangers cannot fill
    /// the log.
    fn note_refusal(&self, client: &Client<'_>, source: ClientSource, path: &str, status: &Status) {
        if !matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) {
            return;
        }
        if let Some(untold) = self.access.refusals.tells(source, "refused", Instant::now()) {
            let caller = self.access.caller(self.entrance, client);
            warn!(
                target: "trestle::audit",
                %source, %caller, method = path.trim_start_matches('/'), untold,
                "call refused: {}", status.message()
            );
        }
    }
}
