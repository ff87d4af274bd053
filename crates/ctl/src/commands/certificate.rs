//! `trestle certificate`.

use std::time::SystemTime;

use clap::Subcommand;
use serde::Serialize;
use trestle_api::v1;
use trestle_identity::time_text;

use crate::error::Error;
use crate::input::text_of;
use crate::session::{Repeat, Session, members};
use crate::write::warn;

/// What to do with the certificate of this machine's member.
#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Print what the authority is to sign, a PKCS #10 request in PEM; over the admin socket only
    Request,
    /// Put the certificate in place that the authority has signed; over the admin socket only
    Install {
        /// The certificate in PEM, and behind it those between it and the authority; - for standard input
        #[arg(value_name = "FILE")]
        file: String,
    },
}

/// A request, as it is shown.
#[derive(Debug, Serialize)]
struct RequestView {
    certificate_request: String,
}

/// A certificate that is in place.
#[derive(Debug, Serialize)]
struct InstalledView {
    generation: u32,
    expire_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl CertificateCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        // The member that is called is the one that is meant.
        session.first_endpoint_only();
        match self {
            Self::Request => request(session).await,
            Self::Install { file } => install(session, &text_of(&file)?).await,
        }
    }
}

async fn request(session: &mut Session<'_>) -> Result<(), Error> {
    let make = async |channel| {
        members(channel).request_member_certificate(v1::RequestMemberCertificateRequest {}).await
    };
    let answer = session.call(Repeat::Read, make).await?;
    let view = RequestView { certificate_request: answer.certificate_request };
    session.print(&view, || view.certificate_request.clone())
}

async fn install(session: &mut Session<'_>, certificate: &str) -> Result<(), Error> {
    let request = v1::InstallMemberCertificateRequest { certificate: certificate.to_owned() };
    let make = async |channel| members(channel).install_member_certificate(request.clone()).await;
    // Putting the same certificate in place again changes nothing.
    let answer = session.call(Repeat::Read, make).await?;
    warn(session, &answer.warnings);
    let end = answer.expire_time.and_then(|time| SystemTime::try_from(time).ok()).map(time_text);
    let view = InstalledView { generation: answer.generation, expire_time: end, warnings: answer.warnings };
    session.print(&view, || {
        let end = view.expire_time.clone().unwrap_or_default();
        format!("the certificate is in place, by authority {}, until {end}\n", view.generation)
    })
}
