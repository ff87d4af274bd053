//! `trestle token`.

use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde::Serialize;
use tonic::transport::Channel;
use trestle_api::v1;
use trestle_api::v1::token_service_client::TokenServiceClient;
use trestle_identity::time_text;
use trestle_model::{Choice, JoinAs, TokenId};

use super::reading::consistency;
use crate::args::ReadArgs;
use crate::duration::DURATION_RULE;
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session};
use crate::table;
use crate::view::{short_name, word};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token, which takes a machine into the cluster by "trestled join"; it is shown now and never again
    Create {
        /// Take it in as a learner, which gets the log and does not vote, until "trestle member promote"
        #[arg(long)]
        learner: bool,
        /// How long machines may join by it, 1m to 30d
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
        ttl: Duration,
        /// How many machines may join by it, 1 to 100
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        uses: u32,
    },
    /// List tokens, without what is secret
    List {
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Delete a token: nobody joins by it from then on, and who has stays
    #[command(alias = "delete")]
    Revoke {
        /// Its id, as "trestle token list" shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

fn lifetime(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| DURATION_RULE.to_owned())
}

/// A token as it is shown.
#[derive(Debug, Serialize)]
struct TokenView {
    id: String,
    role: &'static str,
    uses_left: u32,
    uses: u32,
    expire_time: Option<String>,
    expired: bool,
    revision: u64,
}

/// A token that was made, with its text.
#[derive(Debug, Serialize)]
struct MadeToken {
    token: TokenView,
    text: String,
}

impl From<v1::Token> for TokenView {
    fn from(token: v1::Token) -> Self {
        let end = token.expire_time.and_then(|time| SystemTime::try_from(time).ok());
        Self {
            id: short_name(&token.name),
            role: word::<JoinAs>(token.role),
            uses_left: token.uses_left,
            uses: token.uses,
            expire_time: end.map(time_text),
            expired: end.is_some_and(|end| end < SystemTime::now()),
            revision: token.revision,
        }
    }
}

impl TokenView {
    /// What became of it, in a word.
    fn state(&self) -> &'static str {
        match self {
            Self { uses_left: 0, .. } => "used up",
            Self { expired: true, .. } => "expired",
            _ => "valid",
        }
    }
}

fn tokens(channel: Channel) -> TokenServiceClient<Channel> {
    TokenServiceClient::new(channel)
}

impl TokenCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create { learner, ttl, uses } => create(session, learner, ttl, uses).await,
            Self::List { read } => list(session, &read).await,
            Self::Revoke { id } => revoke(session, &id).await,
        }
    }
}

async fn create(session: &mut Session<'_>, learner: bool, ttl: Duration, uses: u32) -> Result<(), Error> {
    let mut input = Input::default();
    let lifetime = prost_types::Duration::try_from(ttl).ok();
    if lifetime.is_none() {
        input.refuse("--ttl", &format!("{ttl:?}"), "must be 1m to 30d");
    }
    input.finish()?;
    let joins_as = if learner { JoinAs::Learner } else { JoinAs::Voter };
    let token = v1::Token { role: joins_as.number(), uses, ..Default::default() };
    let request = v1::CreateTokenRequest { token: Some(token), lifetime };
    let make = async |channel| tokens(channel).create_token(request.clone()).await;
    let answer = session.call(Repeat::NonIdempotent, make).await?;
    let made = MadeToken { token: answer.token.unwrap_or_default().into(), text: answer.text };
    session.print(&made, || format!("{}\n", made.text))?;
    let machines =
        if made.token.uses == 1 { "one machine".to_owned() } else { format!("{} machines", made.token.uses) };
    session.terminal.note(format_args!(
        "this takes {machines} into the cluster as {} until {}; keep it where nobody else reads it, and give it to \"trestled join\" \
         there on its standard input; \"trestle token revoke {}\" ends it",
        made.token.role,
        made.token.expire_time.as_deref().unwrap_or_default(),
        made.token.id
    ));
    Ok(())
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let request = v1::ListTokensRequest { consistency: consistency(read) };
    let make = async |channel| tokens(channel).list_tokens(request).await;
    let answer = session.call(Repeat::Read, make).await?;
    let found: Vec<TokenView> = answer.tokens.into_iter().map(Into::into).collect();
    session.print_list(&found, "no tokens", || {
        let row = |token: &TokenView| {
            [
                token.id.clone(),
                token.role.to_owned(),
                format!("{} of {}", token.uses_left, token.uses),
                token.expire_time.clone().unwrap_or_default(),
                token.state().to_owned(),
            ]
        };
        table::table(["ID", "ROLE", "USES LEFT", "EXPIRES", "STATE"], found.iter().map(row))
    })?;
    session.note_freshness(answer.read.as_ref());
    Ok(())
}

async fn revoke(session: &mut Session<'_>, id: &str) -> Result<(), Error> {
    let mut input = Input::default();
    input.valid("ID", id, TokenId::parse(id));
    let request_id = input.request_id(None)?;
    input.finish()?;
    let request = v1::DeleteTokenRequest { name: format!("tokens/{id}"), request_id: request_id.clone() };
    let make = async |channel| tokens(channel).delete_token(request.clone()).await;
    let answer = session.call(Repeat::Write(&request_id), make).await?;
    let told = std::collections::BTreeMap::from([("revision", answer.revision)]);
    session.print(&told, || format!("token {id} revoked (revision {})\n", answer.revision))
}
