//! Backends.

use trestle_model::{AdminState, Backend, BackendName, BackendSpec, Document, Outcome, PoolName, Violations};

use super::name::backend_name;
use super::write::SWITCH;
use super::{ConvertResource, duration, etag, parse_backend_name, parse_pool_name};
use crate::resource::CreateCall;
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

impl ConvertResource for v1::Backend {
    type Id = (PoolName, BackendName);

    fn render(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Backend(pool, one) => Some(backend(pool, one)),
            _ => None,
        }
    }

    fn parse_name(field: &str, name: &str, v: &mut Violations) -> Option<Self::Id> {
        parse_backend_name(field, name, v)
    }

    fn new_name(call: &CreateCall<Self>, v: &mut Violations) -> Option<Self::Id> {
        let pool = parse_pool_name("parent", &call.parent, v);
        let name = v.take("backend_id", &call.id, BackendName::parse(&call.id));
        pool.zip(name)
    }

    fn paths() -> Vec<String> {
        let mut paths = BackendSpec::paths();
        paths.extend(SWITCH.map(str::to_owned));
        paths
    }

    fn documents(&self, id: Option<Self::Id>, reader: &mut Reader) -> Option<Vec<Document>> {
        let spec = settings::backend(self, reader);
        let state = settings::admin_state(self.admin_state, self.drain_timeout, reader);
        if let Some(spec) = &spec {
            spec.check(&mut reader.found);
        }
        state.check(&mut reader.found);
        let ((pool, name), spec) = id.zip(spec)?;
        Some(vec![(pool.clone(), name.clone(), spec).into(), (pool, name, state).into()])
    }
}
