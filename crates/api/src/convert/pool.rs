//! Pools.

use trestle_model::{Document, Invalid, Pool, PoolName, PoolSpec, Violations};

use super::name::pool_name;
use super::write::{Asked, parse_etag};
use super::{Write, etag, parse_pool_name};
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

/// The document that a message stands for: what is not set has its default.
pub(super) fn read(name: Option<PoolName>, message: &v1::Pool, reader: &mut Reader) -> Option<Vec<Document>> {
    let spec = settings::health(message, settings::pool(message, reader));
    spec.check(&mut reader.found);
    name.map(|name| vec![(name, spec).into()])
}

/// Parses the creation of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create_pool(request: &v1::CreatePoolRequest) -> Result<Write, Invalid> {
    let v1::CreatePoolRequest { pool_id, pool, request_id, validate_only, if_absent: _ } = request;
    let mut reader = Reader::default();
    let name = reader.found.take("pool_id", pool_id, PoolName::parse(pool_id));
    let documents = read(name, &pool.clone().unwrap_or_default(), &mut reader);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    asked.create(documents, reader.found)
}

/// Parses the change of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update_pool(request: &v1::UpdatePoolRequest) -> Result<Write, Invalid> {
    let v1::UpdatePoolRequest { pool, update_mask, request_id, validate_only } = request;
    let mut v = Violations::new();
    let message = pool.clone().unwrap_or_default();
    let name = parse_pool_name("pool.name", &message.name, &mut v);
    let expected = parse_etag("pool.etag", &message.etag, &mut v);
    let asked = Asked { request, request_id, validate_only: *validate_only };
    let documents = |reader: &mut Reader| read(name, &message, reader);
    asked.update("pool", (update_mask.as_ref(), &PoolSpec::paths()), expected, documents, v)
}

/// Parses the deletion of a pool.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete_pool(request: &v1::DeletePoolRequest) -> Result<Write, Invalid> {
    let mut v = Violations::new();
    let name = parse_pool_name("name", &request.name, &mut v);
    let expected = parse_etag("etag", &request.etag, &mut v);
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    asked.delete(name.map(Into::into), expected, v)
}
