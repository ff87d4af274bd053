//! Pools.

use trestle_model::{Document, Outcome, Pool, PoolName, PoolSpec, Violations};

use super::name::pool_name;
use super::{ConvertResource, etag, parse_pool_name};
use crate::resource::CreateCall;
use crate::settings::{self, Masked as _, Reader, Settings as _};
use crate::v1;

/// Renders a pool.
pub fn pool(pool: &Pool, backends: usize) -> v1::Pool {
    let mut message = v1::Pool {
        name: pool_name(&pool.name),
        backend_count: u32::try_from(backends).unwrap_or(u32::MAX),
        revision: pool.revision,
        etag: etag(pool.revision),
        ..v1::Pool::default()
    };
    pool.spec.write_to(&mut message);
    message
}

impl ConvertResource for v1::Pool {
    type Id = PoolName;

    fn render(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Pool(one, backends) => Some(pool(one, *backends)),
            _ => None,
        }
    }

    fn parse_name(field: &str, name: &str, v: &mut Violations) -> Option<PoolName> {
        parse_pool_name(field, name, v)
    }

    fn new_name(call: &CreateCall<Self>, v: &mut Violations) -> Option<PoolName> {
        v.take("pool_id", &call.id, PoolName::parse(&call.id))
    }

    fn paths() -> Vec<String> {
        PoolSpec::paths()
    }

    fn documents(&self, id: Option<PoolName>, reader: &mut Reader) -> Option<Vec<Document>> {
        let spec = settings::health(self, settings::pool(self, reader));
        spec.check(&mut reader.found);
        id.map(|id| vec![(id, spec).into()])
    }
}
