//! `trestle connection`.

use std::time::Duration;

use clap::{Args, Subcommand};
use trestle_api::v1;
use trestle_model::MemberName;

use super::{PAGE_SIZE, next_page};
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, connections};
use crate::view::{ClosedView, ConnectionView, short_name};

/// Progress comes about once a second, and a second later where a member does not answer.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// Told where nothing says what to close.
const NOTHING_TO_CLOSE: &str = "nothing to close was given: name connections as \"trestle connection list\" shows them (m1/17), or \
                                give a filter (--backend web/a, --client 10.0.0.0/8); --all closes all";

/// What to do with connections.
#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// List open connections on all members
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Most connections to list; 0 for all
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Reset connections on all members: those that are named, or those that all filters match
    Close(CloseArgs),
}

/// Which connections are closed, and how fast.
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    /// Connections as they are listed, as in m1/17
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All connections
    #[arg(long)]
    all: bool,
    /// Only this share of them, drawn at random over all members and rounded up, as in 20%
    #[arg(long, value_name = "PERCENT")]
    share: Option<String>,
    /// Close no more than so many in a time, on all members together, as in 50/s, 30/m or 100/h, and wait until all are
    /// closed, which may take an hour; what is left when this is stopped stays open [default: all at once]
    #[arg(long, value_name = "N/UNIT")]
    rate: Option<String>,
    /// Say what would be closed and close nothing
    #[arg(long)]
    dry_run: bool,
}

/// Which connections.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// On this member
    #[arg(long)]
    member: Option<String>,
    /// Accepted by this listener
    #[arg(long)]
    listener: Option<String>,
    /// Going to this pool
    #[arg(long)]
    pool: Option<String>,
    /// Connected to this backend
    #[arg(long, value_name = "POOL/NAME")]
    backend: Option<String>,
    /// From a client in this network, or at this address
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// Open for at least so long
    #[arg(long, value_name = "DURATION")]
    min_age: Option<String>,
}

impl FilterArgs {
    fn parse(&self, input: &mut Input) -> v1::ConnectionFilter {
        let network = |client: &String| input.networks("--client", std::slice::from_ref(client)).pop();
        let client = self.client.as_ref().and_then(network).unwrap_or_default();
        v1::ConnectionFilter {
            client,
            member: self.member.as_deref().map(|name| input.member("--member", name)).unwrap_or_default(),
            listener: self
                .listener
                .as_deref()
                .map(|name| input.listener("--listener", name))
                .unwrap_or_default(),
            pool: self.pool.as_deref().map(|name| input.pool("--pool", name)).unwrap_or_default(),
            backend: self.backend.as_deref().map(|path| input.backend(path).resource()).unwrap_or_default(),
            min_age: self.min_age.as_deref().map(|age| input.duration("--min-age", age)),
        }
    }
}

impl ConnectionCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::List { filter, limit } => list(session, &filter, limit).await,
            Self::Close(args) => close(session, &args).await,
        }
    }
}

async fn list(session: &mut Session<'_>, filter: &FilterArgs, limit: usize) -> Result<(), Error> {
    let mut input = Input::default();
    let filter = filter.parse(&mut input);
    input.finish()?;
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut views: Vec<ConnectionView> = Vec::new();
    let mut token = String::new();
    let (total, mut unreachable) = loop {
        let request = v1::ListConnectionsRequest {
            filter: Some(filter.clone()),
            page_size: i32::try_from(limit - views.len()).unwrap_or(PAGE_SIZE).min(PAGE_SIZE),
            page_token: token.clone(),
        };
        let make = async |channel| connections(channel).list_connections(request.clone()).await;
        let answer = session.call(Repeat::Read, make).await?;
        views.extend(answer.connections.into_iter().map(ConnectionView::from));
        let done = (answer.total_size, answer.unreachable_members);
        match next_page(&token, answer.next_page_token)? {
            Some(next) if views.len() < limit => token = next,
            Some(_) => break done,
            // Connections may have come or gone between two pages; nothing was left out for the limit.
            None => break (views.len() as u64, done.1),
        }
    };
    unreachable.iter_mut().for_each(|member| *member = short_name(member));
    session.print_list(&views, "no open connections", || ConnectionView::table(&views))?;
    if total > views.len() as u64 {
        let shown = views.len();
        session.terminal.note(format_args!("{shown} of {total} connections are listed; --limit lists more"));
    }
    if !unreachable.is_empty() {
        let names = unreachable.join(", ");
        session
            .terminal
            .note(format_args!("warning: {names} did not answer; connections there are not listed"));
    }
    Ok(())
}

