//! `trestle member`.

use clap::{Args, Subcommand};
use serde::Serialize;
use tonic::Streaming;
use trestle_api::v1;

use super::consistency;
use crate::args::{ReadArgs, WaitArgs, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, cluster, members};
use crate::view::{MemberView, membership_step_word, short_name};
use crate::wait::{Drain, drained, tell_what_is_left};
use crate::write::{Deleted, Write, for_people, in_force, warn};

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the members
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Take in an empty member that listens for its peers at HOST:PORT; it serves, but does not vote yet
    Add {
        /// Its peer address
        #[arg(value_name = "HOST:PORT")]
        peer_address: String,
        /// Succeed where a member with this peer address is there already
        #[arg(long)]
        if_absent: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Make a member that has caught up a voter
    Promote {
        /// The member
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Have a member hand over the virtual IPs and leadership, take no new connections and let the open ones end
    Drain {
        /// The member
        name: String,
        /// Close connections that are left after this time, counted from when it takes no new ones, 1ms to 7days
        /// [default: never]
        #[arg(long, value_name = "DURATION")]
        deadline: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// End a drain
    Enable {
        /// The member
        name: String,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Tell the cluster that a member, running or not, is reached at another address; a member that starts at another one does
    /// so by itself
    #[command(group = clap::ArgGroup::new("addresses").required(true).multiple(true))]
    Update {
        /// The member
        name: String,
        /// Where other members reach it
        #[arg(long, value_name = "HOST:PORT", group = "addresses")]
        peer_address: Option<String>,
        /// Where its admin API is reached
        #[arg(long, value_name = "HOST:PORT", group = "addresses")]
        admin_address: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Have the cluster record this machine's member's key, by which others know it over TLS; as root, over its admin socket
    Enroll,
    /// Remove a member, running or lost; to come back it must start with an empty data directory
    #[command(visible_alias = "rm", alias = "delete")]
    Remove {
        /// The member
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// A member whose key was recorded.
#[derive(Debug, Serialize)]
struct Enrolled {
    name: String,
    key: String,
}

/// Options of commands that change who is a member, and who votes.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    wait: WaitArgs,
    /// Say what would happen and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

impl MemberCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::List(read) => list(session, &read).await,
            Self::Add { peer_address, if_absent, change } => {
                add(session, &peer_address, if_absent, &change).await
            }
            Self::Promote { name, change } => promote(session, &name, &change).await,
            Self::Drain { name, deadline, write } => drain(session, &name, deadline.as_deref(), &write).await,
            Self::Enable { name, write } => enable(session, &name, &write).await,
            Self::Update { name, peer_address, admin_address, wait } => {
                update(session, &name, [peer_address, admin_address], &wait).await
            }
            Self::Enroll => enroll(session).await,
            Self::Remove { name, change } => remove(session, &name, &change).await,
        }
    }
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let request = v1::ListMembersRequest { consistency: consistency(read) };
    let make = async |channel| members(channel).list_members(request).await;
    let answer = session.call(Repeat::Read, make).await?;
    session.note_freshness(answer.read.as_ref());
    if !answer.read.as_ref().is_some_and(|read| read.possibly_stale) {
        session.keep_endpoints(answer.members.iter());
    }
    let mut views: Vec<MemberView> = answer.members.into_iter().map(Into::into).collect();
    let request = v1::GetClusterStatusRequest { local_only: false };
    let make = async |channel| cluster(channel).get_cluster_status(request).await;
    let status = session.call_for_extra("which members answer", make).await;
    MemberView::note_status(&mut views, status.map(|status| status.members).unwrap_or_default());
    session.print(&views, || MemberView::table(&views))
}

async fn add(
    session: &mut Session<'_>,
    peer_address: &str,
    if_absent: bool,
    change: &ChangeArgs,
) -> Result<(), Error> {
    let mut input = Input::default();
    let peer_address = input.host_port("HOST:PORT", peer_address);
    input.finish()?;
    let request = v1::AddMemberRequest { peer_address, if_absent, validate_only: change.dry_run };
    let make = async |channel| members(channel).add_member(request.clone()).await;
    let mut stream = session.call(Repeat::NonIdempotent, make).await?;
    let (member, existing) = follow(session, &mut stream).await?;
    if existing {
        let told =
            format!("member {} exists already, unchanged (id {}, {})", member.name, member.id, member.role);
        session.print(&member, || format!("{told}\n"))?;
        if !for_people(session) {
            session.terminal.note(told);
        }
    } else if change.dry_run {
        return session.print(&member, || {
            let MemberView { name, peer_address, .. } = &member;
            format!("member {name} at {peer_address} would be added as learner (dry run)\n")
        });
    } else {
        session.print(&member, || format!("member {} added as learner (id {})\n", member.name, member.id))?;
    }
    if for_people(session) && member.role == "learner" {
        session
            .terminal
            .note(format_args!("next: give it a vote with \"trestle member promote {}\"", member.name));
    }
    settle(session, &change.wait, member.revision).await
}

async fn promote(session: &mut Session<'_>, name: &str, change: &ChangeArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.member("NAME", name);
    input.finish()?;
    let request = v1::PromoteMemberRequest { name: resource, validate_only: change.dry_run };
    let make = async |channel| members(channel).promote_member(request.clone()).await;
    let mut stream = session.call(Repeat::NonIdempotent, make).await?;
    let (member, existing) = follow(session, &mut stream).await?;
    let told = match (existing, change.dry_run) {
        (true, _) => format!("member {} is a voter already, unchanged (id {})\n", member.name, member.id),
        (false, true) => format!("member {} would be promoted to voter (dry run)\n", member.name),
        (false, false) => format!("member {} promoted to voter (id {})\n", member.name, member.id),
    };
    session.print(&member, || told)?;
    if change.dry_run {
        return Ok(());
    }
    settle(session, &change.wait, member.revision).await
}

async fn remove(session: &mut Session<'_>, name: &str, change: &ChangeArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.member("NAME", name);
    input.finish()?;
    let request = v1::RemoveMemberRequest { name: resource, validate_only: change.dry_run };
    let make = async |channel| members(channel).remove_member(request.clone()).await;
    let answer = session.call(Repeat::NonIdempotent, make).await?;
    warn(session, &answer.warnings);
    let revision = answer.revision;
    if change.dry_run {
        let told = format!("member {name} would be removed (dry run)\n");
        return session.print(&Deleted { name, revision }, || told);
    }
    session
        .print(&Deleted { name, revision }, || format!("member {name} removed (revision {revision})\n"))?;
    settle(session, &change.wait, revision).await
}

async fn update(
    session: &mut Session<'_>,
    name: &str,
    [peer, admin]: [Option<String>; 2],
    wait: &WaitArgs,
) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.member("NAME", name);
    let peer_address = peer.map(|address| input.host_port("--peer-address", &address)).unwrap_or_default();
    let admin_address = admin.map(|address| input.host_port("--admin-address", &address)).unwrap_or_default();
    input.finish()?;
    let request = v1::UpdateMemberRequest { name: resource, peer_address, admin_address };
    let make = async |channel| members(channel).update_member(request.clone()).await;
    let member = MemberView::from(session.call(Repeat::NonIdempotent, make).await?);
    session.print(&member, || {
        format!(
            "member {} is reached by its peers at {}, and its API at {} (revision {})\n",
            member.name, member.peer_address, member.admin_address, member.revision
        )
    })?;
    settle(session, wait, member.revision).await
}

async fn drain(
    session: &mut Session<'_>,
    name: &str,
    deadline: Option<&str>,
    args: &WriteArgs,
) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.member("NAME", name);
    let drain_timeout = deadline.map(|text| input.duration("--deadline", text));
    let write = Write::new(args, &mut input)?;
    input.finish()?;
    let request = v1::DrainMemberRequest {
        name: resource,
        request_id: write.request_id.clone(),
        drain_timeout,
        validate_only: write.dry_run,
    };
    let make = async |channel| members(channel).drain_member(request.clone()).await;
    let view = MemberView::from(session.call(write.repeat(), make).await?);
    write.tell(session, &format!("member {name}"), "draining", view.revision, &view)?;
    let drain = Drain::Member(name.to_owned());
    if write.waits() {
        return drained(session, &drain, view.revision).await;
    }
    if for_people(session) && !write.dry_run {
        tell_what_is_left(session, &drain).await;
    }
    Ok(())
}

async fn enable(session: &mut Session<'_>, name: &str, args: &WriteArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let resource = input.member("NAME", name);
    let write = Write::new(args, &mut input)?;
    input.finish()?;
    let request = v1::EnableMemberRequest {
        name: resource,
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    let make = async |channel| members(channel).enable_member(request.clone()).await;
    let view = MemberView::from(session.call(write.repeat(), make).await?);
    write.finish(session, &format!("member {name}"), "enabled", view.revision, &view).await
}

async fn enroll(session: &mut Session<'_>) -> Result<(), Error> {
    // The member that is called is the one that is meant.
    session.first_endpoint_only();
    let request_id = Input::default().request_id(None)?;
    let request = v1::EnrollMemberRequest { request_id: request_id.clone() };
    let make = async |channel| members(channel).enroll_member(request.clone()).await;
    let answer = session.call(Repeat::Write(&request_id), make).await?;
    let key = answer.keys.first().cloned().unwrap_or_default();
    let told = Enrolled { name: short_name(&answer.name), key };
    session.print(&told, || format!("member {} is known by its key {}\n", told.name, told.key))
}

async fn settle(session: &mut Session<'_>, wait: &WaitArgs, revision: u64) -> Result<(), Error> {
    if wait.wait { in_force(session, revision).await } else { Ok(()) }
}

/// Tells progress until the change is done; returns the member as it is then, and whether it was there before. Catching up may take
/// longer than one call, so only silence is bounded by --timeout.
async fn follow(
    session: &mut Session<'_>,
    stream: &mut Streaming<v1::MemberProgress>,
) -> Result<(MemberView, bool), Error> {
    let advice = "the change may be half done: repeat the command, it goes on where it stopped";
    let patience = session.timeout();
    let mut told = String::new();
    while let Some(progress) = session.next(stream, patience, advice).await? {
        warn(session, &progress.warnings);
        let step = membership_step_word(progress.step());
        let line = match progress.last_index {
            0 => step.to_owned(),
            last => format!("{step} ({} of {last} log entries)", progress.matched_index),
        };
        // Where there was nothing to do, no step is done either.
        let nothing = told.is_empty() && progress.step() == v1::member_progress::Step::Done;
        if line != told && !nothing && !progress.existing {
            session.terminal.note(&line);
            told = line;
        }
        if progress.step() == v1::member_progress::Step::Done {
            return Ok((progress.member.unwrap_or_default().into(), progress.existing));
        }
    }
    Err(Error::BadAnswer("the progress ended without its last message".to_owned()))
}
