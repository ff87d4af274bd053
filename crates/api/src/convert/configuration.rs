//! The whole configuration as a document, and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message;
use trestle_model::{ClusterState, Command, Configuration, Document, Invalid, Violation, Violations};

use super::write::{Asked, Wanted};
use super::{ConvertResource, Write, backend, create, listener, pool, vip};
use crate::resource::CreateCall;
use crate::v1;

/// The version of the document's format.
const FORMAT: u32 = 1;
/// Bytes of resources in one part.
const PART: usize = 64 * 1024;

/// Collects resources into parts of a bounded size.
struct Parts {
    done: Vec<v1::Configuration>,
    current: v1::Configuration,
    size: usize,
}

impl Parts {
    fn add<M: Message>(&mut self, message: M, list: impl Fn(&mut v1::Configuration) -> &mut Vec<M>) {
        let size = message.encoded_len();
        if self.size > 0 && self.size + size > PART {
            self.done.push(std::mem::take(&mut self.current));
            self.size = 0;
        }
        self.size += size;
        list(&mut self.current).push(message);
    }
}

/// Renders the configuration, without what is output only.
pub fn configuration(state: &ClusterState) -> v1::Configuration {
    let mut whole = v1::Configuration { format_version: FORMAT, ..Default::default() };
    for entry in state.pools.values() {
        let rendered = pool(&entry.pool, 0);
        whole.pools.push(v1::Pool { backend_count: 0, revision: 0, etag: String::new(), ..rendered });
        for one in entry.backends.values() {
            let rendered = backend(&entry.pool.name, one);
            whole.backends.push(v1::Backend { revision: 0, etag: String::new(), ..rendered });
        }
    }
    for one in state.listeners.values() {
        whole.listeners.push(v1::Listener {
            revision: 0,
            create_revision: 0,
            etag: String::new(),
            addresses: Vec::new(),
            ..listener(one)
        });
    }
    for one in state.vips.values() {
        whole.vips.push(v1::Vip { revision: 0, etag: String::new(), ..vip(one) });
    }
    whole
}

/// Cuts a document into parts of a bounded size, to be merged in their order.
pub fn configuration_parts(whole: v1::Configuration) -> Vec<v1::Configuration> {
    let v1::Configuration { format_version, pools, backends, listeners, vips, authority_key: _ } = whole;
    let current = v1::Configuration { format_version, ..Default::default() };
    let mut parts = Parts { done: Vec::new(), current, size: 0 };
    pools.into_iter().for_each(|pool| parts.add(pool, |part| &mut part.pools));
    backends.into_iter().for_each(|backend| parts.add(backend, |part| &mut part.backends));
    listeners.into_iter().for_each(|listener| parts.add(listener, |part| &mut part.listeners));
    vips.into_iter().for_each(|vip| parts.add(vip, |part| &mut part.vips));
    parts.done.push(parts.current);
    parts.done
}

/// Adds the next part of a document, as protobuf merges messages; answers the bytes of the part.
pub fn merge_configuration(whole: &mut v1::Configuration, part: v1::Configuration) -> usize {
    let size = part.encoded_len();
    let v1::Configuration { format_version, pools, backends, listeners, vips, authority_key: _ } = part;
    if format_version != 0 {
        whole.format_version = format_version;
    }
    whole.pools.extend(pools);
    whole.backends.extend(backends);
    whole.listeners.extend(listeners);
    whole.vips.extend(vips);
    size
}

/// Notes the mistakes of one resource under its name, and that it comes twice.
struct Reader {
    found: Violations,
    seen: BTreeSet<String>,
}

impl Reader {
    /// What the creation of a resource makes.
    fn take<R: ConvertResource>(&mut self, parent: &str, id: &str, resource: &R) -> Vec<Document> {
        let name = resource.name();
        if !self.seen.insert(name.to_owned()) {
            self.found.add("document", name, "must not be in it twice");
        }
        let call = CreateCall {
            parent: parent.to_owned(),
            id: id.to_owned(),
            resource: Some(resource.clone()),
            request_id: String::new(),
            validate_only: false,
            if_absent: false,
        };
        match create::<R>(&call.into()) {
            Ok(Write { wanted: Wanted::Command(command), .. }) => command.documents().cloned().collect(),
            Ok(_) => Vec::new(),
            Err(Invalid(mistakes)) => {
                for Violation { field, value, rule } in mistakes {
                    self.found.add(format!("{name}: {field}"), value, rule);
                }
                Vec::new()
            }
        }
    }
}

