//! Who calls, by what way, and what the caller may do.
//!
//! Every call to the gRPC ports passes [`intercept`] before its service sees it: the method is looked up in the one table of
//! methods ([`rules`]), the [`Caller`] is made of where the connection comes from, and [`authorize`] decides. What a call
//! turns out to read or write is authorised once more by name where the state is read and proposals are made.

mod caller;
mod rules;

pub(crate) use caller::{Caller, Via};
pub(crate) use rules::{Action, Target, TargetKind, targets};

use hyper::Request;
use tonic::Status;
use trestle_model::Role;

use crate::accept::{CallingUser, ConnectionOrigin};

/// Whether a caller may do something to a resource.
///
/// Who has shown a certificate may what its role says. Others have no identity: who reaches a port without TLS rules what it serves,
/// and the configuration keeps ports on loopback unless it says `insecure`.
///
/// # Errors
/// `PERMISSION_DENIED`, with who the caller is and the role that it lacks.
pub(crate) fn authorize(caller: &Caller, action: Action, target: &Target) -> Result<(), Status> {
    let Some(user) = &caller.user else { return Ok(()) };
    let least = least(action, target.kind);
    if user.role >= least {
        return Ok(());
    }
    let CallingUser { name, role } = user;
    Err(Status::permission_denied(format!(
        "user \"{name}\" is {role}, and this takes the role {least}: ask somebody who has it"
    )))
}

/// The least role that may do something to a kind of resource.
fn least(action: Action, kind: TargetKind) -> Role {
    match (action, kind) {
        (_, TargetKind::User) => Role::Admin,
        (Action::Read | Action::Probe, _) => Role::Viewer,
        (
            Action::Create | Action::Update | Action::Delete,
            TargetKind::Pool | TargetKind::Backend | TargetKind::Listener | TargetKind::Cluster,
        )
        | (Action::Update, TargetKind::Vip)
        | (Action::Drain | Action::Move | Action::Close, _) => Role::Operator,
        _ => Role::Admin,
    }
}

/// The port on which a call arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Where operators and automation call.
    Admin,
    /// Where members call one another.
    Peer,
}

/// Makes the caller of a request and leaves it with the request, if it may call the method at all.
///
/// # Errors
/// `UNIMPLEMENTED` for a method without a rule, which no service of the ports has; what [`authorize`] refuses.
pub(crate) fn intercept<B>(
    entrance: Entrance,
    origin: ConnectionOrigin,
    user: Option<CallingUser>,
    request: &mut Request<B>,
) -> Result<(), Status> {
    let path = request.uri().path();
    let Some((action, kind)) = rules::rule(path) else {
        return Err(Status::unimplemented(format!("there is no method {path}")));
    };
    let caller = Caller { via: Via::new(entrance, origin), user };
    authorize(&caller, action, &Target::all(kind))?;
    request.extensions_mut().insert(caller);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message;

    use super::*;

    /// Every method of every service that is described, as "/package.Service/Method".
    fn methods() -> Vec<String> {
        let files = prost_types::FileDescriptorSet::decode(trestle_api::ALL_DESCRIPTORS).unwrap();
        let mut methods = Vec::new();
        for file in &files.file {
            for service in &file.service {
                let of = |method: &prost_types::MethodDescriptorProto| {
                    format!("/{}.{}/{}", file.package(), service.name(), method.name())
                };
                methods.extend(service.method.iter().map(of));
            }
        }
        methods
    }

    #[test]
    fn every_method_has_a_rule() {
        let methods = methods();
        assert!(methods.len() > 60, "{methods:?}");
        let missing: Vec<_> = methods.iter().filter(|path| rules::rule(path).is_none()).collect();
        assert!(missing.is_empty(), "without a rule in access/rules.rs: {missing:?}");
    }

    #[test]
    fn what_reads_is_told_from_what_writes_by_its_name() {
        for path in methods().iter().filter(|path| path.starts_with("/trestle.v1.")) {
            let (action, _) = rules::rule(path).unwrap();
            let name = path.rsplit('/').next().unwrap_or_default();
            let reads = ["Get", "List", "Watch", "Wait", "Backup"].iter().any(|verb| name.starts_with(verb));
            assert_eq!(action == Action::Read, reads, "{path}");
            for (verb, wanted) in
                [("Create", Action::Create), ("Update", Action::Update), ("Delete", Action::Delete)]
            {
                assert!(!name.starts_with(verb) || action == wanted, "{path}: {action:?}");
            }
        }
    }

    #[test]
    fn a_method_without_a_rule_is_refused_and_the_others_get_their_caller() {
        let origin = ConnectionOrigin::Tcp("192.0.2.1:5000".parse().unwrap());
        let mut request = Request::builder().uri("/trestle.v1.PoolService/ListPools").body(()).unwrap();
        intercept(Entrance::Admin, origin, None, &mut request).unwrap();
        let caller = request.extensions().get::<Caller>().unwrap();
        assert_eq!(caller.client(), Some("192.0.2.1".parse().unwrap()));
        let mut request = Request::builder().uri("/trestle.v1.PoolService/DropPools").body(()).unwrap();
        let refused = intercept(Entrance::Admin, origin, None, &mut request).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
        assert!(request.extensions().get::<Caller>().is_none());
    }
}
