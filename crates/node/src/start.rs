//! A running member: what is started in which order, and stopped in which.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use trestle_consensus::{Consensus, ConsensusSettings, Timing};
use trestle_dataplane::{AccessLog, DataPlane, OnEvent};
use trestle_model::TransportSecurity;

use crate::assemble::{MemberParts, Servers};
use crate::config::{Config, Profile};
use crate::events::{self, Event, Journal};
use crate::founding::{self, Founding};
use crate::identities::{ClusterTrust, OwnLeaf};
use crate::local_socket::LocalSocket;
use crate::metrics::DroppedLines;
use crate::own_sockets::OwnSockets;
use crate::start_error::StartError;
use crate::supervise::Supervisor;
use crate::this_member::ThisMember;
use crate::vips::{self, Transfers, Vips};
use crate::{descriptors, process};

/// How often the data plane compares sockets and checks with what they should be.
const DRIFT_INTERVAL: Duration = Duration::from_secs(5);

/// How long closing the log may take at the end. The whole stop stays within `shutdown_grace` and 5 s: a second for
/// connections that are cut, and this.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// How long a member that has failed tries to release the virtual IPs; the kernel ends them by their lease anyway.
const RELEASE_MAX: Duration = Duration::from_secs(3);
/// How long it waits for Raft's threads.
const RAFT_END_MAX: Duration = Duration::from_secs(3);
/// How much longer than the grace time its connections may take to end.
const FINISH_SPARE: Duration = Duration::from_secs(3);

/// A running member.
pub struct Node {
    local: ThisMember,
    plane: Arc<DataPlane>,
    supervisor: Supervisor,
    transfers: Transfers,
    servers: Servers,
}

fn timing(profile: Profile) -> Timing {
    match profile {
        Profile::Default => Timing::default(),
        Profile::Fast => Timing::fast(),
        Profile::Wide => Timing::wide(),
    }
}

/// What a member's part in the cluster is made with.
pub(crate) fn consensus_settings(
    config: &Config,
    start: u64,
    vips: &Vips,
    trust: &ClusterTrust,
) -> ConsensusSettings {
    ConsensusSettings {
        data_dir: config.data_dir.clone(),
        name: config.name.clone(),
        peer_address: config.advertise_peer_address.clone(),
        start,
        timing: timing(config.profile),
        feature_level_max: config.feature_level_max,
        vote_guard: vips.vote_guard(),
        dial: Arc::new(trust.clone()),
    }
}

impl Node {
    /// Starts a member on the current runtime, which becomes that of its API.
    ///
    /// # Errors
    /// [`StartError`] when an address is taken, the data directory cannot be opened, or threads cannot be made.
    pub async fn start(config: Config, log_lines_dropped: DroppedLines) -> Result<Self, StartError> {
        let own = OwnSockets::bind(&config).await?;
        let vips = Arc::new(Vips::new(&config));
        let start = process::draw_start()?;
        let leaf = OwnLeaf::default();
        let trust = ClusterTrust::new(&config, leaf.watch());
        let consensus = Consensus::open(consensus_settings(&config, start, &vips, &trust)).await?;
        refuse_exposed(&config, consensus.transport_on_disk())?;
        trust.follow(&consensus);
        leaf.take_kept(&config);
        // In a data directory that is this process's own by now.
        let local_socket = LocalSocket::bind(&config.admin_socket)?;
        let (state, follow) = watch::channel(consensus.view().borrow().state.clone());
        let journal = Journal::new(config.name.clone(), start, config.members_in_process.get() > 1);
        let plane = Arc::new(DataPlane::start(plane_settings(&config, &journal), follow)?);
        let founding = Founding::new(config.founding.clone()).into();
        let local = ThisMember {
            config: Arc::new(config),
            consensus,
            trust,
            founding,
            arrivals: Arc::default(),
            start,
        };
        log_start(&local);
        let parts = MemberParts::new(local, leaf, plane, vips, journal);
        // Before Raft, so that no vote is given that nobody was asked about.
        vips::start(&parts.succession, &parts.plane, &parts.journal, &parts.supervisor, &parts.whole())?;
        events::follow(&parts.local, &parts.journal, &parts.supervisor);
        let servers = parts.serve(own, local_socket, state, log_lines_dropped)?;
        let consensus = &parts.local.consensus;
        if consensus.was_removed() {
            // It stays up to say so: its status, its readiness, and every answer of its API. It may be added again.
            warn!("{}", trestle_api::status::Failure::Removed);
        } else if consensus.identity().is_some() {
            let interrupted = founding::was_interrupted(&parts.local);
            consensus.start().await.map_err(|error| StartError::Raft(error.to_string()))?;
            if interrupted {
                parts.come_in(&servers.stop);
            }
        } else {
            parts.come_in(&servers.stop);
        }
        let transfers = Transfers::new(parts.succession.clone());
        let MemberParts { local, plane, supervisor, .. } = parts;
        Ok(Self { local, plane, supervisor, transfers, servers })
    }

