//! Backends.

use trestle_model::{AdminState, Backend, BackendAddress, BackendName, BackendPatch, BackendSpec};

use super::{DecodeError, duration, duration_message, in_bounds, number, parsed, required};
use crate::storage;

fn admin_state(number: i32, timeout: Option<prost_types::Duration>) -> Result<AdminState, DecodeError> {
    match storage::AdminState::try_from(number) {
        Ok(storage::AdminState::Enabled) => Ok(AdminState::Enabled),
        Ok(storage::AdminState::Draining) => {
            let timeout = timeout.map(|message| duration("drain timeout", message)).transpose()?;
            Ok(AdminState::Draining { timeout })
        }
        Ok(storage::AdminState::Disabled) => Ok(AdminState::Disabled),
        Ok(storage::AdminState::Unspecified) | Err(_) => {
            Err(DecodeError::rule("admin state", number, "is none that this version knows"))
        }
    }
}

impl From<&BackendPatch> for storage::BackendSpec {
    fn from(patch: &BackendPatch) -> Self {
        let BackendPatch { address, weight, backup, max_connections, admin_state } = patch;
        let (state, timeout) = match admin_state {
            None => (None, None),
            Some(AdminState::Enabled) => (Some(storage::AdminState::Enabled), None),
            Some(AdminState::Draining { timeout }) => (Some(storage::AdminState::Draining), *timeout),
            Some(AdminState::Disabled) => (Some(storage::AdminState::Disabled), None),
        };
        Self {
            address: address.as_ref().map(ToString::to_string),
            weight: weight.map(u32::from),
            backup: *backup,
            max_connections: *max_connections,
            admin_state: state.map(Into::into),
            drain_timeout: timeout.map(duration_message),
        }
    }
}

impl TryFrom<storage::BackendSpec> for BackendPatch {
    type Error = DecodeError;

    fn try_from(message: storage::BackendSpec) -> Result<Self, DecodeError> {
        let weight = |weight: u32| {
            u16::try_from(weight)
                .map_err(|_| DecodeError::rule("backend weight", weight, "must be 0 to 65535"))
        };
        let address = |text: String| parsed("backend address", &text, BackendAddress::decode);
        let timeout = message.drain_timeout;
        Ok(Self {
            address: message.address.map(address).transpose()?,
            weight: message.weight.map(weight).transpose()?,
            backup: message.backup,
            max_connections: message.max_connections,
            admin_state: message.admin_state.map(|state| admin_state(state, timeout)).transpose()?,
        })
    }
}

impl From<&BackendSpec> for storage::BackendSpec {
    fn from(spec: &BackendSpec) -> Self {
        let BackendSpec { address, weight, backup, max_connections, admin_state } = spec;
        // Settings are a patch in which everything is set, so both share one encoding.
        Self::from(&BackendPatch {
            address: Some(address.clone()),
            weight: Some(*weight),
            backup: Some(*backup),
            // Left out where there is no bound, which is what older versions meant.
            max_connections: Some(*max_connections).filter(|bound| *bound > 0),
            admin_state: Some(*admin_state),
        })
    }
}

impl TryFrom<storage::BackendSpec> for BackendSpec {
    type Error = DecodeError;

    fn try_from(message: storage::BackendSpec) -> Result<Self, DecodeError> {
        let BackendPatch { address, weight, backup, max_connections, admin_state } = message.try_into()?;
        Ok(Self {
            address: required("backend", "address", address)?,
            weight: required("backend", "weight", weight)?,
            backup: required("backend", "backup flag", backup)?,
            max_connections: max_connections.unwrap_or_default(),
            admin_state: required("backend", "admin state", admin_state)?,
        })
    }
}

impl From<&Backend> for storage::Backend {
    fn from(backend: &Backend) -> Self {
        let Backend { name, spec, revision } = backend;
        Self { name: name.to_string(), spec: Some(spec.into()), revision: *revision }
    }
}

impl TryFrom<storage::Backend> for Backend {
    type Error = DecodeError;

    fn try_from(message: storage::Backend) -> Result<Self, DecodeError> {
        let spec: BackendSpec = required("backend", "settings", message.spec)?.try_into()?;
        in_bounds(|v| spec.check_numbers(v))?;
        let name = parsed("backend name", &message.name, BackendName::parse)?;
        Ok(Self { name, spec, revision: number("revision", message.revision)? })
    }
}