/// What is behind the last slash, or nothing where the name does not begin as it must.
fn id<'n>(name: &'n str, parent: &str) -> &'n str {
    name.strip_prefix(parent).unwrap_or_default()
}

fn read(document: &v1::Configuration, reader: &mut Reader) -> Configuration {
    let mut documents = Vec::new();
    for pool in &document.pools {
        documents.extend(reader.take("", id(&pool.name, "pools/"), pool));
    }
    for backend in &document.backends {
        let (parent, id) = backend.name.split_once("/backends/").unwrap_or_default();
        documents.extend(reader.take(parent, id, backend));
    }
    for listener in &document.listeners {
        documents.extend(reader.take("", id(&listener.name, "listeners/"), listener));
    }
    for vip in &document.vips {
        // Without an id the creation would choose one; a document names everything.
        documents.extend(reader.take("", vip.name.strip_prefix("vips/").unwrap_or("/"), vip));
    }
    Configuration(documents)
}

/// Parses a restore, whose parts are merged into its first message.
///
/// # Errors
/// Every value that breaks a rule, with the name of its resource.
pub fn restore_configuration(request: &v1::RestoreConfigurationRequest) -> Result<Write, Invalid> {
    let mut reader = Reader { found: Violations::new(), seen: BTreeSet::new() };
    let document = request.part.clone().unwrap_or_default();
    if document.format_version != FORMAT {
        let rule = format!("must be {FORMAT}, the only format that this version reads");
        reader.found.add("format_version", document.format_version, rule);
    }
    let configuration = Arc::new(read(&document, &mut reader));
    let command = Command::Restore { configuration, replace: request.replace };
    let asked = Asked { request, request_id: &request.request_id, validate_only: request.validate_only };
    asked.command(Some(command), reader.found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::{BackendName, BackendSpec, PoolName, PoolSpec};

    use super::*;

    fn state(backends: u32) -> ClusterState {
        let mut state = ClusterState::default();
        let pool = PoolName::parse("web").unwrap();
        state.apply(1, &Command::create((pool.clone(), PoolSpec::default()))).unwrap();
        for number in 0..backends {
            let name = BackendName::parse(&format!("b{number}")).unwrap();
            let address = format!("10.0.{}.{}:80", number / 250, number % 250);
            let spec = BackendSpec::at(trestle_model::BackendAddress::parse(&address).unwrap());
            let command = Command::create((pool.clone(), name, spec));
            state.apply(u64::from(number) + 2, &command).unwrap();
        }
        state
    }

    fn merged(state: &ClusterState) -> v1::Configuration {
        let mut whole = v1::Configuration::default();
        for part in configuration_parts(configuration(state)) {
            merge_configuration(&mut whole, part);
        }
        whole
    }

    #[test]
    fn a_document_in_many_parts_is_read_as_it_was_written() {
        let state = state(3000);
        let parts = configuration_parts(configuration(&state));
        assert!(parts.len() > 1 && parts.iter().all(|part| part.encoded_len() < 2 * PART));
        let request = v1::RestoreConfigurationRequest { part: Some(merged(&state)), ..Default::default() };
        let write = restore_configuration(&request).unwrap();
        let Wanted::Command(Command::Restore { configuration, replace: false }) = write.wanted else {
            unreachable!()
        };
        assert_eq!(*configuration, state.configuration());
    }

    #[test]
    fn every_mistake_of_a_document_is_told_with_its_resource() {
        let mut document = merged(&state(2));
        document.format_version = 2;
        document.backends[0].address = "no where".to_owned();
        document.backends[1].weight = Some(300);
        document.backends.push(document.backends[1].clone());
        document.pools[0].name = "web".to_owned();
        let request = v1::RestoreConfigurationRequest { part: Some(document), ..Default::default() };
        let Invalid(found) = restore_configuration(&request).unwrap_err();
        let told: Vec<String> = found.iter().map(|v| format!("{} {}", v.field, v.value)).collect();
        for part in [
            "format_version 2",
            "pools/web/backends/b0: backend.address no where",
            "pools/web/backends/b1: backend.weight 300",
            "document pools/web/backends/b1",
            "web: pool_id ",
        ] {
            assert!(told.iter().any(|told| told.contains(part)), "{part}: {told:?}");
        }
    }
}
