//! `trestle vip`.

use clap::{Args, Subcommand};
use serde::Serialize;
use tonic::transport::Channel;
use trestle_api::v1;
use trestle_model::{VipAddress, VipName};

use super::consistency;
use super::metadata_settings::MetadataSettings;
use super::resource::{
    self, Answer, ApiName, DeleteCommand, GetCommand, GivenChange, ResourceKind, SettingsArgs, UpdateCommand,
    calls,
};
use super::vip_settings::{VipEmptied, VipSettings};
use crate::args::{CreateArgs, ReadArgs};
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, cluster, vips};
use crate::view::{StatusView, VipEventView, VipView, short_name};
use crate::wait::serving;
use crate::write::Write;

/// Told in place of an empty list.
const NO_VIPS: &str = "no virtual IPs; make one with \"trestle vip create ADDR/PREFIX\"";

/// What to do with virtual IPs.
#[derive(Debug, Subcommand)]
pub(crate) enum VipCommand {
    /// Create a virtual IP; the leader takes it at once
    #[command(alias = "add")]
    Create {
        /// The address, with the length of its network's prefix, as in 10.0.3.100/24
        #[arg(value_name = "ADDR/PREFIX")]
        address: String,
        /// Name of the new virtual IP [default: its address, with - for each colon]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        settings: VipSettings,
        #[command(flatten)]
        metadata: MetadataSettings,
        #[command(flatten)]
        write: CreateArgs,
    },
    /// List the virtual IPs, with who holds them by what the members' kernels say
    #[command(visible_alias = "ls")]
    List(ReadArgs),
    /// Show a virtual IP, with what each member's kernel has of it
    #[command(alias = "show")]
    Get(GetCommand<v1::Vip>),
    /// Change the settings that are given, and no others; a list that is given replaces the one before
    #[command(alias = "set")]
    Update(UpdateCommand<v1::Vip, VipUpdate>),
    /// Delete a virtual IP that no listener names; its holder lets go of it at once
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(DeleteCommand<v1::Vip>),
    /// Move all virtual IPs, and with them leadership, to another voter
    Move {
        /// The voter that shall hold them [default: the one that is best caught up]
        #[arg(long, value_name = "MEMBER")]
        to: Option<String>,
        /// Wait until it serves them: by what its kernel says the addresses are present and their fences open
        #[arg(long)]
        wait: bool,
    },
    /// Show who held the virtual IPs when, and why they moved; times are UTC
    #[command(alias = "events")]
    History(ReadArgs),
}

/// What an update may change.
#[derive(Debug, Args)]
pub(crate) struct VipUpdate {
    #[command(flatten)]
    settings: VipSettings,
    #[command(flatten)]
    emptied: VipEmptied,
}

impl VipCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create { address, name, settings, metadata, write } => {
                let mut input = Input::default();
                let mut change = settings.change(&VipEmptied::default(), &mut input);
                metadata.add_to(&mut change, &mut input);
                change.complete(&v1::Vip::default(), &mut input);
                let id = named(&address, name, &mut input);
                let write = Write::create(&write, &mut input)?;
                input.finish()?;
                let vip = v1::Vip { address, ..change.resource };
                let named = ApiName { id: id.clone(), ..ApiName::default() };
                resource::create(session, &id, named, vip, &write).await
            }
            Self::List(read) => list(session, &read).await,
            Self::Get(get) => get.run(session).await,
            Self::Update(update) => update.run(session).await,
            Self::Delete(delete) => delete.run(session).await,
            Self::Move { to, wait } => move_to(session, to.as_deref(), wait).await,
            Self::History(read) => history(session, &read).await,
        }
    }
}

/// The name that is given, or the one that the address gives.
fn named(address: &str, name: Option<String>, input: &mut Input) -> String {
    let parsed = input.valid("ADDR/PREFIX", address, VipAddress::parse(address));
    match (name, parsed) {
        (Some(name), _) => {
            input.valid("--name", &name, VipName::parse(&name));
            name
        }
        (None, Some(parsed)) => {
            let rule = |_| "must be given, because this address makes no name".to_owned();
            let made = input.valid("--name", "", parsed.default_name().map_err(rule));
            made.map(|name| name.to_string()).unwrap_or_default()
        }
        (None, None) => String::new(),
    }
}

impl ResourceKind for v1::Vip {
    const NOUN: &'static str = "virtual IP";
    const NEW: &'static str = "Name of the new virtual IP";
    type View = VipView;

    fn parse(name: &str, input: &mut Input) -> ApiName {
        ApiName { id: name.to_owned(), name: input.vip("NAME", name), ..ApiName::default() }
    }

    async fn show(self, session: &mut Session<'_>) -> Result<(), Error> {
        let name = self.name.clone();
        for view in with_holders(session, vec![self], name).await {
            session.print(&view, || view.description())?;
        }
        Ok(())
    }

