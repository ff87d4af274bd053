//! Capabilities; they belong to threads, so each test changes those of a thread of its own.

use caps::{CapSet, Capability};
use trestle_testkit::skip;

use super::lab::{Lab, lease, settings, vip};
use super::probing::{Prober, Question};
use crate::{LinuxKernel, VipError, drop_other_capabilities, require_capabilities};

#[test]
fn a_missing_capability_is_named() {
    if !rustix::process::geteuid().is_root() {
        skip("capabilities take root");
        return;
    }
    let refused = std::thread::spawn(|| {
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_RAW).unwrap();
        let one = require_capabilities().unwrap_err();
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
        (one, LinuxKernel::open(settings("member").0).unwrap_err())
    });
    let (one, both) = refused.join().unwrap();
    assert!(matches!(&one, VipError::Capability(missing) if missing == "CAP_NET_RAW"), "{one}");
    assert!(
        matches!(&both, VipError::Capability(missing) if missing == "CAP_NET_ADMIN CAP_NET_RAW"),
        "{both}"
    );
    assert!(both.to_string().contains("AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"), "{both}");
}

#[test]
fn three_capabilities_are_enough() {
    let Some(lab) = Lab::build(1) else { return };
    let vip = vip("10.77.0.50/24");
    let kernel = lab.members[0].run(|| {
        drop_other_capabilities().unwrap();
        let left = caps::read(None, CapSet::Permitted).unwrap();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(!caps::has_cap(None, CapSet::Bounding, Capability::CAP_SYS_ADMIN).unwrap());
        let kernel = LinuxKernel::open(settings("member").0).unwrap();
        kernel.claim(&vip, &lease(std::time::Duration::from_secs(60))).unwrap();
        kernel
    });
    Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
    kernel.release(vip.address).unwrap();
}
