//! How the leader replaces the authority that signs, step by step, while the cluster serves. Each step is in the log or on a disk before the
//! next one begins, so that whoever leads goes on where the last one stopped: the key is in a file, the log has the certificate, the
//! voters have the key, all members believe it, it signs, and all members show a certificate of it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tonic::Status;
use trestle_api::peer;
use trestle_api::peer::forward_response::Message;
use trestle_api::status::{self, Failure};
use trestle_api::v1::rotate_authority_response::Step;
use trestle_consensus::{AppliedProposal, DEFAULT_WAIT};
use trestle_identity::CertificateAuthority;
use trestle_model::{Authority, ClusterState, Command, CrossCertificate, Proposal, Revision};

use super::{Admin, internal};
use crate::access::Caller;

/// How long members that answer may take for a step. A member that lags gets what it lacks within a second or two; one that has
/// no certificate yet tries again after at most a minute, and at once when the authority changes.
const STEP_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at the members.
const LOOK: Duration = Duration::from_millis(100);

/// The members as they answer.
struct Seen {
    /// Those of which it was verified.
    done: Vec<String>,
    /// Those that answer, and of which it is not so yet.
    lacking: Vec<String>,
    /// Those that do not answer.
    silent: Vec<peer::UnansweringMember>,
}

fn refused(why: impl Into<String>) -> Status {
    status::failure(&Failure::Authority(why.into()))
}

/// The authority that signed before the present one, while it is believed.
fn former(state: &ClusterState) -> Option<&Authority> {
    let active = state.active_authority()?.generation;
    let mut before = state.believed_authorities().filter(|one| one.generation < active);
    before.next()
}

/// Told to whoever waits, as far as anybody does.
fn tell(steps: &mpsc::Sender<peer::AuthorityStep>, step: Step, generation: u32, seen: Seen) {
    let told = peer::AuthorityStep {
        step: step.into(),
        generation,
        members: seen.done,
        unanswering: seen.silent,
        former_generation: 0,
    };
    // A caller that has gone away misses it; the rotation goes on.
    let _ = steps.try_send(told);
}

impl Admin {
    fn newest_state(&self) -> std::sync::Arc<ClusterState> {
        self.local.consensus.view().borrow().state.clone()
    }

    /// Asks all members.
    async fn seen(&self, is_done: &(dyn Fn(&peer::MemberReport) -> bool + Sync)) -> Seen {
        let known = self.local.known();
        let answers = join_all(known.iter().map(|member| self.identity_report(member))).await;
        let mut seen = Seen { done: Vec::new(), lacking: Vec::new(), silent: Vec::new() };
        for (member, answer) in known.iter().zip(answers) {
            let name = member.spec.name.to_string();
            match answer {
                Ok(report) if is_done(&report) => seen.done.push(name),
                Ok(_) => seen.lacking.push(name),
                Err(status) => {
                    let error = status.message().to_owned();
                    seen.silent.push(peer::UnansweringMember { name, error });
                }
            }
        }
        seen
    }