    calls!(vips: create_vip, get_vip, list_vips, update_vip, delete_vip);
}

impl SettingsArgs<v1::Vip> for VipUpdate {
    fn change(&self, input: &mut Input) -> GivenChange<v1::Vip> {
        self.settings.change(&self.emptied, input)
    }
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (found, info) = match resource::list::<v1::Vip>(session, "", consistency(read)).await {
        // Who holds them is wanted most when there is no leader.
        Err(error @ Error::NoAnswer { .. }) if !read.local => {
            session.terminal.note(format_args!("warning: {}", error.brief()));
            resource::list(session, "", v1::Consistency::Local.into()).await?
        }
        other => other?,
    };
    session.note_freshness(info.as_ref());
    let views = with_holders(session, found, String::new()).await;
    session.print_list(&views, NO_VIPS, || VipView::table(&views))
}

/// Joins virtual IPs with what members' kernels have of one, or of all. The settings are worth showing without it.
async fn with_holders(session: &mut Session<'_>, found: Vec<v1::Vip>, name: String) -> Vec<VipView> {
    let request = v1::GetVipStatusRequest { name };
    let make = async |channel| vips(channel).get_vip_status(request.clone()).await;
    let status = session.call_for_extra("who holds it", make).await;
    let held = |vip: &v1::Vip| {
        let mut views = status.iter().flat_map(|status| &status.views);
        views.any(|view| view.vip == vip.name && view.holds)
    };
    let why = if status.is_none() || found.iter().all(held) { None } else { why_none_holds(session).await };
    VipView::join(found, status, why.as_deref())
}

/// Asks the members why they do not hold what they should.
async fn why_none_holds(session: &mut Session<'_>) -> Option<String> {
    let request = v1::GetClusterStatusRequest { local_only: false };
    let make = async |channel| cluster(channel).get_cluster_status(request).await;
    let status = session.call_for_extra("why nobody holds it", make).await?;
    StatusView::from(status).why_none_holds()
}

#[derive(Debug, Serialize)]
struct Moved {
    holder: String,
    term: u64,
    former_holder: Option<String>,
    /// Connections through the virtual IPs that the former holder had, and that do not go on.
    connections_left: u64,
}

async fn move_to(session: &mut Session<'_>, to: Option<&str>, wait: bool) -> Result<(), Error> {
    let mut input = Input::default();
    let to = to.map(|name| input.member("--to", name)).unwrap_or_default();
    input.finish()?;
    let request = v1::MoveVipsRequest { to };
    let make = async |channel| vips(channel).move_vips(request.clone()).await;
    let answer = session.call(Repeat::NonIdempotent, make).await?;
    let moved = Moved {
        holder: short_name(&answer.holder),
        term: answer.term,
        former_holder: Some(short_name(&answer.former_holder)).filter(|name| !name.is_empty()),
        connections_left: answer.connections_left,
    };
    let make = async |channel| vips(channel).list_vips(v1::ListVipsRequest::default()).await;
    let listed = session.call_for_extra("whether there are virtual IPs", make).await;
    let there = listed.is_none_or(|listed| !listed.vips.is_empty());
    let holds =
        if there { "leads and holds the virtual IPs now" } else { "leads now; there are no virtual IPs" };
    session.print(&moved, || format!("{} {holds} (term {})\n", moved.holder, moved.term))?;
    if let Some(left) = moved.left_behind() {
        session.terminal.note(left);
    }
    if wait {
        let served = serving(session, &moved.holder).await?;
        session.terminal.note(match served.as_slice() {
            [] => format!("{}: there is no virtual IP to serve", moved.holder),
            served => format!("{}: serves {}: address present, fence open", moved.holder, served.join(", ")),
        });
    }
    Ok(())
}

impl Moved {
    /// What the move has cost, in words.
    fn left_behind(&self) -> Option<String> {
        let from = self.former_holder.as_ref()?;
        match self.connections_left {
            0 => None,
            1 => Some(format!(
                "1 connection through the virtual IPs was left behind on {from} and does not go on: its client must connect \
                 again"
            )),
            count => Some(format!(
                "{count} connections through the virtual IPs were left behind on {from} and do not go on: their clients must \
                 connect again"
            )),
        }
    }
}

async fn history(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let request = v1::ListVipEventsRequest { consistency: consistency(read) };
    let make = async |channel| vips(channel).list_vip_events(request).await;
    let answer = session.call(Repeat::Read, make).await?;
    session.note_freshness(answer.read.as_ref());
    let views: Vec<VipEventView> = answer.events.into_iter().map(Into::into).collect();
    session.print_list(&views, "nobody has held a virtual IP yet", || VipEventView::table(&views))
}
