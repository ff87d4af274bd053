//! `trestle ca`.

use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde::Serialize;
use tonic::Code;
use tonic::transport::Channel;
use trestle_api::v1;
use trestle_api::v1::authority_service_client::AuthorityServiceClient;
use trestle_api::v1::rotate_authority_response::Step;
use trestle_identity::time_text;

use super::reading::consistency;
use crate::args::ReadArgs;
use crate::error::Error;
use crate::input::text_of;
use crate::session::{Repeat, Session};
use crate::table;
use crate::view::short_name;
use crate::write::warn;

/// Each step of a rotation waits at most 30 s for members.
const STEP_MAX: Duration = Duration::from_secs(60);

/// How often a rotation is begun whose leader is replaced by another one, and the pause before it goes on.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What to do with authorities.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// List authorities, with the members that have their keys and show their certificates
    List {
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Have another authority believed, which "ca rotate" makes the active one: one outside of the cluster, as that of a company, once
    /// members show certificates that it has signed
    Add {
        /// The certificate of one outside of the cluster, in PEM; - for standard input
        #[arg(value_name = "FILE", required_unless_present = "own")]
        file: Option<String>,
        /// One of the cluster's own in place of one outside of it: users that call before it is active learn of it
        #[arg(long, conflicts_with = "file")]
        own: bool,
    },
    /// Make a new authority sign in place of the present one, step by step, while the cluster serves; repeated, it goes on where it
    /// stopped
    Rotate {
        /// Go on although nobody gives the key of the present one, or the present one is external; users need new contexts then
        #[arg(long)]
        yes: bool,
    },
    /// Believe an authority no more that does not sign; refused while a member shows its certificate, or does not answer
    Retire {
        /// Its number, as "trestle ca list" shows it
        #[arg(value_name = "GENERATION")]
        generation: u32,
        /// Although members do not answer, or show its certificate
        #[arg(long)]
        yes: bool,
    },
}

/// An authority as it is shown.
#[derive(Debug, Serialize)]
struct AuthorityView {
    generation: u32,
    state: &'static str,
    expire_time: Option<String>,
    external: bool,
    key_members: Vec<String>,
    certified_members: Vec<String>,
}

/// A member that does not answer.
#[derive(Debug, Serialize)]
struct UnansweringView {
    member: String,
    error: String,
}

/// All authorities as they are shown.
#[derive(Debug, Serialize)]
struct AuthoritiesView {
    authorities: Vec<AuthorityView>,
    unanswering_members: Vec<UnansweringView>,
}

/// What a rotation came to.
#[derive(Debug, Serialize)]
struct RotatedView {
    generation: u32,
    former_generation: Option<u32>,
    certified_members: Vec<String>,
    unanswering_members: Vec<UnansweringView>,
}

fn names(members: &[String]) -> Vec<String> {
    members.iter().map(|member| short_name(member)).collect()
}

fn unanswering(members: Vec<v1::UnansweringMember>) -> Vec<UnansweringView> {
    let view =
        |one: v1::UnansweringMember| UnansweringView { member: short_name(&one.member), error: one.error };
    members.into_iter().map(view).collect()
}

const fn state_word(state: v1::AuthorityState) -> &'static str {
    match state {
        v1::AuthorityState::Unspecified => "unknown",
        v1::AuthorityState::Trusted => "trusted",
        v1::AuthorityState::Active => "active",
        v1::AuthorityState::Retired => "retired",
    }
}

impl From<v1::Authority> for AuthorityView {
    fn from(authority: v1::Authority) -> Self {
        let end = authority.expire_time.and_then(|time| SystemTime::try_from(time).ok());
        Self {
            generation: authority.generation,
            state: state_word(authority.state()),
            expire_time: end.map(time_text),
            external: authority.external,
            key_members: names(&authority.key_members),
            certified_members: names(&authority.certified_members),
        }
    }
}

/// A client of the authority service.
pub(crate) fn authorities(channel: Channel) -> AuthorityServiceClient<Channel> {
    AuthorityServiceClient::new(channel)
}

impl AuthorityCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::List { read } => list(session, &read).await,
            Self::Add { file, own: _ } => add(session, file.as_deref().map(text_of).transpose()?).await,
            Self::Rotate { yes } => rotate(session, yes).await,
            Self::Retire { generation, yes } => retire(session, generation, yes).await,
        }
    }
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let request = v1::ListAuthoritiesRequest { consistency: consistency(read), certificates_only: false };
    let make = async |channel| authorities(channel).list_authorities(request).await;
    let answer = session.call(Repeat::Read, make).await?;
    let view = AuthoritiesView {
        authorities: answer.authorities.into_iter().map(Into::into).collect(),
        unanswering_members: unanswering(answer.unanswering_members),
    };
    session.print(&view, || {
        let each = |members: &[String]| {
            if members.is_empty() { "nobody".to_owned() } else { members.join(", ") }
        };
        let row = |one: &AuthorityView| {
            [
                one.generation.to_string(),
                one.state.to_owned(),
                one.expire_time.clone().unwrap_or_default(),
                if one.external { "external".to_owned() } else { each(&one.key_members) },
                each(&one.certified_members),
            ]
        };
        let heading = ["GENERATION", "STATE", "VALID UNTIL", "KEY ON", "CERTIFICATES OF"];
        table::table(heading, view.authorities.iter().map(row))
    })?;
    for silent in &view.unanswering_members {
        session.terminal.note(format_args!("not known of {}: {}", silent.member, silent.error));
    }
    session.note_freshness(answer.read.as_ref());
    Ok(())
}

