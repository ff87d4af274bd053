//! Settings of a data plane that does nothing by itself.

use std::num::NonZeroUsize;
use std::time::Duration;

use trestle_dataplane::{DataPlaneSettings, OnEvent, Sources};

/// One worker, and nothing that is told, logged or limited.
pub(crate) fn plain_settings() -> DataPlaneSettings {
    DataPlaneSettings {
        workers: NonZeroUsize::MIN,
        data_address: None,
        drift_interval: Duration::from_secs(5),
        check_directory: "/".into(),
        resolv_conf: "/etc/resolv.conf".into(),
        hosts: "/etc/hosts".into(),
        source: Sources::default(),
        descriptors: None,
        network: 0,
        own_ports: Vec::new(),
        on_event: OnEvent::nobody(),
        backend_networks: Vec::new(),
        access_log: None,
        member: None,
    }
}