/// A connection's name as it is listed, as the API writes it.
fn resource(input: &mut Input, name: &str) -> String {
    let parsed = name.split_once('/').and_then(|(member, number)| {
        let number: u64 = number.parse().ok()?;
        MemberName::parse(member).ok().map(|member| format!("members/{member}/connections/{number}"))
    });
    let rule =
        || "must be a member and a number, as in m1/17, as \"trestle connection list\" shows them".to_owned();
    input.valid("NAME", name, parsed.ok_or_else(rule)).unwrap_or_default()
}

async fn close(session: &mut Session<'_>, args: &CloseArgs) -> Result<(), Error> {
    let mut input = Input::default();
    let filter = args.filter.parse(&mut input);
    let filtered = filter != v1::ConnectionFilter::default();
    let names: Vec<_> = args.names.iter().map(|name| resource(&mut input, name)).collect();
    let share_percent = args.share.as_deref().map(|share| input.share("--share", share)).unwrap_or_default();
    let rate = args.rate.as_deref().map(|rate| input.rate("--rate", rate));
    input.finish()?;
    match [filtered, !names.is_empty(), args.all].into_iter().filter(|given| *given).count() {
        0 => return Err(Error::CloseSelection(NOTHING_TO_CLOSE)),
        1 => {}
        _ => {
            return Err(Error::CloseSelection(
                "names, filters and --all cannot be combined: give one of them",
            ));
        }
    }
    let named = names.len() as u64;
    let request = v1::CloseConnectionsRequest {
        filter: filtered.then_some(filter),
        names,
        all: args.all,
        validate_only: args.dry_run,
        share_percent,
    };
    let answer = match rate.filter(|_| !args.dry_run) {
        Some(rate) => close_gradually(session, request, rate).await?,
        None => {
            let make = async |channel| connections(channel).close_connections(request.clone()).await;
            session.call(Repeat::NonIdempotent, make).await?
        }
    };
    let view = ClosedView::new(answer, args.dry_run);
    session.print(&view, || view.text())?;
    if let Some(gone) = named.checked_sub(view.count()).filter(|gone| *gone > 0) {
        session.terminal.note(match named {
            1 => "the connection that was named is not open".to_owned(),
            all => format!("{gone} of the {all} connections that were named are not open"),
        });
    }
    match view.unreachable() {
        [] => Ok(()),
        members => Err(Error::NotClosed(members.to_vec())),
    }
}

/// Closes at a rate and tells progress, in some 20 lines whatever the number; answers what was closed.
async fn close_gradually(
    session: &mut Session<'_>,
    request: v1::CloseConnectionsRequest,
    rate: f64,
) -> Result<v1::CloseConnectionsResponse, Error> {
    let request = v1::CloseConnectionsGraduallyRequest { closing: Some(request), rate };
    let make = async |channel| connections(channel).close_connections_gradually(request.clone()).await;
    let mut stream = session.call(Repeat::NonIdempotent, make).await?;
    let patience = session.timeout().max(QUIET_MAX);
    let (mut last, mut told) = (v1::CloseConnectionsGraduallyResponse::default(), 0);
    loop {
        let closed: u64 = last.members.iter().map(|member| member.count).sum();
        let advice = format!("{closed} connections were closed for certain; what is left stays open");
        let Some(progress) = session.next(&mut stream, patience, &advice).await? else { break };
        let closed: u64 = progress.members.iter().map(|member| member.count).sum();
        if progress.remaining > 0 && (closed - told) * 20 >= closed + progress.remaining {
            told = closed;
            session.terminal.note(format_args!("closed {closed}, {} to go", progress.remaining));
        }
        last = progress;
    }
    let v1::CloseConnectionsGraduallyResponse { members, unreachable_members, .. } = last;
    Ok(v1::CloseConnectionsResponse { members, unreachable_members })
}
