//! Events as messages.

use trestle_api::v1::cluster_event::Detail;
use trestle_api::{convert, peer, v1};
use trestle_consensus::RevisionChanges;
use trestle_dataplane as dataplane;
use trestle_model::{
    AdminState, Change, ChangeKind, Member, MemberId, MemberName, Resource, VipEvent, VipEventKind,
};

use super::{Event, Severity};

/// Changes of one revision that an event lists; the others are counted.
const CHANGES_MAX: usize = 20;
/// Those of them that its text names.
const WORDS_MAX: usize = 8;

fn severity(severity: Severity) -> peer::EventSeverity {
    match severity {
        Severity::Info => peer::EventSeverity::Info,
        Severity::Warning => peer::EventSeverity::Warning,
        Severity::Error => peer::EventSeverity::Error,
    }
}

/// An event of this member, without its number and time.
pub(super) fn of_event(event: &Event, me: &MemberName) -> peer::MemberEvent {
    use peer::member_event::Detail;
    let leader = |leader: String, term| Some(Detail::Leader(peer::LeaderEvent { leader, term }));
    let pool = |pool, down| Some(Detail::Pool(peer::PoolEvent { pool: convert::pool_name(pool), down }));
    let listener = |name, bound| {
        Some(Detail::Listener(peer::ListenerEvent { listener: convert::listener_name(name), bound }))
    };
    let detail = match event {
        Event::DataPlane(dataplane::Event::Verdict { pool, backend, verdict, reason }) => {
            Some(Detail::Verdict(peer::VerdictEvent {
                backend: convert::backend_name(pool, backend),
                verdict: crate::report_values::verdict(*verdict).into(),
                reason: reason.clone(),
            }))
        }
        Event::DataPlane(dataplane::Event::PoolDown { pool: name, .. }) => pool(name, true),
        Event::DataPlane(dataplane::Event::PoolUp { pool: name }) => pool(name, false),
        Event::DataPlane(dataplane::Event::ListenerUnbound { listener: name, .. }) => listener(name, false),
        Event::DataPlane(dataplane::Event::ListenerBound { listener: name }) => listener(name, true),
        Event::Leads { term, .. } => leader(convert::member_name(me), *term),
        Event::QuorumLost { .. } => leader(String::new(), 0),
        Event::QuorumBack { leader: name, term, .. } => leader(convert::member_name(name), *term),
        Event::MemberGone { member, .. } | Event::MemberBack { member, .. } | Event::Voter { member, .. } => {
            Some(Detail::Peer(member.to_string()))
        }
        Event::LevelRaised { .. }
        | Event::Kernel(_)
        | Event::Unserved { .. }
        | Event::Unfit { .. }
        | Event::Fit => None,
    };
    peer::MemberEvent {
        severity: severity(event.severity()).into(),
        kind: event.kind().to_owned(),
        text: event.to_string(),
        detail,
        ..Default::default()
    }
}

/// The id of what the replicated log says at an index.
fn of_log(index: u64) -> Option<v1::EventId> {
    Some(v1::EventId { member: String::new(), start: 0, number: index })
}

/// A line of the virtual IPs' history.
pub(super) fn of_vips(event: &VipEvent) -> v1::ClusterEvent {
    let line = convert::vip_event(event);
    let vips: Vec<String> = event.vips.iter().map(ToString::to_string).collect();
    let what = if vips.len() == 1 { "virtual IP" } else { "virtual IPs" };
    let (kind, verb) = match event.kind {
        VipEventKind::Taken => ("vip-taken", "taken"),
        VipEventKind::Released => ("vip-released", "released"),
    };
    v1::ClusterEvent {
        id: of_log(event.revision),
        time: line.time,
        severity: v1::EventSeverity::Info.into(),
        kind: kind.to_owned(),
        text: format!("{what} {} {verb} in term {}: {}", vips.join(", "), event.term, event.reason),
        member: line.member.clone(),
        detail: Some(Detail::Vip(line)),
    }
}

/// What a change of one member is, and the words for it.
fn of_member(change: &Change, member: &Member, drain: bool) -> (&'static str, String) {
    let (kind, name, spec) = (change.kind, &member.spec.name, &member.spec);
    let moved = match &change.before {
        Some(Resource::Member(before)) => Some(
            (&before.spec.peer_address, &before.spec.admin_address)
                != (&spec.peer_address, &spec.admin_address),
        ),
        _ => None,
    };
    match (kind, drain, member.draining) {
        (ChangeKind::Created, ..) => (
            "member-joined",
            format!("member {name} joined as number {}, at {}", member.id, spec.peer_address),
        ),
        (ChangeKind::Deleted, ..) => ("member-removed", format!("member {name} was removed")),
        (ChangeKind::Updated, true, true) => ("member-drained", format!("member {name} draining")),
        (ChangeKind::Updated, true, false) => ("member-enabled", format!("member {name} enabled")),
        (ChangeKind::Updated, false, _) if moved == Some(false) => {
            ("member-updated", format!("member {name} knows feature level {} now", spec.feature_level_max))
        }
        (ChangeKind::Updated, false, _) => {
            let (peers, admin) = (&spec.peer_address, &spec.admin_address);
            ("member-updated", format!("member {name} is at {peers} now, its admin API at {admin}"))
        }
    }
}