    /// Resolves when Raft, its storage, or another part that there is one of has died and the process must end, with the
    /// reason. [`Self::give_up`] then.
    pub async fn failed(&self) -> String {
        tokio::select! {
            failure = self.local.consensus.failed() => failure,
            failure = self.supervisor.failed() => failure,
            failure = self.plane.failed() => failure,
        }
    }

    /// Ends a member that has [failed](Self::failed): lets go of the virtual IPs and of leadership at once, takes no new
    /// connections, and lets those that are open finish for the grace time. Returns how many were cut, or `None` when
    /// connections could not be ended in order.
    pub async fn give_up(self) -> Option<usize> {
        self.servers.leaving.cancel();
        self.supervisor.stopping();
        // What has failed may not answer.
        if timeout(RELEASE_MAX, self.transfers.end_vips()).await.is_err() {
            warn!("the virtual IPs were not released in time; they fall silent with their lease");
        }
        self.plane.stop_accepting();
        self.servers.stop.cancel();
        // The others elect a leader meanwhile.
        let _ = timeout(RAFT_END_MAX, self.local.consensus.shutdown()).await;
        let grace = self.local.config.shutdown_grace;
        timeout(grace + FINISH_SPARE, self.plane.finish(grace)).await.ok()
    }

    /// Opens the access log's file anew, so that another program can have renamed it.
    pub fn reopen_logs(&self) {
        self.plane.reopen_access_log();
    }

    /// Stops: hands leadership over, fails readiness, stops accepting, lets connections finish for the grace time.
    /// Returns how many connections were cut.
    ///
    /// Handing over counts into the grace time: service managers kill what takes longer than they were told.
    pub async fn shutdown(self) -> usize {
        let end = Instant::now() + self.local.config.shutdown_grace;
        // Readiness fails first, so that whoever sends clients here stops in time.
        self.servers.leaving.cancel();
        self.supervisor.stopping();
        self.transfers.leave().await;
        self.finish(end).await
    }

    /// Stops as [`shutdown`](Self::shutdown) does, but hands nothing over: for the end of a whole cluster.
    pub async fn stop(self) -> usize {
        let end = Instant::now() + self.local.config.shutdown_grace;
        self.servers.leaving.cancel();
        self.supervisor.stopping();
        self.finish(end).await
    }

    /// Lets connections finish until `end`, then closes everything.
    async fn finish(self, end: Instant) -> usize {
        // Nobody may be sent here any more when the sockets close.
        self.transfers.end_vips().await;
        self.plane.stop_accepting();
        // Until its connections have finished this member goes on voting, and goes on hearing of drains and removals.
        let cut = self.plane.finish(end.saturating_duration_since(Instant::now())).await;
        self.servers.stop.cancel();
        if tokio::time::timeout(CLOSE_WAIT, self.local.consensus.shutdown()).await.is_err() {
            warn!("the log's files are not closed after {CLOSE_WAIT:?}; the process ends all the same");
        }
        for server in self.servers.tasks {
            server.abort();
        }
        cut
    }
}

fn plane_settings(config: &Config, journal: &Journal) -> trestle_dataplane::DataPlaneSettings {
    let journal = journal.clone();
    trestle_dataplane::DataPlaneSettings {
        workers: config.workers,
        data_address: config.data_address,
        drift_interval: DRIFT_INTERVAL,
        check_directory: config.check_directory.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        hosts: "/etc/hosts".into(),
        source: config.source.clone(),
        member: Some(config.name.clone()),
        descriptors: descriptors::budget(config.members_in_process),
        network: process::network(),
        own_ports: vec![config.admin_address, config.peer_address, config.http_address],
        backend_networks: config.backend_networks.clone(),
        on_event: OnEvent::new(move |event| journal.emit(&Event::DataPlane(event))),
        access_log: config.access_log.map(|format| AccessLog {
            format,
            file: config.access_log_file.clone(),
            member: config.name.clone(),
        }),
    }
}

/// Refuses to serve a cluster without identities to other machines, unless the member's file says that this is wanted.
fn refuse_exposed(config: &Config, transport: Option<TransportSecurity>) -> Result<(), StartError> {
    let ports = config.reachable_ports();
    if config.insecure || transport != Some(TransportSecurity::Off) || ports.is_empty() {
        return Ok(());
    }
    Err(StartError::Exposed { ports })
}

