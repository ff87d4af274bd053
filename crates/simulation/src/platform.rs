//! What a member of the simulation runs on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::{StdError, http};
use trestle_consensus::simulation::{Lane, LogBounds, LogDisk, MarkFile, SimulatedPlatform};

use crate::disk::SimulatedDisk;
use crate::draws::Draws;
use crate::interpose;
use crate::network::SimulatedNetwork;

pub(crate) struct MemberPlatform {
    pub(crate) member: usize,
    pub(crate) disk: SimulatedDisk,
    pub(crate) network: SimulatedNetwork,
    pub(crate) bounds: LogBounds,
}

/// Where a member is reached by its peers.
pub(crate) fn address(member: usize) -> String {
    format!("10.1.0.{}:7481", member + 1)
}

/// Who is reached at an address.
fn member_at(address: &str) -> Option<usize> {
    address.strip_prefix("10.1.0.")?.strip_suffix(":7481")?.parse::<usize>().ok()?.checked_sub(1)
}

impl SimulatedPlatform for MemberPlatform {
    fn has_log(&self) -> bool {
        self.disk.content().exists
    }

    fn open_log(&self) -> Box<dyn LogDisk> {
        self.disk.content().exists = true;
        Box::new(self.disk.clone())
    }

    fn has_mark(&self) -> bool {
        self.disk.has_mark()
    }

    fn read_mark(&self) -> io::Result<Vec<u8>> {
        self.disk.read_mark()
    }

    fn open_mark(&self) -> Box<dyn MarkFile> {
        Box::new(self.disk.clone())
    }

    fn wait_for_disk(&self) -> BoxFuture<'static, ()> {
        let (from, to) = self.disk.content().sync_ms;
        let time = Draws::new(interpose::chance()).within(from, to + 1);
        if time == 0 {
            return std::future::ready(()).boxed();
        }
        tokio::time::sleep(Duration::from_millis(time)).boxed()
    }

    fn log_bounds(&self) -> LogBounds {
        self.bounds
    }

    fn call(
        &self,
        address: &str,
        _: Lane,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, StdError>> {
        match member_at(address) {
            Some(to) => self.network.call(self.member, to, request),
            None => std::future::ready(Err(format!("nobody is at {address}").into())).boxed(),
        }
    }
}

/// The platform of a member.
pub(crate) fn platform(
    member: usize,
    disk: &SimulatedDisk,
    network: &SimulatedNetwork,
    bounds: LogBounds,
) -> Arc<dyn SimulatedPlatform> {
    Arc::new(MemberPlatform { member, disk: disk.clone(), network: network.clone(), bounds })
}
