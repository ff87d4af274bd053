//! The one table of methods: what each does, and to what kind of resource.

use std::fmt;

use trestle_model::{Command, Expected, Operation, ResourceName, Role};

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Looks, waits or watches, and changes nothing.
    Read,
    /// Makes a new resource, or takes a member in.
    Create,
    /// Changes a resource's settings, or makes a member a voter.
    Update,
    /// Deletes a resource, or removes a member.
    Delete,
    /// Drains a member, or ends its drain.
    Drain,
    /// Moves leadership, and with it the virtual IPs.
    Move,
    /// Closes connections of clients.
    Close,
    /// Replaces the whole configuration, or gives a key back.
    Restore,
    /// Takes a key away, to be kept elsewhere.
    Export,
    /// Has a new certificate signed for the key that the caller has shown.
    Renew,
    /// Founds a cluster.
    Found,
    /// Has a member's key recorded.
    Enroll,
    /// Changes what ports accept.
    Secure,
    /// Asks whether the port works, or what it serves.
    Probe,
    /// Asks who a member is, or to be let into a cluster: what processes call that have no part in one yet, and prove otherwise what
    /// they may.
    Join,
    /// Takes a process into a cluster because it is reached at an address.
    Adopt,
    /// Asks after a member or for a vote: what one that was removed does, too, to be told so.
    Ask,
    /// Replicates, as a member may whose record is not known here yet.
    Replicate,
    /// What members do to one another besides: propose and report.
    Peer,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "change",
            Self::Delete => "delete",
            Self::Drain => "drain or enable",
            Self::Move => "move",
            Self::Close => "close",
            Self::Restore => "restore",
            Self::Export => "export the key of",
            Self::Renew => "renew the certificate of",
            Self::Found => "found",
            Self::Enroll => "enroll",
            Self::Secure => "secure",
            Self::Probe => "probe",
            Self::Join => "join",
            Self::Adopt => "take in",
            Self::Ask => "ask",
            Self::Replicate => "replicate to",
            Self::Peer => "call",
        })
    }
}

/// A kind of what calls are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Pool,
    Backend,
    Listener,
    Vip,
    Member,
    Connection,
    Event,
    User,
    Token,
    Authority,
    /// The cluster as a whole.
    Cluster,
    /// The port itself.
    Port,
}

impl TargetKind {
    /// All of the kind, in words.
    const fn all(self) -> &'static str {
        match self {
            Self::Pool => "pools",
            Self::Backend => "backends",
            Self::Listener => "listeners",
            Self::Vip => "virtual IPs",
            Self::Member => "members",
            Self::Connection => "connections",
            Self::Event => "events",
            Self::User => "users",
            Self::Token => "tokens",
            Self::Authority => "authorities",
            Self::Cluster => "the cluster",
            Self::Port => "the port",
        }
    }
}

/// What a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    /// Its resource name, as "pools/web"; empty for all of the kind, and for what has no name.
    pub(crate) name: String,
}

impl Target {
    /// All of a kind.
    pub(crate) fn all(kind: TargetKind) -> Self {
        Self { kind, name: String::new() }
    }

    /// The one of this resource name.
    pub(crate) fn named(kind: TargetKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => f.write_str(self.kind.all()),
            name => f.write_str(name),
        }
    }
}

/// Who may do something at the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Least {
    /// Callers with this role, or a higher one.
    Role(Role),
    /// Whoever reaches the port of the peers.
    Anybody,
    /// Whoever reaches it, where it lets callers in without TLS.
    Unproven,
    /// Members, known here or not yet or no more.
    Former,
    /// Members, known here or not yet.
    Replica,
    /// Members.
    Member,
}

impl Least {
    /// Whether it is served at the port of the peers, and there alone.
    pub(super) const fn is_peers(self) -> bool {
        !matches!(self, Self::Role(_))
    }
}

/// Who may do this to that kind of resource at the least.
pub(super) const fn least(action: Action, kind: TargetKind) -> Least {
    match (action, kind) {
        // Which user, `authorize` decides.
        (Action::Renew, _) => Least::Role(Role::Viewer),
        (_, TargetKind::User | TargetKind::Token) => Least::Role(Role::Admin),
        (Action::Read | Action::Probe, _) => Least::Role(Role::Viewer),
        (
            Action::Create | Action::Update | Action::Delete,
            TargetKind::Pool | TargetKind::Backend | TargetKind::Listener,
        )
        | (Action::Drain | Action::Move | Action::Close, _)
        // A batch: each of its operations is decided for itself.
        | (Action::Update, TargetKind::Cluster) => Least::Role(Role::Operator),
        (
            Action::Create | Action::Update | Action::Delete,
            TargetKind::Vip
            | TargetKind::Member
            | TargetKind::Connection
            | TargetKind::Event
            | TargetKind::Authority
            | TargetKind::Cluster
            | TargetKind::Port,
        )
        | (Action::Export | Action::Restore | Action::Found | Action::Enroll | Action::Secure, _) => Least::Role(Role::Admin),
        (Action::Join, _) => Least::Anybody,
        (Action::Adopt, _) => Least::Unproven,
        (Action::Ask, _) => Least::Former,
        (Action::Replicate, _) => Least::Replica,
        (Action::Peer, _) => Least::Member,
    }
}

