//! The commands, one file for each noun.

mod authority;
mod backend;
mod backup;
mod certificate;
mod check_flags;
mod check_pace;
pub(crate) mod check_settings;
mod choice;
mod cluster;
mod completions;
mod connection;
mod context;
mod events;
mod field_mask;
mod leader;
mod listener;
pub(crate) mod listener_settings;
mod member;
mod metadata_settings;
mod new_user;
mod passphrase;
mod pool;
mod pool_settings;
mod reading;
mod resource;
mod restore;
mod status;
mod token;
mod top;
mod user;
mod vip;
mod vip_settings;
mod watch;

use clap::{Parser, Subcommand};

use crate::args::Global;
use crate::error::Error;
use crate::session::Session;
use authority::authorities;
pub(crate) use authority::believed;
use reading::{PAGE_SIZE, consistency, next_page};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "trestle",
    version,
    about = "Manages a Trestle cluster through any of its members",
    disable_help_subcommand = true,
    color = clap::ColorChoice::Never,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the cluster and each member, and what is wrong
    Status(status::StatusArgs),
    /// Show traffic and health live: listeners, pools, backends
    Top(top::TopArgs),
    /// Show what happened on the cluster and its members: health, leaders, virtual IPs, configuration
    Events(events::EventsArgs),
    /// Show changes of the configuration as they come, until interrupted; "events" shows what happens
    Watch(watch::WatchArgs),
    /// Create a cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Manage pools: named sets of backends
    #[command(subcommand, alias = "pools")]
    Pool(pool::PoolCommand),
    /// Manage the backends of a pool
    #[command(subcommand, alias = "backends")]
    Backend(backend::BackendCommand),
    /// Manage listeners: addresses that lead to a pool
    #[command(subcommand, alias = "listeners")]
    Listener(listener::ListenerCommand),
    /// Manage virtual IPs: addresses that one member at a time holds
    #[command(subcommand, alias = "vips")]
    Vip(vip::VipCommand),
    /// List and close connections of clients
    #[command(subcommand, alias = "connections")]
    Connection(connection::ConnectionCommand),
    /// Manage the members of the cluster
    #[command(subcommand, alias = "members")]
    Member(member::MemberCommand),
    /// Show or hand over leadership
    #[command(subcommand)]
    Leader(leader::LeaderCommand),
    /// Manage users of the admin API: who may call it over TLS
    #[command(subcommand, alias = "users")]
    User(user::UserCommand),
    /// Manage tokens: by one a machine joins the cluster
    #[command(subcommand, alias = "tokens")]
    Token(token::TokenCommand),
    /// Manage authorities: who signs the certificates of members and users
    #[command(subcommand)]
    Ca(authority::AuthorityCommand),
    /// See to the certificate of this machine's member, where an authority outside of the cluster signs
    #[command(subcommand)]
    Certificate(certificate::CertificateCommand),
    /// List contexts, and choose one: which cluster to call, and as which user
    #[command(subcommand, alias = "contexts")]
    Context(context::ContextCommand),
    /// Save the replicated configuration as one document
    Backup(backup::BackupArgs),
    /// Make the replicated configuration what a backup says; members are left alone
    Restore(restore::RestoreArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Whether it calls a member at all.
    pub(crate) fn calls(&self) -> bool {
        !matches!(self, Self::Context(_) | Self::Completions(_))
    }

    /// Does it.
    ///
    /// # Errors
    /// Why it was not done.
    pub(crate) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Status(args) => args.run(session).await,
            Self::Top(args) => Box::pin(args.run(session)).await,
            Self::Events(args) => args.run(session).await,
            Self::Watch(args) => args.run(session).await,
            Self::Cluster(command) => command.run(session).await,
            Self::Pool(command) => Box::pin(command.run(session)).await,
            Self::Backend(command) => Box::pin(command.run(session)).await,
            Self::Listener(command) => Box::pin(command.run(session)).await,
            Self::Vip(command) => Box::pin(command.run(session)).await,
            Self::Connection(command) => Box::pin(command.run(session)).await,
            Self::Member(command) => Box::pin(command.run(session)).await,
            Self::Leader(command) => command.run(session).await,
            Self::User(command) => Box::pin(command.run(session)).await,
            Self::Token(command) => Box::pin(command.run(session)).await,
            Self::Ca(command) => Box::pin(command.run(session)).await,
            Self::Certificate(command) => command.run(session).await,
            Self::Context(command) => command.run(session),
            Self::Backup(args) => Box::pin(args.run(session)).await,
            Self::Restore(args) => Box::pin(args.run(session)).await,
            Self::Completions(args) => args.run(session),
        }
    }
}