    /// Waits until something is so of each member that answers.
    async fn until(
        &self,
        what: &str,
        is_done: &(dyn Fn(&peer::MemberReport) -> bool + Sync),
    ) -> Result<Seen, Status> {
        let begun = Instant::now();
        loop {
            let seen = self.seen(is_done).await;
            if seen.lacking.is_empty() && !seen.done.is_empty() {
                return Ok(seen);
            }
            if begun.elapsed() >= STEP_MAX {
                return Err(refused(format!(
                    "{} {what} within {} s, though it answers; \"trestle status\" says what is wrong there. Nothing is lost: the \
                     cluster goes on, and \"trestle ca rotate\" goes on from here",
                    seen.lacking.join(", "),
                    STEP_MAX.as_secs()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn write_authority(&self, caller: &Caller, command: Command) -> Result<AppliedProposal, Status> {
        let proposal = Proposal { request: None, origin: Some(self.origin(caller)), command };
        Ok(self.local.consensus.propose_here(proposal, DEFAULT_WAIT).await?)
    }

    /// Replaces the authority that signs; this member leads.
    pub(super) async fn rotate_here(
        &self,
        caller: &Caller,
        rotate: peer::RotateAuthority,
        steps: mpsc::Sender<peer::AuthorityStep>,
    ) -> Result<Message, Status> {
        let state = self.local.consensus.read(DEFAULT_WAIT).await?.state.clone();
        state.check_level(&Command::ActivateAuthority(0)).map_err(|refusal| status::refusal(&refusal))?;
        let active = state.active_authority();
        // One that has begun goes on where it is.
        let generation = match (state.coming_authority(), former(&state), active) {
            (Some(coming), _, _) => coming.generation,
            (None, Some(_), Some(active)) => active.generation,
            (None, _, _) => {
                let made = self.make_authority(caller, &state, active, rotate.without_former_key).await?;
                let own = Seen {
                    done: vec![self.local.config.name.to_string()],
                    lacking: Vec::new(),
                    silent: Vec::new(),
                };
                tell(&steps, Step::Made, made, own);
                made
            }
        };
        if self.newest_state().active_authority().map(|active| active.generation) != Some(generation) {
            self.activate(caller, generation, &steps).await?;
        }
        let certified = |report: &peer::MemberReport| report.certificate_authority == generation;
        let what = format!("has no certificate of authority {generation}");
        let seen = self.until(&what, &certified).await?;
        let (members, unanswering) = (seen.done.clone(), seen.silent.clone());
        tell(&steps, Step::Certified, generation, seen);
        let former_generation = former(&self.newest_state()).map_or(0, |former| former.generation);
        Ok(Message::AuthorityStep(peer::AuthorityStep {
            step: Step::Done.into(),
            generation,
            members,
            unanswering,
            former_generation,
        }))
    }

    /// Makes the next authority, with its key in a file of this member.
    async fn make_authority(
        &self,
        caller: &Caller,
        state: &ClusterState,
        active: Option<&Authority>,
        without_former_key: bool,
    ) -> Result<u32, Status> {
        let (Some(cluster), Some(maker)) = (&state.cluster_id, self.local.id()) else {
            return Err(status::failure(&Failure::NoCluster));
        };
        let generation = next_generation(state);
        let former = match active {
            Some(active) => self.former_key(state, active, without_former_key).await?,
            // A cluster that was founded by a version without authorities gets its first one.
            None => None,
        };
        let made = self.signer.keys.make(cluster, generation).map_err(|why| internal(&why))?;
        let cross = former.map(|former| former.cross_sign(&made, generation)).transpose();
        let cross = cross.map_err(|error| internal(&error.to_string()))?;
        let add = Command::AddAuthority {
            generation,
            certificate: made.certificate().into(),
            cross: cross.zip(active).map(|(certificate, active)| CrossCertificate {
                signer: active.generation,
                certificate: certificate.into(),
            }),
            maker: Some(maker),
        };
        self.write_authority(caller, add).await?;
        tracing::info!(generation, "the cluster has a new authority, which signs nothing yet");
        Ok(generation)
    }

    /// The authority that signs, with its key, so that it signs for the next one; `None` where that is to be done without.
    async fn former_key(
        &self,
        state: &ClusterState,
        active: &Authority,
        without: bool,
    ) -> Result<Option<CertificateAuthority>, Status> {
        let generation = active.generation;
        match active.external {
            true if without => return Ok(None),
            true => return Err(refused(external_signs(generation))),
            false => {}
        }
        match self.joins.key(state, active).await {
            Ok(_) => self.signer.keys.authority(state, generation).map_err(|why| internal(&why)),
            Err(_) if without => Ok(None),
            Err(status) => Err(refused(without_key(generation, status.message()))),
        }
    }

    /// Makes a coming authority the one that signs, once the voters that answer have its key and the members that answer believe it.
    async fn activate(
        &self,
        caller: &Caller,
        generation: u32,
        steps: &mpsc::Sender<peer::AuthorityStep>,
    ) -> Result<(), Status> {
        let handed = self.joins.hand_over_to_voters().await;
        let state = self.newest_state();
        if state.coming_authority().is_some_and(|coming| coming.external) {
            return self.activate_external(caller, generation, steps).await;
        }
        if !self.signer.keys.has(&state, generation) {
            let why = handed.err().map(|status| status.message().to_owned()).unwrap_or_default();
            return Err(refused(format!(
                "authority {generation} cannot become the one that signs, because the leader does not have its key: {why}; wait for \
                 a member that has it (\"trestle ca list\"), or drop it with \"trestle ca retire {generation}\" and begin anew"
            )));
        }
        let voters = self.local.consensus.view().borrow().voters.clone();
        let has_key = |report: &peer::MemberReport| {
            let id = state.members.values().find(|member| member.spec.name.as_str() == report.name);
            let needs =
                id.is_some_and(|member| voters.contains(&member.id) && self.joins.speaks_tls(member.id));
            !needs || report.authority_keys.contains(&generation)
        };
        let mut seen =
            self.until(&format!("did not get the key of authority {generation}"), &has_key).await?;
        seen.done.retain(|name| {
            state
                .members
                .values()
                .any(|member| member.spec.name.as_str() == name && voters.contains(&member.id))
        });
        tell(steps, Step::HandedOver, generation, seen);
        let seen = self.until_believed().await?;
        tell(steps, Step::Believed, generation, seen);
        self.sign_from_now(caller, generation, steps).await
    }

    /// Waits until each member that answers has the state as it is now, and so believes each authority that is in it.
    async fn until_believed(&self) -> Result<Seen, Status> {
        let revision: Revision = self.newest_state().revision;
        let believes = |report: &peer::MemberReport| report.revision >= revision;
        self.until(&format!("does not have revision {revision} of the state"), &believes).await
    }

    async fn sign_from_now(
        &self,
        caller: &Caller,
        generation: u32,
        steps: &mpsc::Sender<peer::AuthorityStep>,
    ) -> Result<(), Status> {
        self.write_authority(caller, Command::ActivateAuthority(generation)).await?;
        tracing::info!(generation, "the new authority signs");
        let signs = Seen { done: Vec::new(), lacking: Vec::new(), silent: Vec::new() };
        tell(steps, Step::Active, generation, signs);
        Ok(())
    }

    /// Makes a coming authority the one that counts whose key is somebody else's, once each member that answers shows a certificate of it.
    async fn activate_external(
        &self,
        caller: &Caller,
        generation: u32,
        steps: &mpsc::Sender<peer::AuthorityStep>,
    ) -> Result<(), Status> {
        let seen = self.until_believed().await?;
        tell(steps, Step::Believed, generation, seen);
        let seen = self.seen(&|report| report.certificate_authority == generation).await;
        if !seen.lacking.is_empty() {
            return Err(refused(format!(
                "authority {generation} is believed, and becomes the active one when each member that answers shows a certificate which it \
                 has signed, as {} does not yet: on each of these machines have what \"trestle certificate request\" prints signed, put it \
                 in place with \"trestle certificate install FILE\", and then repeat \"trestle ca rotate\"",
                seen.lacking.join(", ")
            )));
        }
        self.sign_from_now(caller, generation, steps).await
    }

    /// Has an authority believed that signs nothing yet: of that certificate, whose key is somebody else's, or without one with a key of
    /// the cluster's own. This member leads. An external one that was added before is waited for again.
    pub(super) async fn add_authority_here(
        &self,
        caller: &Caller,
        certificate: &[u8],
    ) -> Result<Message, Status> {
        let state = self.local.consensus.read(DEFAULT_WAIT).await?.state.clone();
        let known =
            state.believed_authorities().find(|known| known.external && *known.certificate == *certificate);
        let generation = match known {
            Some(known) => known.generation,
            None if certificate.is_empty() => {
                let active = state.active_authority();
                let without = active.is_some_and(|active| active.external);
                self.make_authority(caller, &state, active, without).await?
            }
            None => {
                let generation = next_generation(&state);
                let certificate = certificate.into();
                let add = Command::AddAuthority { generation, certificate, cross: None, maker: None };
                self.write_authority(caller, add).await?;
                tracing::info!(generation, "an external authority is believed");
                generation
            }
        };
        let Seen { done: members, silent: unanswering, .. } = self.until_believed().await?;
        Ok(Message::AuthorityAdded(peer::AuthorityAdded { generation, members, unanswering }))
    }

    /// Ends that an authority is believed; this member leads.
    pub(super) async fn retire_here(
        &self,
        caller: &Caller,
        retire: peer::RetireAuthority,
    ) -> Result<Message, Status> {
        let generation = retire.generation;
        let command = Command::RetireAuthority(generation);
        let view = self.local.consensus.read(DEFAULT_WAIT).await?;
        let decided = view.state.decide(view.applied + 1, &command);
        decided.map_err(|refusal| status::refusal(&refusal))?;
        let without = |report: &peer::MemberReport| report.certificate_authority != generation;
        let seen = self.seen(&without).await;
        let shown = seen.lacking.iter().map(|name| format!("{name} shows a certificate that it has signed"));
        let silent = seen.silent.iter().map(|member| {
            format!("{} does not answer ({}), so it is not known what it shows", member.name, member.error)
        });
        let warnings: Vec<String> = shown.chain(silent).collect();
        if !warnings.is_empty() && !retire.despite_members {
            return Err(refused(format!(
                "authority {generation} is not retired: {}; nothing was changed (\"--yes\" retires it all the same: members of the \
                 cluster are known by their keys, and get a new certificate when they are back)",
                warnings.join("; ")
            )));
        }
        let applied = self.write_authority(caller, command).await?;
        tracing::info!(generation, "an authority is believed no more");
        Ok(Message::AuthorityRetired(peer::AuthorityRetired { revision: applied.revision, warnings }))
    }
}

/// The number of the next authority.
fn next_generation(state: &ClusterState) -> u32 {
    state.authorities.keys().next_back().map_or(Authority::FIRST, |newest| newest + 1)
}

/// What to do where somebody else signs.
fn external_signs(generation: u32) -> String {
    format!(
        "authority {generation} is external, and no member has its key: \"trestle ca add FILE\" has the next external one believed, which \
         \"trestle ca rotate\" then makes the active one. \"trestle ca add --own\" does the same with one whose key members have: users \
         that call before it is active learn of it, and others need a new context then; \"trestle ca rotate --yes\" does not wait for them. \
         Nothing was changed"
    )
}

/// What to do where nobody has the key of the authority that signs.
fn without_key(generation: u32, why: &str) -> String {
    format!(
        "the key of authority {generation} is needed, by which it signs for the new one, so that contexts of users and tokens of before go \
         on to work ({why}); \"trestle restore --ca-key-only FILE\" puts it back from a backup. \"trestle ca rotate --yes\" goes on \
         without: members know one another by their keys and serve on, but each user needs a new context then, which \"trestle user \
         rotate NAME\" makes over the admin socket of a member. Nothing was changed"
    )
}
