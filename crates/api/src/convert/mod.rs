//! Conversions between the admin API's messages and the model. Parsing collects every mistake of a request before it
//! fails; rendering cannot fail.

mod backend;
mod batch;
mod configuration;
mod connection;
mod field;
mod listener;
mod member;
mod name;
mod pool;
mod report;
mod resource;
mod token;
mod transport;
mod user;
mod vip;
mod watch;
mod write;

pub use backend::backend;
pub use batch::{apply_batch, batch_results};
pub use configuration::{configuration, configuration_parts, merge_configuration, restore_configuration};
pub use connection::{
    CloseRequest, Closing, ConnectionFilter, connection_name, parse_close_connections, parse_close_gradually,
    parse_connection_filter,
};
pub use listener::listener;
pub use member::{drain_member, enable_member, enroll_member, member, parse_add_member, update_member};
pub use name::{
    backend_name, listener_name, member_name, parse_backend_name, parse_listener_name, parse_member_name,
    parse_pool_name, parse_token_name, parse_user_name, parse_vip_name, pool_name, token_name, user_name,
    vip_name,
};
pub use pool::pool;
pub use report::{cluster_event, connection, listener_view, member_status, member_view, vip_view};
pub use resource::{ConvertResource, create, delete, update};
pub use token::{WantedToken, create_token, delete_token, token};
pub use transport::secure_cluster;
pub use user::{WantedCertificate, create_user, delete_user, put_user, rotate_user, user};
pub use vip::{time_of_millis, vip, vip_event};
pub use watch::{cluster_facts, current_event, event, resource_change};
pub use write::{Update, Wanted, Write};

pub use crate::settings::time as duration;

use trestle_model::Revision;

/// Renders an etag: the revision in decimal, which callers treat as opaque.
fn etag(revision: Revision) -> String {
    revision.to_string()
}
