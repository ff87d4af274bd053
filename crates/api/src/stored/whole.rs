//! A whole configuration, as one entry or many take it.

use trestle_model::{
    BackendName, BackendSpec, Configuration, ListenerName, ListenerSpec, PoolName, PoolSpec, VipName, VipSpec,
};

use super::command::{backend_name, listener_name, pool_name};
use super::vip::vip_name;
use super::{DecodeError, required};
use crate::storage;

pub(super) fn create_pool(name: &PoolName, spec: &PoolSpec) -> storage::CreatePool {
    storage::CreatePool { name: name.to_string(), spec: Some(spec.into()) }
}

pub(super) fn create_backend(
    pool: &PoolName,
    name: &BackendName,
    spec: &BackendSpec,
) -> storage::CreateBackend {
    storage::CreateBackend { pool: pool.to_string(), name: name.to_string(), spec: Some(spec.into()) }
}

pub(super) fn create_listener(name: &ListenerName, spec: &ListenerSpec) -> storage::CreateListener {
    storage::CreateListener { name: name.to_string(), spec: Some(spec.into()) }
}

pub(super) fn create_vip(name: &VipName, spec: &VipSpec) -> storage::CreateVip {
    storage::CreateVip { name: name.to_string(), spec: Some(spec.into()) }
}

pub(super) fn piece(upload: u64, number: u32, bytes: &[u8]) -> storage::StagePiece {
    storage::StagePiece { upload, number, bytes: bytes.to_vec() }
}

pub(super) fn restore(configuration: &Configuration, replace: bool) -> storage::Restore {
    let Configuration { pools, backends, listeners, vips } = configuration;
    storage::Restore {
        pools: pools.iter().map(|(name, spec)| create_pool(name, spec)).collect(),
        backends: backends.iter().map(|(pool, name, spec)| create_backend(pool, name, spec)).collect(),
        listeners: listeners.iter().map(|(name, spec)| create_listener(name, spec)).collect(),
        vips: vips.iter().map(|(name, spec)| create_vip(name, spec)).collect(),
        replace,
    }
}

pub(super) fn configuration(message: storage::Restore) -> Result<Configuration, DecodeError> {
    let pools = message
        .pools
        .into_iter()
        .map(|m| Ok((pool_name(&m.name)?, required("restored pool", "settings", m.spec)?.try_into()?)));
    let backends = message.backends.into_iter().map(|m| {
        let spec = required("restored backend", "settings", m.spec)?.try_into()?;
        Ok((pool_name(&m.pool)?, backend_name(&m.name)?, spec))
    });
    let listeners = message.listeners.into_iter().map(|m| {
        Ok((listener_name(&m.name)?, required("restored listener", "settings", m.spec)?.try_into()?))
    });
    let vips = message
        .vips
        .into_iter()
        .map(|m| Ok((vip_name(&m.name)?, required("restored vip", "settings", m.spec)?.try_into()?)));
    Ok(Configuration {
        pools: pools.collect::<Result<_, DecodeError>>()?,
        backends: backends.collect::<Result<_, DecodeError>>()?,
        listeners: listeners.collect::<Result<_, DecodeError>>()?,
        vips: vips.collect::<Result<_, DecodeError>>()?,
    })
}