/// What was added.
#[derive(Debug, Serialize)]
struct AddedView {
    generation: u32,
    members: Vec<String>,
    unanswering_members: Vec<UnansweringView>,
}

async fn add(session: &mut Session<'_>, certificate: Option<String>) -> Result<(), Error> {
    let external = certificate.is_some();
    let request = v1::AddAuthorityRequest { certificate: certificate.unwrap_or_default() };
    let make = async |channel| authorities(channel).add_authority(request.clone()).await;
    // An external one that is there already is not added again.
    let repeat = if external { Repeat::Read } else { Repeat::NonIdempotent };
    let answer = session.call(repeat, make).await?;
    let view = AddedView {
        generation: answer.generation,
        members: names(&answer.members),
        unanswering_members: unanswering(answer.unanswering_members),
    };
    session.print(&view, || {
        let kind = if external { "external" } else { "the cluster's own" };
        format!("authority {} is {kind}, and believed by {}\n", view.generation, view.members.join(", "))
    })?;
    for silent in &view.unanswering_members {
        session.terminal.note(format_args!("not known of {}: {}", silent.member, silent.error));
    }
    session.terminal.note(match external {
        false => "next: \"trestle ca rotate\" makes it the active one; contexts that were used by then go on to work",
        true => "next: on each member's machine have what \"trestle certificate request\" prints signed, and put it in place with \"trestle \
         certificate install FILE\"; then \"trestle ca rotate\" makes this authority the active one",
    });
    Ok(())
}

/// A step that was verified, in words.
fn told(step: &v1::RotateAuthorityResponse) -> String {
    let (generation, members) = (step.generation, names(&step.members).join(", "));
    let done = match step.step() {
        Step::Made => format!("authority {generation} is made, with its key on {members}"),
        Step::HandedOver => format!("its key is on {members}"),
        Step::Believed => format!("{members} believe it"),
        Step::Active => format!("authority {generation} signs"),
        Step::Certified => format!("{members} show its certificates"),
        Step::Done | Step::Unspecified => String::new(),
    };
    let silent: Vec<_> = step
        .unanswering_members
        .iter()
        .map(|one| format!("{} does not answer: {}", short_name(&one.member), one.error))
        .collect();
    if silent.is_empty() { done } else { format!("{done} ({})", silent.join("; ")) }
}

/// Whether a rotation goes on with another leader, which a repeated call finds.
fn goes_on(error: &Error) -> bool {
    match error {
        Error::Refused(status) => status.code() == Code::Unavailable,
        Error::Unknown { .. } => true,
        _ => false,
    }
}

async fn rotate(session: &mut Session<'_>, yes: bool) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        match rotate_once(session, yes).await {
            Err(error) if goes_on(&error) && attempt < ATTEMPTS => {
                session.terminal.note(format_args!("{error}; going on where it stopped"));
            }
            ended => return ended,
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn rotate_once(session: &mut Session<'_>, yes: bool) -> Result<(), Error> {
    let request = v1::RotateAuthorityRequest { without_former_key: yes };
    let make = async |channel| authorities(channel).rotate_authority(request).await;
    // A second rotation at the same time goes on with the first.
    let mut stream = session.call(Repeat::Watch, make).await?;
    let advice = "nothing is lost: repeat the command, it goes on where it stopped";
    while let Some(step) = session.next(&mut stream, STEP_MAX, advice).await? {
        if step.step() != Step::Done {
            session.terminal.note(told(&step));
            continue;
        }
        let former = Some(step.former_generation).filter(|generation| *generation > 0);
        let view = RotatedView {
            generation: step.generation,
            former_generation: former,
            certified_members: names(&step.members),
            unanswering_members: unanswering(step.unanswering_members),
        };
        session.print(&view, || {
            format!(
                "authority {} signs, and all members that answer show its certificates\n",
                view.generation
            )
        })?;
        if let Some(former) = former {
            session
                .terminal
                .note(format_args!("authority {former} is believed until \"trestle ca retire {former}\""));
        }
        return Ok(());
    }
    Err(Error::BadAnswer("the progress ended without its last message".to_owned()))
}

async fn retire(session: &mut Session<'_>, generation: u32, yes: bool) -> Result<(), Error> {
    let request = v1::RetireAuthorityRequest { generation, despite_members: yes };
    let make = async |channel| authorities(channel).retire_authority(request).await;
    let answer = session.call(Repeat::NonIdempotent, make).await?;
    warn(session, &answer.warnings);
    let view = std::collections::BTreeMap::from([("revision", answer.revision)]);
    session.print(&view, || {
        format!("authority {generation} is believed no more (revision {})\n", answer.revision)
    })
}

/// The certificates of the authorities that are believed now, in PEM.
pub(crate) async fn believed(session: &mut Session<'_>) -> Result<String, Error> {
    let request = v1::ListAuthoritiesRequest { certificates_only: true, ..Default::default() };
    let make = async |channel| authorities(channel).list_authorities(request).await;
    let answer = session.call(Repeat::Read, make).await?;
    let is_believed =
        |one: &v1::Authority| matches!(one.state(), v1::AuthorityState::Trusted | v1::AuthorityState::Active);
    Ok(answer.authorities.into_iter().filter(is_believed).map(|one| one.certificate).collect())
}
