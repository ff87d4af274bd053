//! What the requests of all kinds of resources have in common. One table says by which messages each kind is created, read,
//! listed, changed and deleted; members and the command line handle all kinds by it.

use std::collections::BTreeMap;

use prost::{Message, Name};

use crate::v1;

/// What a creation asks for.
#[derive(Debug, Clone)]
pub struct CreateCall<R> {
    /// Name of the resource that it belongs to; empty for kinds that belong to none.
    pub parent: String,
    /// Last part of the new name.
    pub id: String,
    /// The settings.
    pub resource: Option<R>,
    /// Name of the request.
    pub request_id: String,
    /// Answer what would happen and change nothing.
    pub validate_only: bool,
    /// Take what is there already, when it is as it should be.
    pub if_absent: bool,
}

/// What a read of one resource asks for.
#[derive(Debug, Clone)]
pub struct GetCall {
    /// Its name.
    pub name: String,
    /// How fresh the answer must be.
    pub consistency: i32,
}

/// Which page of a list is asked for.
#[derive(Debug, Clone)]
pub struct ListCall {
    /// Name of the resource whose parts are listed; empty for kinds that belong to none.
    pub parent: String,
    /// Most resources on the page; 0 for the default.
    pub page_size: i32,
    /// What the page before ended with; empty for the first page.
    pub page_token: String,
    /// How fresh the answer must be.
    pub consistency: i32,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListAnswer<R> {
    /// The resources.
    pub resources: Vec<R>,
    /// Token of the next page; empty on the last one.
    pub next_page_token: String,
    /// How fresh the answer is.
    pub read: Option<v1::ReadInfo>,
}

/// What a change asks for.
#[derive(Debug, Clone)]
pub struct UpdateCall<R> {
    /// The name, the new values, and the etag that it must still have, if any.
    pub resource: Option<R>,
    /// Fields to change.
    pub update_mask: Option<prost_types::FieldMask>,
    /// Name of the request.
    pub request_id: String,
    /// Answer what would happen and change nothing.
    pub validate_only: bool,
}

/// What a deletion asks for.
#[derive(Debug, Clone)]
pub struct DeleteCall {
    /// Its name.
    pub name: String,
    /// Etag that it must still have; empty for any.
    pub etag: String,
    /// Name of the request.
    pub request_id: String,
    /// Answer what would happen and change nothing.
    pub validate_only: bool,
}

/// The answer to a deletion.
#[derive(Debug, Clone, Copy)]
pub struct DeleteAnswer {
    /// Revision of the deletion.
    pub revision: u64,
}

/// A kind of resource: its message, and the messages of its calls.
pub trait ResourceMessage: Message + Name + Default + Clone {
    /// Its word, with which the fields of its mistakes begin: "pool".
    const WORD: &'static str;
    /// Request of its creation.
    type Create: Message + Name + Clone + From<CreateCall<Self>> + Into<CreateCall<Self>>;
    /// Request to read one.
    type Get: From<GetCall> + Into<GetCall>;
    /// Request for a page of a list.
    type List: From<ListCall> + Into<ListCall>;
    /// Answer with a page of a list.
    type Listed: From<ListAnswer<Self>> + Into<ListAnswer<Self>>;
    /// Request of a change.
    type Update: Message + Name + Clone + From<UpdateCall<Self>> + Into<UpdateCall<Self>>;
    /// Request of a deletion.
    type Delete: Message + Name + Clone + From<DeleteCall> + Into<DeleteCall>;
    /// Answer to a deletion.
    type Deleted: From<DeleteAnswer> + Into<DeleteAnswer>;

