//! Backends.

use trestle_model::{AdminState, Backend, BackendName, BackendSpec, Document, Invalid, PoolName, Violations};

use super::name::backend_name;
use super::write::{Asked, SWITCH, parse_etag};
use super::{Write, duration, etag, parse_backend_name, parse_pool_name};
use crate::settings::{self, Masked as _, Reader, Settings as _};
use crate::v1;

/// Renders a backend of a pool.
pub fn backend(pool: &PoolName, backend: &Backend) -> v1::Backend {
    let (state, timeout) = match backend.admin_state {
        AdminState::Enabled => (v1::AdminState::Enabled, None),
        AdminState::Draining { timeout } => (v1::AdminState::Draining, timeout),
        AdminState::Disabled => (v1::AdminState::Disabled, None),
    };
    let mut message = v1::Backend {
        name: backend_name(pool, &backend.name),
        admin_state: state.into(),
        drain_timeout: timeout.map(duration),
        revision: backend.revision,
        etag: etag(backend.revision),
        ..v1::Backend::default()
    };
    backend.spec.write_to(&mut message);
    message
}

/// The documents that a message stands for: what is not set has its default.
pub(super) fn read(
    name: Option<(PoolName, BackendName)>,
    message: &v1::Backend,
    reader: &mut Reader,
) -> Option<Vec<Document>> {
    let spec = settings::backend(message, reader);
    let state = settings::admin_state(message.admin_state, message.drain_timeout, reader);
    if let Some(spec) = &spec {
        spec.check(&mut reader.found);
    }
    state.check(&mut reader.found);
    let ((pool, name), spec) = name.zip(spec)?;
    Some(vec![(pool.clone(), name.clone(), spec).into(), (pool, name, state).into()])
}

/// Parses the creation of a backend.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_backend(request: &v1::CreateBackendRequest) -> Result<Write, Invalid> {
    let v1::CreateBackendRequest { parent, backend_id, backend, request_id, validate_only, if_absent: _ } =
        request;
    let mut reader = Reader::default();
    let pool = parse_pool_name("parent", parent, &mut reader.found);
    let name = reader.found.take("backend_id", backend_id, BackendName::parse(backend_id));
    let documents = read(pool.zip(name), &backend.clone().unwrap_or_default(), &mut reader);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    asked.create(documents, reader.found)
}

/// Parses the change of a backend.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_backend(request: &v1::UpdateBackendRequest) -> Result<Write, Invalid> {
    let v1::UpdateBackendRequest { backend, update_mask, request_id, validate_only } = request;
    let mut v = Violations::new();
    let message = backend.clone().unwrap_or_default();
    let name = parse_backend_name("backend.name", &message.name, &mut v);
    let expected = parse_etag("backend.etag", &message.etag, &mut v);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    let mut paths = BackendSpec::paths();
    paths.extend(SWITCH.map(str::to_owned));
    let documents = |reader: &mut Reader| read(name, &message, reader);
    asked.update("backend", (update_mask.as_ref(), &paths), expected, documents, v)
}

/// Parses the deletion of a backend.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_backend(request: &v1::DeleteBackendRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_backend_name("name", &request.name, &mut v);
    let expected = parse_etag("etag", &request.etag, &mut v);
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    asked.delete(name.map(Into::into), expected, v)
}