/// What an operator switched a backend to, where that is all that was changed.
fn switched(change: &Change, fields: &[String]) -> Option<String> {
    let Resource::Backend(_, backend) = &change.resource else { return None };
    let only = fields.iter().all(|field| matches!(field.as_str(), "admin_state" | "drain_timeout"));
    (change.kind == ChangeKind::Updated && only && !fields.is_empty()).then(|| match backend.admin_state {
        AdminState::Enabled => "enabled".to_owned(),
        AdminState::Draining { timeout: None } => "draining".to_owned(),
        AdminState::Draining { timeout: Some(timeout) } => {
            format!("draining (deadline {})", humantime::format_duration(timeout))
        }
        AdminState::Disabled => "disabled".to_owned(),
    })
}

fn words(whole: &Change, change: &v1::ResourceChange) -> String {
    let done = match change.r#type() {
        v1::EventType::Created => "created",
        v1::EventType::Deleted => "deleted",
        _ => "updated",
    };
    let fields = change.fields.join(", ");
    let fields = if fields.is_empty() { fields } else { format!(" ({fields})") };
    let done = switched(whole, &change.fields).unwrap_or_else(|| format!("{done}{fields}"));
    let mut parts = change.name.split('/');
    match (parts.next(), parts.next(), parts.nth(1)) {
        (Some("pools"), Some(pool), Some(backend)) => format!("backend {pool}/{backend} {done}"),
        (Some(kind), Some(name), None) => format!("{} {name} {done}", kind.trim_end_matches('s')),
        _ => format!("{} {done}", change.name),
    }
}

/// All changes of a revision, in words: the first of them, and how many there are beside.
fn all_words(all: &[Change], changes: &[v1::ResourceChange]) -> String {
    let named: Vec<String> =
        all.iter().zip(changes).take(WORDS_MAX).map(|(whole, change)| words(whole, change)).collect();
    let more = match all.len() - named.len() {
        0 => String::new(),
        1 => ", and 1 more change".to_owned(),
        more => format!(", and {more} more changes"),
    };
    named.join(", ") + &more
}

/// The changes of one revision; `name_of` tells the names of members.
pub(super) fn of_batch(
    batch: &RevisionChanges,
    name_of: impl Fn(MemberId) -> Option<MemberName>,
) -> v1::ClusterEvent {
    let changes: Vec<_> = batch.changes.iter().take(CHANGES_MAX).map(convert::resource_change).collect();
    let (kind, text) = match &batch.changes[..] {
        [only] if matches!(only.resource, Resource::Member(_)) => match &only.resource {
            Resource::Member(member) => of_member(only, member, batch.drain),
            _ => ("configuration", String::new()),
        },
        all if batch.restore => {
            ("configuration", format!("configuration restored: {}", all_words(all, &changes)))
        }
        all => ("configuration", all_words(all, &changes)),
    };
    let origin = batch.origin.as_ref();
    let client = origin.and_then(|origin| origin.client).map(|ip| ip.to_string()).unwrap_or_default();
    let actor = origin.and_then(|origin| origin.actor.as_ref()).map(ToString::to_string);
    let actor = actor.unwrap_or_else(|| client.clone());
    let from = if actor.is_empty() { String::new() } else { format!(", asked for by {actor}") };
    let member = origin.and_then(|origin| origin.member).and_then(name_of);
    v1::ClusterEvent {
        id: of_log(batch.revision),
        time: origin.map(|origin| convert::time_of_millis(origin.time_ms)),
        severity: v1::EventSeverity::Info.into(),
        kind: kind.to_owned(),
        text: text + &from,
        member: member.as_ref().map(convert::member_name).unwrap_or_default(),
        detail: Some(Detail::Configuration(v1::ConfigurationEvent {
            revision: batch.revision,
            changes,
            change_count: u32::try_from(batch.changes.len()).unwrap_or(u32::MAX),
            client,
            request_id: batch.request.as_ref().map(ToString::to_string).unwrap_or_default(),
            actor,
        })),
    }
}
