//! Generated code, nested as the packages are, because it refers to itself by such paths.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::large_futures, clippy::too_many_lines)]

pub(crate) mod trestle {
    pub(crate) mod v1 {
        tonic::include_proto!("trestle.v1");
    }
    pub(crate) mod peer {
        pub(crate) mod v1 {
            tonic::include_proto!("trestle.peer.v1");
        }
    }
    pub(crate) mod storage {
        pub(crate) mod v1 {
            tonic::include_proto!("trestle.storage.v1");
        }
    }
}
