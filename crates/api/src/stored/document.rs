//! Documents, and the resources that they are kept as.

use std::sync::Arc;

use trestle_model::{
    AdminState, Backend, BackendName, Bind, Document, Expected, Listener, ListenerName, Operation, Pool,
    PoolEntry, PoolName, ResourceName, Vip, VipName,
};

use super::{DecodeError, duration_message, in_bounds, number, parsed, required};
use crate::settings::{self, Field, Reader};
use crate::storage;
use crate::storage::document::Settings as Message;

/// Reads settings as they were written; the first mistake refuses them.
fn read<T>(read: impl FnOnce(&mut Reader) -> T) -> Result<T, DecodeError> {
    let mut reader = Reader { stored: true, ..Reader::default() };
    let settings = read(&mut reader);
    match reader.found.into_vec().into_iter().next() {
        None => Ok(settings),
        Some(found) => Err(DecodeError::Rule { field: found.field, value: found.value, rule: found.rule }),
    }
}

impl From<AdminState> for storage::AdminState {
    fn from(state: AdminState) -> Self {
        use storage::admin_state::State;
        let (state, timeout) = match state {
            AdminState::Enabled => (State::Enabled, None),
            AdminState::Draining { timeout } => (State::Draining, timeout),
            AdminState::Disabled => (State::Disabled, None),
        };
        Self { state: state.into(), drain_timeout: timeout.map(duration_message) }
    }
}

impl TryFrom<storage::AdminState> for AdminState {
    type Error = DecodeError;

    fn try_from(message: storage::AdminState) -> Result<Self, DecodeError> {
        read(|reader| settings::admin_state(message.state, message.drain_timeout, reader))
    }
}

/// The settings as a message.
fn message<T: Field<Option<M>>, M>(settings: &T) -> Option<M> {
    settings.write()
}

impl From<&Document> for storage::Document {
    fn from(document: &Document) -> Self {
        let settings = match document {
            Document::Vip(_, spec) => message(spec).map(Message::Vip),
            Document::Pool(_, spec) => message(&**spec).map(Message::Pool),
            Document::Backend(.., spec) => message(spec).map(Message::Backend),
            Document::AdminState(.., state) => Some(Message::AdminState((*state).into())),
            Document::Listener(_, spec) => message(spec).map(Message::Listener),
        };
        Self { name: document.resource().to_string(), settings }
    }
}

fn resource(text: &str) -> Result<ResourceName, DecodeError> {
    parsed("resource", text, ResourceName::parse)
}

impl TryFrom<storage::Document> for Document {
    type Error = DecodeError;

    fn try_from(message: storage::Document) -> Result<Self, DecodeError> {
        let settings = message.settings.ok_or(DecodeError::Newer("kind of resource"))?;
        let unfit = || DecodeError::rule("resource", &message.name, "has the settings of another kind");
        Ok(match (resource(&message.name)?, settings) {
            (ResourceName::Vip(name), Message::Vip(spec)) => {
                (name, read(|reader| settings::vip(&spec, reader))?.ok_or_else(unfit)?).into()
            }
            (ResourceName::Pool(name), Message::Pool(spec)) => {
                (name, read(|reader| settings::pool(&spec, reader))?).into()
            }
            (ResourceName::Backend(pool, name), Message::Backend(spec)) => {
                (pool, name, read(|reader| settings::backend(&spec, reader))?.ok_or_else(unfit)?).into()
            }
            (ResourceName::AdminState(pool, name), Message::AdminState(state)) => {
                (pool, name, AdminState::try_from(state)?).into()
            }
            (ResourceName::Listener(name), Message::Listener(spec)) => {
                (name, read(|reader| settings::listener(&spec, reader))?.ok_or_else(unfit)?).into()
            }
            _ => return Err(unfit()),
        })
    }
}