fn log_start(local: &ThisMember) {
    let config = &local.config;
    info!(
        name = %config.name,
        admin = %config.admin_address,
        peers = %config.peer_address,
        http = %config.http_address,
        data = %config.data_dir.display(),
        "starting"
    );
    // Once a cluster requires TLS, its members' files say nothing against that.
    if config.insecure && local.consensus.transport_on_disk() != Some(TransportSecurity::Require) {
        warn!(
            "insecure = true: whoever reaches the admin or peer address rules the cluster; keep others out of this network"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::path::Path;

    use trestle_consensus::OpenError;
    use trestle_model::Violations;

    use super::*;
    use crate::config::{RawConfig, SHUTDOWN_GRACE};

    const UNIT: &str = include_str!("../../../deploy/systemd/trestled.service");
    const COMPOSE: &str = include_str!("../../../deploy/compose.yaml");
    const POD: &str = include_str!("../../../deploy/kubernetes/trestled.yaml");
    const POD_CONFIG: &str = include_str!("../../../deploy/kubernetes/trestled.toml");

    fn value(text: &'static str, key: &str) -> &'static str {
        text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap().trim()
    }

    #[test]
    fn only_damage_is_never_started_again() {
        let path = std::path::PathBuf::from("/x");
        let prevented: Vec<u8> =
            value(UNIT, "RestartPreventExitStatus=").split(' ').map(|code| code.parse().unwrap()).collect();
        let system = |code| OpenError::Io {
            action: "open",
            path: path.clone(),
            source: std::io::Error::from_raw_os_error(code),
        };
        // errno(3): EPERM, EIO, EACCES, ENFILE, EMFILE, ENOSPC, EROFS, EDQUOT, ESTALE.
        for code in [1, 5, 13, 23, 24, 28, 30, 122, 116] {
            assert!(!prevented.contains(&StartError::from(system(code)).exit_code()), "errno {code}");
        }
        assert!(!prevented.contains(&StartError::from(OpenError::Locked(path.clone())).exit_code()));
        let newer = OpenError::NewerFormat { file: path, found: 2, known: 1 };
        assert!(prevented.contains(&StartError::from(newer).exit_code()));
        let older = OpenError::OlderFormat { dir: "/x".into(), found: 1, known: 2 };
        assert!(prevented.contains(&StartError::from(older).exit_code()));
        assert_eq!(value(UNIT, "StartLimitIntervalSec="), "0");
    }

    #[test]
    fn a_cluster_without_identities_is_served_to_other_machines_only_where_that_is_said() {
        let at = |address: &str, more: &str| {
            configured(&format!("name = \"m1\"\nadmin_address = \"{address}:7480\"\n{more}"))
        };
        let open = at("10.0.0.1", "");
        let refused = refuse_exposed(&open, Some(TransportSecurity::Off)).unwrap_err();
        let told = refused.to_string();
        for part in ["admin_address 10.0.0.1:7480", "insecure = true", "trestle cluster secure"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("peer_address"), "{told}");
        assert!(value(UNIT, "RestartPreventExitStatus=").contains(&refused.exit_code().to_string()));
        for known in [None, Some(TransportSecurity::Accept), Some(TransportSecurity::Require)] {
            assert!(refuse_exposed(&open, known).is_ok(), "{known:?}");
        }
        for free in [at("127.0.0.9", ""), at("10.0.0.1", "insecure = true")] {
            assert!(refuse_exposed(&free, Some(TransportSecurity::Off)).is_ok());
        }
    }

    #[test]
    fn the_whole_stop_fits_into_the_shipped_time_outs() {
        let seconds = |text: &str| Duration::from_secs(text.trim_end_matches('s').parse().unwrap());
        for allowed in [
            seconds(value(UNIT, "TimeoutStopSec=")),
            seconds(value(COMPOSE, "stop_grace_period:")),
            seconds(value(POD, "terminationGracePeriodSeconds:")),
        ] {
            // One second for connections that are cut, and one to spare.
            assert!(SHUTDOWN_GRACE + CLOSE_WAIT + Duration::from_secs(2) <= allowed, "{allowed:?}");
        }
    }

    /// The entries of a map that YAML has on one line, `{a: b, c: d}`.
    fn entries(map: &str) -> BTreeMap<&str, &str> {
        let map = map.trim().trim_start_matches('{').trim_end_matches('}');
        map.split(", ").map(|entry| entry.split_once(": ").unwrap()).collect()
    }

    /// What the configuration comes to with this file.
    fn configured(toml: &str) -> Config {
        let mut v = Violations::new();
        let given = RawConfig::from_toml(Path::new("trestled.toml"), toml, &mut v);
        Config::check(&given, v).unwrap()
    }

    #[test]
    fn the_kubelet_probes_the_pod_where_it_answers() {
        let (default, shipped) = (configured("name = \"m1\""), configured(POD_CONFIG));
        let mut probes = BTreeMap::new();
        let lines: Vec<&str> = POD.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let [probe, get] = pair else { continue };
            if let Some(get) = get.strip_prefix("httpGet:") {
                let get = entries(get);
                // Without a host a kubelet asks the pod's address, which in the host's network is the node's.
                let address: SocketAddr = format!("{}:{}", get["host"], get["port"]).parse().unwrap();
                assert_eq!(address, default.http_address, "{probe}");
                assert_eq!(address, shipped.http_address, "{probe}");
                probes.insert(*probe, get["path"]);
            }
        }
        let wanted =
            [("livenessProbe:", "/livez"), ("readinessProbe:", "/readyz"), ("startupProbe:", "/livez")];
        assert_eq!(probes, wanted.into());
        let mounted: Vec<_> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("- {name: "))
            .filter(|line| line.contains("mountPath"))
            .collect();
        for path in [Path::new("/etc/trestle"), &shipped.data_dir] {
            let found = mounted.iter().any(|mount| mount.contains(&format!("mountPath: {}", path.display())));
            assert!(found, "{} is not in {mounted:?}", path.display());
        }
    }
}
