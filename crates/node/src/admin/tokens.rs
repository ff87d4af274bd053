//! Tokens by which machines join the cluster.

use tonic::{Request, Response, Status};
use trestle_api::convert::{self, Wanted, Write};
use trestle_api::status::{self, Failure};
use trestle_api::v1;
use trestle_api::v1::token_service_server::TokenService;
use trestle_identity::{CertificateFacts, TOKEN_ENDPOINTS_MAX, TokenText};
use trestle_model::{
    ClusterState, Command, HostPort, JoinTokenSpec, KeyPin, Kind, Refusal, Secret, TokenId, TransportSecurity,
};

use super::{Admin, internal};
use crate::access::{self, Action, Caller, Target, TargetKind};

fn random<const N: usize>() -> Result<[u8; N], Status> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| internal(&format!("no random bytes: {error}")))?;
    Ok(bytes)
}

/// The generation of the authority by whose key a machine that joins knows this cluster, and that key.
fn authority(state: &ClusterState) -> Result<(u32, KeyPin), Status> {
    let active = state.active_authority().ok_or_else(|| status::failure(&Failure::NoAuthority))?;
    let facts =
        CertificateFacts::read(&active.certificate).map_err(|refusal| internal(&refusal.to_string()))?;
    if state.transport == TransportSecurity::Off {
        return Err(status::failure(&Failure::PlainOnly));
    }
    Ok((active.generation, facts.pin))
}

impl Admin {
    /// Where a machine that joins calls first: this member, and others, which need not be up.
    fn token_endpoints(&self, state: &ClusterState) -> Vec<HostPort> {
        let own = self.local.config.advertise_peer_address.clone();
        let others = state.members.values().map(|member| member.spec.peer_address.clone());
        let others = others.filter(|address| *address != own);
        std::iter::once(own.clone()).chain(others).take(TOKEN_ENDPOINTS_MAX).collect()
    }
}

#[tonic::async_trait]
impl TokenService for Admin {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let wanted = convert::create_token(&request).map_err(|found| status::invalid(&found))?;
        access::authorize(&caller, Action::Create, &Target::all(TargetKind::Token))?;
        let read = self.read_newest().await?;
        let (generation, authority) = authority(read.state())?;
        let text = TokenText {
            id: TokenId(random()?),
            secret: Secret::new(random()?),
            authority,
            endpoints: self.token_endpoints(read.state()),
        };
        let time_ms = self.local.trust.now_ms();
        let life = u64::try_from(wanted.lifetime.as_millis()).unwrap_or(u64::MAX);
        let token = JoinTokenSpec {
            id: text.id,
            secret_hash: text.secret_hash(),
            joins_as: wanted.joins_as,
            uses: wanted.uses,
            not_after_ms: time_ms.saturating_add(life),
            authority: generation,
        };
        let command = Command::PutToken { token, time_ms };
        let write = Write { request: None, validate_only: false, wanted: Wanted::Command(command) };
        Box::pin(self.write(&caller, Ok(write))).await?;
        let read = self.read_newest().await?;
        let missing = || status::refusal(&Refusal::NotFound { kind: Kind::Token, name: text.id.to_string() });
        // Somebody was quicker.
        let made = read.state().tokens.get(&text.id).ok_or_else(missing)?;
        Ok(Response::new(v1::CreateTokenResponse {
            token: Some(convert::token(made)),
            text: text.to_text().expose().clone(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let read = self.read(&caller, &Target::all(TargetKind::Token), request.consistency).await?;
        let tokens = read.state().tokens.values().map(|token| convert::token(token)).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, read: Some(read.info) }))
    }

    async fn delete_token(
        &self,
        request: Request<v1::DeleteTokenRequest>,
    ) -> Result<Response<v1::DeleteTokenResponse>, Status> {
        let (caller, request) = Caller::take(request)?;
        let accepted = Box::pin(self.write(&caller, convert::delete_token(&request))).await?;
        Ok(Response::new(v1::DeleteTokenResponse { revision: accepted.revision }))
    }
}
