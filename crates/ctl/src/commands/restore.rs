//! `trestle restore`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio_stream::iter;
use trestle_api::{convert, v1};
use trestle_identity::{CertificateFacts, SealedKey, from_pem};
use trestle_model::{Invalid, Violation};

use super::authorities;
use super::passphrase::PassphraseArgs;
use crate::args::WriteArgs;
use crate::document;
use crate::error::Error;
use crate::input::{Input, text_of};
use crate::session::{Repeat, Session, cluster};
use crate::view::{ChangeView, short_name};
use crate::write::{Write, warn};

/// A large configuration takes an entry of the log for every few KiB.
const TIME: Duration = Duration::from_secs(120);

/// What to restore, and how.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A backup; - for standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// Replace what is configured: what the backup does not have is deleted
    #[arg(long)]
    replace: bool,
    /// Put nothing back but the key by which the cluster signs certificates, where no member has it any more, to the member at the first
    /// endpoint and from there to all voters
    #[arg(long, conflicts_with_all = ["replace", "wait", "dry_run", "request_id"])]
    ca_key_only: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, Serialize)]
struct KeyView {
    generation: u32,
    member: String,
}

/// Gives the cluster the key of its authority back.
async fn restore_key(
    session: &mut Session<'_>,
    file: &str,
    document: v1::Configuration,
    passphrase: &PassphraseArgs,
) -> Result<(), Error> {
    let invalid = |rule: String| Error::from(Invalid(vec![Violation::new("FILE", file, rule)]));
    let sealed = document.authority_key.ok_or_else(|| {
        invalid("must be a backup that \"trestle backup --with-ca-key\" has made, and has no key".to_owned())
    })?;
    let v1::SealedAuthorityKey { generation: _, certificate, salt, memory_kib, passes, lanes, sealed } =
        sealed;
    let key = SealedKey { salt, memory_kib, passes, lanes, sealed };
    let key = key.open(&passphrase.known_one()?).map_err(|error| invalid(error.to_string()))?;
    // It is told here, and not by a member that is sent it.
    let own = from_pem(&certificate).ok().and_then(|found| CertificateFacts::read(found.first()?).ok());
    if own.is_none_or(|own| own.pin != key.pin()) {
        return Err(invalid("must have a key that belongs to its certificate".to_owned()));
    }
    session.first_endpoint_only();
    let request = v1::ImportAuthorityKeyRequest { key: key.to_pem().expose().clone() };
    let make = async |channel| authorities(channel).import_authority_key(request.clone()).await;
    let answer = session.call(Repeat::NonIdempotent, make).await?;
    let view = KeyView { generation: answer.generation, member: short_name(&answer.member) };
    session.print(&view, || {
        format!(
            "{} has the key of authority {}; \"trestle ca list\" says who else has it\n",
            view.member, view.generation
        )
    })
}

#[derive(Debug, Serialize)]
struct RestoredView {
    revision: u64,
    created: u32,
    updated: u32,
    deleted: u32,
    /// Of a dry run: what would become of which resources, as far as the answer names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<ChangeView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What a restore would do, a line for each resource.
fn would_be(done: &str, view: &RestoredView) -> String {
    let mut told = format!("configuration would be {done} (dry run)\n");
    for change in &view.changes {
        told.push_str(&format!("  {change}\n"));
    }
    let all = view.created as usize + view.updated as usize + view.deleted as usize;
    match all - view.changes.len().min(all) {
        0 => {}
        more => told.push_str(&format!("  and {more} more\n")),
    }
    told
}

impl RestoreArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        let write = Write::new(&self.write, &mut input)?;
        let document = document::from_json(&text_of(&self.file)?)?;
        let document = document.unwrap_or_else(|rule| {
            input.refuse("FILE", &self.file, &format!("must be a backup of \"trestle backup\": {rule}"));
            v1::Configuration::default()
        });
        input.finish()?;
        if self.ca_key_only {
            return restore_key(session, &self.file, document, &self.passphrase).await;
        }
        session.allow(TIME);
        let mut requests: Vec<_> = convert::configuration_parts(document)
            .into_iter()
            .map(|part| v1::RestoreConfigurationRequest { part: Some(part), ..Default::default() })
            .collect();
        if let Some(first) = requests.first_mut() {
            first.replace = self.replace;
            first.request_id.clone_from(&write.request_id);
            first.validate_only = write.dry_run;
        }
        let make = async |channel| cluster(channel).restore_configuration(iter(requests.clone())).await;
        let answer = session.call(write.repeat(), make).await?;
        let v1::RestoreConfigurationResponse { revision, created, updated, deleted, changes, warnings } =
            answer;
        warn(session, &warnings);
        let changes: Vec<ChangeView> = changes.into_iter().map(Into::into).collect();
        let view = RestoredView { revision, created, updated, deleted, changes, warnings };
        if created + updated + deleted == 0 {
            let told: &str = match write.dry_run {
                true => "configuration is what the backup says already: nothing would be changed (dry run)\n",
                false => &format!(
                    "configuration is what the backup says already, unchanged (revision {revision})\n"
                ),
            };
            session.print(&view, || told.to_owned())?;
            return write.wait(session, revision).await;
        }
        let done = format!("restored: {created} created, {updated} updated, {deleted} deleted");
        if write.dry_run {
            return session.print(&view, || would_be(&done, &view));
        }
        write.finish(session, "configuration", &done, revision, &view).await
    }
}