/// What a method does, by its path "/package.Service/Method"; `None` for one that there is no rule for.
pub(super) fn rule(path: &str) -> Option<(Action, TargetKind)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    match service {
        "trestle.v1.PoolService" => pools(method),
        "trestle.v1.ListenerService" => listeners(method),
        "trestle.v1.VipService" => vips(method),
        "trestle.v1.MemberService" => members(method),
        "trestle.v1.ClusterService" => cluster(method),
        "trestle.v1.ConnectionService" => connections(method),
        "trestle.v1.UserService" => users(method),
        "trestle.v1.TokenService" => tokens(method),
        "trestle.v1.AuthorityService" => authorities(method),
        "trestle.v1.EventService" => match method {
            "ListEvents" | "WatchEvents" => Some((Action::Read, TargetKind::Event)),
            _ => None,
        },
        "trestle.peer.v1.RaftService" => match method {
            "Vote" | "PreVote" | "CheckMember" => Some((Action::Ask, TargetKind::Cluster)),
            "AppendEntries" | "AppendStream" | "TransferLeader" | "CheckDisk" | "InstallSnapshot"
            | "ConfirmTransfer" => Some((Action::Replicate, TargetKind::Cluster)),
            _ => None,
        },
        "trestle.peer.v1.PeerService" => peers(method),
        "grpc.health.v1.Health" | "grpc.reflection.v1.ServerReflection" => {
            Some((Action::Probe, TargetKind::Port))
        }
        _ => None,
    }
}

fn pools(method: &str) -> Option<(Action, TargetKind)> {
    Some(match method {
        "CreatePool" => (Action::Create, TargetKind::Pool),
        "GetPool" | "ListPools" | "GetPoolHealth" => (Action::Read, TargetKind::Pool),
        "UpdatePool" => (Action::Update, TargetKind::Pool),
        "DeletePool" => (Action::Delete, TargetKind::Pool),
        "CreateBackend" => (Action::Create, TargetKind::Backend),
        "GetBackend" | "ListBackends" => (Action::Read, TargetKind::Backend),
        "UpdateBackend" => (Action::Update, TargetKind::Backend),
        "DeleteBackend" => (Action::Delete, TargetKind::Backend),
        _ => return None,
    })
}

fn listeners(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "CreateListener" => Action::Create,
        "GetListener" | "ListListeners" | "GetListenerHealth" => Action::Read,
        "UpdateListener" => Action::Update,
        "DeleteListener" => Action::Delete,
        _ => return None,
    };
    Some((action, TargetKind::Listener))
}

fn vips(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "CreateVip" => Action::Create,
        "GetVip" | "ListVips" | "GetVipStatus" | "ListVipEvents" => Action::Read,
        "UpdateVip" => Action::Update,
        "DeleteVip" => Action::Delete,
        "MoveVips" => Action::Move,
        _ => return None,
    };
    Some((action, TargetKind::Vip))
}

fn members(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "GetMember" | "ListMembers" => Action::Read,
        "AddMember" => Action::Create,
        "PromoteMember" | "UpdateMember" => Action::Update,
        "RemoveMember" => Action::Delete,
        "DrainMember" | "EnableMember" => Action::Drain,
        "EnrollMember" | "RequestMemberCertificate" | "InstallMemberCertificate" => Action::Enroll,
        _ => return None,
    };
    Some((action, TargetKind::Member))
}

fn cluster(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "GetClusterStatus" | "WatchCluster" | "WaitForRevision" | "BackupConfiguration" => Action::Read,
        "BootstrapCluster" => Action::Found,
        "SecureCluster" => Action::Secure,
        "TransferLeadership" => Action::Move,
        "RestoreConfiguration" => Action::Restore,
        // What it may do is decided for each of its operations.
        "ApplyBatch" => Action::Update,
        _ => return None,
    };
    Some((action, TargetKind::Cluster))
}

fn users(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "ListUsers" => Action::Read,
        "CreateUser" => Action::Create,
        "RotateUser" => Action::Update,
        "RenewUserCertificate" => Action::Renew,
        "DeleteUser" => Action::Delete,
        _ => return None,
    };
    Some((action, TargetKind::User))
}

