//! Backends.

use trestle_model::{
    AdminState, Backend, BackendAddress, BackendName, BackendPatch, BackendSpec, Command, Invalid, PoolName,
    Violations, defaults,
};

use super::name::backend_name;
use super::{Write, duration, etag, field, finish, parse_backend_name, parse_etag, parse_pool_name};
use crate::v1;

const STATES: &str = "ADMIN_STATE_ENABLED (1), ADMIN_STATE_DRAINING (2) or ADMIN_STATE_DISABLED (3)";
const OUTPUT_ONLY: &[&str] = &["revision", "etag", "name"];
const PATHS: &[&str] = &["address", "weight", "backup", "max_connections", "admin_state", "drain_timeout"];

/// Renders a backend of a pool.
pub fn backend(pool: &PoolName, backend: &Backend) -> v1::Backend {
    let spec = &backend.spec;
    let (state, timeout) = match spec.admin_state {
        AdminState::Enabled => (v1::AdminState::Enabled, None),
        AdminState::Draining { timeout } => (v1::AdminState::Draining, timeout),
        AdminState::Disabled => (v1::AdminState::Disabled, None),
    };
    v1::Backend {
        name: backend_name(pool, &backend.name),
        address: spec.address.to_string(),
        weight: Some(spec.weight.into()),
        backup: spec.backup,
        max_connections: spec.max_connections,
        admin_state: state.into(),
        drain_timeout: timeout.map(duration),
        revision: backend.revision,
        etag: etag(backend.revision),
    }
}

fn weight(message: &v1::Backend, v: &mut Violations) -> u16 {
    let given = message.weight.unwrap_or(defaults::WEIGHT.into());
    match u16::try_from(given) {
        Ok(weight) => weight,
        Err(_) => {
            let bounds = defaults::WEIGHT_BOUNDS;
            v.add("backend.weight", given, format!("must be {} to {}", bounds.start(), bounds.end()));
            defaults::WEIGHT
        }
    }
}

fn admin_state(message: &v1::Backend, v: &mut Violations) -> AdminState {
    let timeout = field::duration("backend.drain_timeout", message.drain_timeout.as_ref(), v);
    let state = field::known("backend.admin_state", message.admin_state, STATES, v);
    if timeout.is_some() && state != Some(v1::AdminState::Draining) {
        v.add(
            "backend.drain_timeout",
            format!("{:?}", timeout.unwrap_or_default()),
            "goes only with admin_state ADMIN_STATE_DRAINING",
        );
    }
    match state {
        Some(v1::AdminState::Draining) => AdminState::Draining { timeout },
        Some(v1::AdminState::Disabled) => AdminState::Disabled,
        Some(v1::AdminState::Enabled | v1::AdminState::Unspecified) | None => AdminState::Enabled,
    }
}

fn address(message: &v1::Backend, v: &mut Violations) -> Option<BackendAddress> {
    v.take("backend.address", &message.address, BackendAddress::parse(&message.address))
}

/// Parses the creation of a backend.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_backend(request: &v1::CreateBackendRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let pool = parse_pool_name("parent", &request.parent, &mut v);
    let name = v.take("backend_id", &request.backend_id, BackendName::parse(&request.backend_id));
    let message = request.backend.clone().unwrap_or_default();
    let address = address(&message, &mut v);
    let (weight, admin_state) = (weight(&message, &mut v), admin_state(&message, &mut v));
    let spec = address.map(|address| BackendSpec {
        address,
        weight,
        backup: message.backup,
        max_connections: message.max_connections,
        admin_state,
    });
    if let Some(spec) = &spec {
        spec.check(&mut v);
    }
    let command =
        pool.zip(name).zip(spec).map(|((pool, name), spec)| Command::CreateBackend { pool, name, spec });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the change of a backend.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_backend(request: &v1::UpdateBackendRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let message = request.backend.clone().unwrap_or_default();
    let name = parse_backend_name("backend.name", &message.name, &mut v);
    let expect = parse_etag("backend.etag", &message.etag, &mut v);
    let paths = field::mask(request.update_mask.as_ref(), PATHS, OUTPUT_ONLY, &mut v);
    let named = |path| paths.contains(&path);
    let mut patch = BackendPatch::default();
    if named("address") {
        patch.address = address(&message, &mut v);
    }
    if named("weight") {
        patch.weight = Some(weight(&message, &mut v));
    }
    if named("backup") {
        patch.backup = Some(message.backup);
    }
    if named("max_connections") {
        patch.max_connections = Some(message.max_connections);
    }
    if named("admin_state") || named("drain_timeout") {
        patch.admin_state = Some(admin_state(&message, &mut v));
    }
    // Any address does: it has no bounds of its own, and the rest are checked as they will be applied.
    if let Ok(anywhere) = BackendAddress::parse("127.0.0.1:1") {
        BackendSpec::at(anywhere).patched(&patch).check(&mut v);
    }
    let command = name.map(|(pool, name)| Command::UpdateBackend { pool, name, patch, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}

/// Parses the deletion of a backend.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_backend(request: &v1::DeleteBackendRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_backend_name("name", &request.name, &mut v);
    let expect = parse_etag("etag", &request.etag, &mut v);
    let command = name.map(|(pool, name)| Command::DeleteBackend { pool, name, expect });
    finish(request, &request.request_id, request.validate_only, command, v)
}
