//! What the process may do: no more than virtual IPs and low ports take.

use caps::{CapSet, Capability, CapsHashSet};

use crate::error::VipError;

/// Addresses and nftables; packet and ICMPv6 sockets.
const NEEDED: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
/// Listeners below port 1024.
const WELCOME: Capability = Capability::CAP_NET_BIND_SERVICE;

fn failed(doing: &'static str) -> impl Fn(caps::errors::CapsError) -> VipError {
    move |error| VipError::Capabilities { doing, reason: error.to_string() }
}

/// Whether the calling thread may hold virtual IPs.
///
/// # Errors
/// [`VipError::Capability`] with every capability that is missing (CAP_NET_ADMIN, CAP_NET_RAW).
pub fn require_capabilities() -> Result<(), VipError> {
    require(&NEEDED)
}

/// Whether the calling thread may change addresses and nftables.
pub(crate) fn require_net_admin() -> Result<(), VipError> {
    require(&[Capability::CAP_NET_ADMIN])
}

fn require(needed: &[Capability]) -> Result<(), VipError> {
    let have = caps::read(None, CapSet::Effective).map_err(failed("read"))?;
    let missing: Vec<String> =
        needed.iter().filter(|needed| !have.contains(needed)).map(ToString::to_string).collect();
    if missing.is_empty() { Ok(()) } else { Err(VipError::Capability(missing.join(" "))) }
}

/// Gives up every capability in all sets, and the right to get any by running another program, root or not: for a process
/// that runs what belongs to somebody else.
///
/// # Errors
/// [`VipError::Capabilities`] when the kernel refuses.
pub fn drop_all_capabilities() -> Result<(), VipError> {
    let failing =
        |error: rustix::io::Errno| VipError::Capabilities { doing: "drop", reason: error.to_string() };
    // Without it root would have all that is in the bounding set again after execve (capabilities(7)).
    rustix::thread::set_no_new_privs(true).map_err(failing)?;
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(failed("drop"))?;
    }
    Ok(())
}

/// Gives up every capability but CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE, for good, in all sets.
///
/// Capabilities belong to threads and new threads inherit them: call this before any other thread starts. Root then is no
/// more than a user who owns root's files. Those of the three that the process never had stay missing.
///
/// # Errors
/// [`VipError::Capabilities`] when the kernel refuses.
pub fn drop_other_capabilities() -> Result<(), VipError> {
    let keep: CapsHashSet = NEEDED.into_iter().chain([WELCOME]).collect();
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed("read"))?;
    if permitted.contains(&Capability::CAP_SETPCAP) {
        // What is out of the bounding set cannot come back through a set-uid program. Without CAP_SETPCAP the process is no
        // root, and service managers have bounded it.
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed("read"))?;
        for capability in bounding.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(failed("drop"))?;
        }
    }
    let kept: CapsHashSet = permitted.intersection(&keep).copied().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(failed("drop"))?;
    }
    // Programs that are started, such as a user's check script, get none.
    caps::clear(None, CapSet::Ambient).map_err(failed("drop"))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed("drop"))
}