impl From<&Operation> for storage::Operation {
    fn from(operation: &Operation) -> Self {
        use storage::operation::Kind;
        let kind = match operation {
            Operation::Put { document, expected } => Kind::Put(storage::Put {
                document: Some(document.into()),
                absent: *expected == Expected::Absent,
                revision: match expected {
                    Expected::Revision(revision) => Some(*revision),
                    Expected::Any | Expected::Absent => None,
                },
            }),
            Operation::Delete { resource, expected } => {
                Kind::Delete(storage::Delete { resource: resource.to_string(), revision: *expected })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<storage::Operation> for Operation {
    type Error = DecodeError;

    fn try_from(message: storage::Operation) -> Result<Self, DecodeError> {
        use storage::operation::Kind;
        Ok(match message.kind.ok_or(DecodeError::Newer("kind of operation"))? {
            Kind::Put(storage::Put { document, absent, revision }) => Self::Put {
                document: required("operation", "document", document)?.try_into()?,
                expected: if absent { Expected::Absent } else { revision.into() },
            },
            Kind::Delete(storage::Delete { resource: name, revision }) => {
                Self::Delete { resource: resource(&name)?, expected: revision }
            }
        })
    }
}

impl From<&Pool> for storage::Pool {
    fn from(pool: &Pool) -> Self {
        let Pool { name, spec, revision } = pool;
        Self { name: name.to_string(), spec: spec.write(), revision: *revision }
    }
}

impl TryFrom<storage::Pool> for Pool {
    type Error = DecodeError;

    fn try_from(message: storage::Pool) -> Result<Self, DecodeError> {
        let spec = required("pool", "settings", message.spec)?;
        let spec = read(|reader| settings::pool(&spec, reader))?;
        in_bounds(|v| spec.check_numbers(v))?;
        let name = parsed("pool name", &message.name, PoolName::parse)?;
        Ok(Self { name, spec, revision: number("revision", message.revision)? })
    }
}

impl From<&Backend> for storage::Backend {
    fn from(backend: &Backend) -> Self {
        let Backend { name, spec, admin_state, revision } = backend;
        Self {
            name: name.to_string(),
            spec: spec.write(),
            revision: *revision,
            admin_state: (*admin_state != AdminState::Enabled).then(|| (*admin_state).into()),
        }
    }
}

impl TryFrom<storage::Backend> for Backend {
    type Error = DecodeError;

    fn try_from(message: storage::Backend) -> Result<Self, DecodeError> {
        let spec = required("backend", "settings", message.spec)?;
        let spec = read(|reader| settings::backend(&spec, reader))?;
        let spec = required("backend", "address", spec)?;
        let admin_state: AdminState =
            message.admin_state.map(TryInto::try_into).transpose()?.unwrap_or_default();
        in_bounds(|v| {
            spec.check_numbers(v);
            admin_state.check(v);
        })?;
        let name = parsed("backend name", &message.name, BackendName::parse)?;
        Ok(Self { name, spec, admin_state, revision: number("revision", message.revision)? })
    }
}

impl From<&PoolEntry> for storage::PoolEntry {
    fn from(entry: &PoolEntry) -> Self {
        let PoolEntry { pool, backends } = entry;
        Self {
            pool: Some(pool.as_ref().into()),
            backends: backends.values().map(|b| b.as_ref().into()).collect(),
        }
    }
}

impl TryFrom<storage::PoolEntry> for PoolEntry {
    type Error = DecodeError;

    fn try_from(message: storage::PoolEntry) -> Result<Self, DecodeError> {
        let pool = Pool::try_from(required("pool entry", "pool", message.pool)?)?;
        let backends = message.backends.into_iter().map(|b| {
            let backend = Backend::try_from(b)?;
            Ok((backend.name.clone(), Arc::new(backend)))
        });
        Ok(Self { pool: Arc::new(pool), backends: backends.collect::<Result<_, DecodeError>>()? })
    }
}

impl From<&Listener> for storage::Listener {
    fn from(listener: &Listener) -> Self {
        let Listener { name, spec, binds, revision, created } = listener;
        Self {
            name: name.to_string(),
            spec: spec.write(),
            revision: *revision,
            created: *created,
            binds: binds.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<storage::Listener> for Listener {
    type Error = DecodeError;

    fn try_from(message: storage::Listener) -> Result<Self, DecodeError> {
        let spec = required("listener", "settings", message.spec)?;
        let spec = read(|reader| settings::listener(&spec, reader))?;
        let spec = required("listener", "pool", spec)?;
        in_bounds(|v| spec.check_numbers(v))?;
        let name = parsed("listener name", &message.name, ListenerName::parse)?;
        let bind = |text: &String| parsed("listener address", text, Bind::decode);
        Ok(Self {
            name,
            spec,
            binds: message.binds.iter().map(bind).collect::<Result<_, _>>()?,
            revision: number("revision", message.revision)?,
            created: number("revision of the creation", message.created)?,
        })
    }
}

impl From<&Vip> for storage::Vip {
    fn from(vip: &Vip) -> Self {
        let Vip { name, spec, revision } = vip;
        Self { name: name.to_string(), spec: spec.write(), revision: *revision }
    }
}

impl TryFrom<storage::Vip> for Vip {
    type Error = DecodeError;

    fn try_from(message: storage::Vip) -> Result<Self, DecodeError> {
        let spec = required("vip", "settings", message.spec)?;
        let spec = required("vip", "address", read(|reader| settings::vip(&spec, reader))?)?;
        in_bounds(|v| spec.check_numbers(v))?;
        let name = parsed("vip name", &message.name, VipName::parse)?;
        Ok(Self { name, spec, revision: number("revision", message.revision)? })
    }
}