    /// Its name.
    fn name(&self) -> &str;
    /// Its etag.
    fn etag(&self) -> &str;
    /// The revision that last changed it.
    fn revision(&self) -> u64;
    /// Notes on it.
    fn annotations(&self) -> &BTreeMap<String, String>;
    /// Who cares for it, and notes on it.
    fn metadata_mut(&mut self) -> (&mut String, &mut BTreeMap<String, String>);
    /// The same settings with a name and an etag, as a change carries them.
    #[must_use]
    fn identified(self, name: String, etag: String) -> Self;
}

/// Ties a call to the message that has the same fields, each as `call = message`; a field after `no` is in the call alone, and
/// empty.
macro_rules! same {
    ($call:ty, $message:ident { $($field:ident = $name:ident),+ $(; no $absent:ident)? }) => {
        impl From<$call> for v1::$message {
            fn from(call: $call) -> Self {
                Self { $($name: call.$field),+ }
            }
        }

        impl From<v1::$message> for $call {
            fn from(message: v1::$message) -> Self {
                Self { $($field: message.$name,)+ $($absent: String::new(),)? }
            }
        }
    };
}

/// The messages of a kind of resource, with the names of their fields where kinds differ.
macro_rules! resource {
    (
        $kind:ident $word:literal
        $create:ident { $($created:tt)* }
        $get:ident
        $list:ident { $($listing:tt)* } $listed:ident { $list_of:ident }
        $update:ident { $updated:ident }
        $delete:ident $deleted:ident
    ) => {
        same!(CreateCall<v1::$kind>, $create {
            request_id = request_id, validate_only = validate_only, if_absent = if_absent, $($created)*
        });
        same!(ListCall, $list {
            page_size = page_size, page_token = page_token, consistency = consistency $($listing)*
        });
        same!(GetCall, $get { name = name, consistency = consistency });
        same!(ListAnswer<v1::$kind>, $listed {
            resources = $list_of, next_page_token = next_page_token, read = read
        });
        same!(UpdateCall<v1::$kind>, $update {
            resource = $updated, update_mask = update_mask, request_id = request_id, validate_only = validate_only
        });
        same!(DeleteCall, $delete {
            name = name, etag = etag, request_id = request_id, validate_only = validate_only
        });
        same!(DeleteAnswer, $deleted { revision = revision });

        impl ResourceMessage for v1::$kind {
            const WORD: &'static str = $word;
            type Create = v1::$create;
            type Get = v1::$get;
            type List = v1::$list;
            type Listed = v1::$listed;
            type Update = v1::$update;
            type Delete = v1::$delete;
            type Deleted = v1::$deleted;

            fn name(&self) -> &str {
                &self.name
            }

            fn etag(&self) -> &str {
                &self.etag
            }

            fn revision(&self) -> u64 {
                self.revision
            }

            fn annotations(&self) -> &BTreeMap<String, String> {
                &self.annotations
            }

            fn metadata_mut(&mut self) -> (&mut String, &mut BTreeMap<String, String>) {
                (&mut self.owner, &mut self.annotations)
            }

            fn identified(self, name: String, etag: String) -> Self {
                Self { name, etag, ..self }
            }
        }
    };
}

resource! {
    Pool "pool"
    CreatePoolRequest { id = pool_id, resource = pool; no parent }
    GetPoolRequest
    ListPoolsRequest { ; no parent } ListPoolsResponse { pools }
    UpdatePoolRequest { pool }
    DeletePoolRequest DeletePoolResponse
}

resource! {
    Backend "backend"
    CreateBackendRequest { id = backend_id, resource = backend, parent = parent }
    GetBackendRequest
    ListBackendsRequest { , parent = parent } ListBackendsResponse { backends }
    UpdateBackendRequest { backend }
    DeleteBackendRequest DeleteBackendResponse
}

resource! {
    Listener "listener"
    CreateListenerRequest { id = listener_id, resource = listener; no parent }
    GetListenerRequest
    ListListenersRequest { ; no parent } ListListenersResponse { listeners }
    UpdateListenerRequest { listener }
    DeleteListenerRequest DeleteListenerResponse
}

resource! {
    Vip "vip"
    CreateVipRequest { id = vip_id, resource = vip; no parent }
    GetVipRequest
    ListVipsRequest { ; no parent } ListVipsResponse { vips }
    UpdateVipRequest { vip }
    DeleteVipRequest DeleteVipResponse
}
