//! `trestle backup`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use trestle_api::{convert, v1};
use trestle_identity::{PrivateKey, SealedKey};
use trestle_model::Secret;

use super::passphrase::PassphraseArgs;
use super::{authorities, consistency};
use crate::args::{Format, ReadArgs};
use crate::document;
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, cluster};

/// A large configuration takes a while on a slow link.
const TIME: Duration = Duration::from_secs(60);

/// What to save, and where.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// File to write, in JSON; - for standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    /// Also save the key by which the cluster signs certificates, sealed under a passphrase; as an admin, over TLS or an admin socket
    #[arg(long)]
    with_ca_key: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    read: ReadArgs,
}

/// The key of the authority that signs, sealed.
async fn sealed_key(
    session: &mut Session<'_>,
    passphrase: &Secret<String>,
) -> Result<v1::SealedAuthorityKey, Error> {
    // Members that lack it answer so that the next one is asked.
    let make =
        async |channel| authorities(channel).export_authority_key(v1::ExportAuthorityKeyRequest {}).await;
    let answer = session.call(Repeat::Read, make).await?;
    let key = Secret::new(answer.key);
    let key = PrivateKey::from_pem(key.expose()).map_err(|error| Error::Key(error.to_string()))?;
    let sealed = SealedKey::seal(&key, passphrase).map_err(|error| Error::Key(error.to_string()))?;
    let SealedKey { salt, memory_kib, passes, lanes, sealed } = sealed;
    let (generation, certificate) = (answer.generation, answer.certificate);
    Ok(v1::SealedAuthorityKey { generation, certificate, salt, memory_kib, passes, lanes, sealed })
}

/// Replaces a file so that it is the old one or the new one, whole, and only its owner may read it.
fn write(file: &str, text: &str) -> Result<(), Error> {
    let path = Path::new(file);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let replace = || {
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(text.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        Ok(())
    };
    replace().map_err(|cause| Error::File { action: "write", file: file.to_owned(), cause })
}

impl BackupArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        if session.format() == Format::Yaml {
            input.refuse(
                "--output",
                "yaml",
                "must be json: a backup is a JSON document; name its FILE as the argument",
            );
        }
        input.finish()?;
        let passphrase = if self.with_ca_key { Some(self.passphrase.new_one()?) } else { None };
        session.allow(TIME);
        let request = v1::BackupConfigurationRequest { consistency: consistency(&self.read) };
        let make = async |channel| cluster(channel).backup_configuration(request).await;
        let mut stream = session.call(Repeat::Read, make).await?;
        let (mut whole, mut read) = (v1::Configuration::default(), None);
        let advice = "nothing was saved; repeat the command";
        while let Some(message) = session.next(&mut stream, TIME, advice).await? {
            read = message.read.or(read);
            convert::merge_configuration(&mut whole, message.part.unwrap_or_default());
        }
        let Some(read) = read else {
            return Err(Error::BadAnswer("the backup says nothing of its revision".to_owned()));
        };
        if let Some(passphrase) = passphrase {
            whole.authority_key = Some(sealed_key(session, &passphrase).await?);
        }
        let text = document::to_json(&whole)?;
        if self.file == "-" {
            session.terminal.data(&text)?;
        } else {
            write(&self.file, &text)?;
        }
        session.note_freshness(Some(&read));
        let v1::Configuration { pools, backends, listeners, vips, authority_key, .. } = whole;
        let key = authority_key.map(|key| format!("; the sealed key of authority {} is", key.generation));
        session.terminal.note(format_args!(
            "saved revision {} (pools: {}, backends: {}, listeners: {}, vips: {}); members are no part of it{}",
            read.revision,
            pools.len(),
            backends.len(),
            listeners.len(),
            vips.len(),
            key.unwrap_or_default()
        ));
        Ok(())
    }
}
