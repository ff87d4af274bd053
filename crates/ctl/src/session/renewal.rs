//! Renewing the certificate of the context that a command has called with, once two thirds of its life are over. The command is done by
//! then: what goes wrong here is told and changes nothing for it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, access};
use trestle_api::v1;
use trestle_api::v1::user_service_client::UserServiceClient;
use trestle_identity::{CertificateFacts, CertificateRequest, PrivateKey, lock_directory, time_text};
use trestle_model::defaults::{CERTIFICATE_BACKDATED, CERTIFICATE_WARNED};
use trestle_model::{Invalid, Violation};

use super::{Repeat, Session};
use crate::context::{Context, Contexts, UsedContext, directory};
use crate::error::Error;

/// Pause after a renewal that failed.
const AGAIN: Duration = Duration::from_secs(6 * 3600);
/// How long one may take: somebody waits for the prompt.
const RENEWAL_MAX: Duration = Duration::from_secs(3);

/// Whether two thirds of a certificate's life are over.
fn is_due(facts: &CertificateFacts, now: SystemTime) -> bool {
    let whole = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
    let left = facts.not_after.duration_since(now).unwrap_or_default();
    left <= whole.saturating_sub(CERTIFICATE_BACKDATED) / 3
}

fn is_due_by(context: &Context, name: &str, now: SystemTime) -> bool {
    let facts = context.identity(name).ok().and_then(|identity| identity.facts());
    facts.is_some_and(|facts| is_due(&facts, now))
}

/// Whether a renewal failed so lately that it is not tried yet.
fn failed_lately(context: &Context, now: SystemTime) -> bool {
    let failed = context.renewal_failed.as_ref().and_then(|time| humantime::parse_rfc3339(time).ok());
    // One from times to come was written by a clock that was wrong.
    failed.is_some_and(|failed| now.duration_since(failed).is_ok_and(|since| since < AGAIN))
}

impl Session<'_> {
    /// Renews the certificate of the context by which a member was called and has answered, if it is time.
    pub(crate) async fn renew_certificate(&mut self) {
        let Some(used) = self.connected.as_ref().and(self.context.clone()) else { return };
        let now = SystemTime::now();
        let Some(facts) = used.context.identity(&used.name).ok().and_then(|identity| identity.facts()) else {
            return;
        };
        if !is_due(&facts, now) || failed_lately(&used.context, now) {
            return;
        }
        // Where it cannot be noted that this was told, it would be at each command, for months.
        let left = facts.not_after.duration_since(now).unwrap_or_default();
        if is_writable(&used.file).is_err() && left > CERTIFICATE_WARNED {
            return;
        }
        if let Err(error) = renewed(self, &used, now).await {
            let (name, end) = (&used.name, time_text(facts.not_after));
            self.terminal.note(format_args!(
                "warning: the certificate of context {name} ends at {end} and was not renewed: {}",
                error.to_string().trim_end()
            ));
        }
    }
}

/// What is to be done where the cluster does not sign.
fn signed_outside(name: &str) -> Error {
    let rule = "has its certificate from outside of the cluster: have what \"trestle context request\" prints for it signed, and put it \
                in with \"trestle context install\"";
    Invalid(vec![Violation::new("context", name, rule)]).into()
}

fn is_writable(file: &Path) -> rustix::io::Result<()> {
    access(directory(file), Access::WRITE_OK).and_then(|()| access(file, Access::WRITE_OK))
}

async fn renewed(session: &mut Session<'_>, used: &UsedContext, now: SystemTime) -> Result<(), Error> {
    let UsedContext { file, name, context, .. } = used;
    let cannot =
        |action, cause: std::io::Error| Error::File { action, file: file.display().to_string(), cause };
    // Nothing is signed that could not be kept.
    is_writable(file).map_err(|errno| cannot("write", errno.into()))?;
    let lock = lock_directory(directory(file), false).map_err(|cause| cannot("lock", cause))?;
    // Another process is at it, or was quicker.
    let Some(_lock) = lock else { return Ok(()) };
    let mut contexts = Contexts::read(file)?;
    if contexts.contexts.get(name) != Some(context) {
        return Ok(());
    }
    let signed = match &context.signed_for {
        Some(_) => Err(signed_outside(name)),
        None => signed(session, context, name).await,
    };
    let kept = match &signed {
        // By this machine's clock it is as old as the one before: the clocks differ.
        Ok(new) if is_due_by(new, name, now) => {
            Context { renewal_failed: Some(time_text(now)), ..new.clone() }
        }
        Ok(new) => new.clone(),
        Err(_) => Context { renewal_failed: Some(time_text(now)), ..context.clone() },
    };
    contexts.contexts.insert(name.clone(), kept);
    contexts.write(file)?;
    signed.map(|_| ())
}

/// The context with a new certificate, and with the authorities that are believed by now.
async fn signed(session: &mut Session<'_>, context: &Context, name: &str) -> Result<Context, Error> {
    let key = PrivateKey::from_pem(context.key.expose()).map_err(|error| Error::Key(error.to_string()))?;
    let request = CertificateRequest::make(&key).map_err(|error| Error::Key(error.to_string()))?;
    let request = v1::RenewUserCertificateRequest { certificate_request: request };
    session.timeout = session.timeout.min(RENEWAL_MAX);
    let make = async |channel| UserServiceClient::new(channel).renew_user_certificate(request.clone()).await;
    let answer = session.call(Repeat::Read, make).await?;
    let new = Context {
        certificate: answer.certificate,
        ca: answer.authorities,
        renewal_failed: None,
        ..context.clone()
    };
    new.identity(name)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn facts(begin: SystemTime, end: SystemTime) -> CertificateFacts {
        CertificateFacts {
            pin: trestle_model::KeyPin([0; 32]),
            not_before: begin - CERTIFICATE_BACKDATED,
            not_after: end,
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            issuer: String::new(),
        }
    }

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life() {
        let begin = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let year = facts(begin, begin + 366 * DAY);
        assert!(!is_due(&year, begin) && !is_due(&year, begin + 243 * DAY));
        assert!(is_due(&year, begin + 244 * DAY) && is_due(&year, begin + 400 * DAY));
        // One that is valid for longer before it was made than after.
        let minute = facts(begin, begin + Duration::from_secs(60));
        assert!(!is_due(&minute, begin + Duration::from_secs(39)));
        assert!(is_due(&minute, begin + Duration::from_secs(40)));
    }
}