fn tokens(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "ListTokens" => Action::Read,
        "CreateToken" => Action::Create,
        "DeleteToken" => Action::Delete,
        _ => return None,
    };
    Some((action, TargetKind::Token))
}

fn authorities(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "ListAuthorities" => Action::Read,
        "RotateAuthority" | "AddAuthority" => Action::Create,
        "RetireAuthority" => Action::Delete,
        "ExportAuthorityKey" => Action::Export,
        "ImportAuthorityKey" => Action::Restore,
        _ => return None,
    };
    Some((action, TargetKind::Authority))
}

fn connections(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        "ListConnections" => Action::Read,
        "CloseConnections" | "CloseConnectionsGradually" => Action::Close,
        _ => return None,
    };
    Some((action, TargetKind::Connection))
}

fn peers(method: &str) -> Option<(Action, TargetKind)> {
    let action = match method {
        // What they answer to whom is decided there.
        "Describe" | "DescribeFounding" | "IssueCertificate" | "Join" => Action::Join,
        "Adopt" | "RequestJoin" => Action::Adopt,
        "NotifyRemoved" => Action::Replicate,
        "Forward" | "Propose" | "ReadIndex" | "RegisterStart" | "Report" | "AwaitRevision"
        | "ListConnections" | "CloseConnections" | "AwaitEvents" | "TakeAuthorityKey"
        | "FetchAuthorityKey" => Action::Peer,
        _ => return None,
    };
    Some((action, TargetKind::Cluster))
}

/// What an operation of a batch does, and to what.
fn operation(operation: &Operation) -> (Action, Target) {
    let action = match operation {
        Operation::Put { expected: Expected::Absent, .. } => Action::Create,
        Operation::Put { .. } => Action::Update,
        Operation::Delete { .. } => Action::Delete,
    };
    let name = operation.resource().shown_as();
    let kind = match &name {
        ResourceName::Vip(_) => TargetKind::Vip,
        ResourceName::Pool(_) => TargetKind::Pool,
        ResourceName::Backend(..) | ResourceName::AdminState(..) => TargetKind::Backend,
        ResourceName::Listener(_) => TargetKind::Listener,
    };
    (action, Target::named(kind, name.to_string()))
}

/// What a command of a client's does, and to what.
pub(super) fn targets(command: &Command) -> Vec<(Action, Target)> {
    let one = |action, kind, name: String| vec![(action, Target::named(kind, name))];
    match command {
        Command::Batch(operations) => operations.iter().map(operation).collect(),
        Command::DrainMember { name, .. } => {
            one(Action::Drain, TargetKind::Member, trestle_api::convert::member_name(name))
        }
        Command::Restore { .. } | Command::StagePiece { .. } | Command::ApplyStaged { .. } => {
            vec![(Action::Restore, Target::all(TargetKind::Cluster))]
        }
        Command::PutUser { user, expected } => {
            let action = if *expected == Expected::Absent { Action::Create } else { Action::Update };
            one(action, TargetKind::User, trestle_api::convert::user_name(&user.name))
        }
        Command::NoteUserCertificate { user, .. } => {
            one(Action::Renew, TargetKind::User, trestle_api::convert::user_name(user))
        }
        Command::DeleteUser { name, .. } => {
            one(Action::Delete, TargetKind::User, trestle_api::convert::user_name(name))
        }
        Command::PinMemberKey { id, .. } => one(Action::Enroll, TargetKind::Member, id.to_string()),
        Command::SetTransport(_) => vec![(Action::Secure, Target::all(TargetKind::Cluster))],
        Command::PutToken { token, .. } => {
            one(Action::Create, TargetKind::Token, trestle_api::convert::token_name(token.id))
        }
        Command::DeleteToken(id) => {
            one(Action::Delete, TargetKind::Token, trestle_api::convert::token_name(*id))
        }
        Command::FoundCluster { .. } => vec![(Action::Found, Target::all(TargetKind::Cluster))],
        // What a leader notes itself: no client's write.
        Command::AddMember(_)
        | Command::RaiseLevel { .. }
        | Command::RemoveMember(_)
        | Command::UpdateMember { .. }
        | Command::NoteStart { .. }
        | Command::JoinMember { .. }
        | Command::NoteKeyHolder { .. }
        | Command::AddAuthority { .. }
        | Command::ActivateAuthority(_)
        | Command::RetireAuthority(_)
        | Command::NoteTime { .. }
        | Command::Recover { .. }
        | Command::TakeVips { .. }
        | Command::ReleaseVips { .. } => vec![(Action::Peer, Target::all(TargetKind::Cluster))],
    }
}
