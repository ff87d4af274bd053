//! What members send for the virtual address, as the switch receives it: tcpdump with the kernel's time stamps.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::{NamedTempFile, TempDir};

use super::Lab;
use super::answers::{AddressClaim, claim};
use crate::wait::wait_for;

/// Bound on the start and the end of tcpdump.
const LIMIT: Duration = Duration::from_secs(10);

/// The beginning of a file with nanoseconds in this machine's byte order (draft-ietf-opsawg-pcap, section 4).
const MAGIC: u32 = 0xa1b2_3c4d;
/// `LINKTYPE_LINUX_SLL2`: before each packet its EtherType, the interface, and the sender's address.
const LINK_TYPE: u32 = 276;
/// Bytes of that.
const LINK_HEADER: usize = 20;

/// A capture of what members send. Ends when dropped.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Child,
    frames: NamedTempFile,
    said: NamedTempFile,
    /// Interfaces of the switch that lead to members; `None` for all that there are.
    ports: Option<Vec<u32>>,
    address: IpAddr,
    _dir: TempDir,
}

impl Capture {
    /// Starts tcpdump on the switch and returns when it sees frames.
    pub(super) fn start(lab: &Lab, address: IpAddr) -> Self {
        let ports = lab.members.iter().map(|host| lab.switch.index_of(&host.port)).collect();
        Self::begin(address, Some(ports), |command| lab.switch.run(|| command.spawn().unwrap()))
    }

    /// As on the switch of a lab, on whatever this machine itself receives: what containers send for an address that nobody else has.
    ///
    /// # Panics
    /// When the capture does not start.
    pub fn here(address: IpAddr) -> Self {
        Self::begin(address, None, |command| command.spawn().unwrap())
    }

    fn begin(address: IpAddr, ports: Option<Vec<u32>>, spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        let dir = TempDir::with_prefix("trestle-capture-").unwrap();
        let frames = NamedTempFile::new_in(dir.path()).unwrap();
        let said = NamedTempFile::new_in(dir.path()).unwrap();
        let mut command = Command::new("tcpdump");
        // The receiving side of all ports; a frame that the switch sends on is not seen a second time. Each frame in the
        // kernel's buffer takes as much as the longest that is asked for, so only heads are: 8 MiB hold 40 000 of them.
        command.args(["-i", "any", "-Q", "in", "-y", "LINUX_SLL2", "-n", "-U", "--immediate-mode"]);
        command.args(["-s", "128", "-B", "8192", "--time-stamp-precision=nano", "-w", "-"]).arg(format!(
            "arp or (icmp6 and ip6[40] == 136) or (src host {address} and \
             ((ip and tcp[tcpflags] & (tcp-syn|tcp-rst) != 0) or (ip6 and ip6[6] == 6 and ip6[53] & 6 != 0)))"
        ));
        command.stdin(Stdio::null()).stdout(frames.reopen().unwrap()).stderr(said.reopen().unwrap());
        let tcpdump = spawn(&mut command);
        let capture = Self { tcpdump, frames, said, ports, address, _dir: dir };
        wait_for("start of tcpdump", LIMIT, || {
            let said = capture.said();
            if said.contains("listening on") { Ok(()) } else { Err(said) }
        });
        capture
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.said.path()).unwrap()
    }

    /// Copies what was captured up to now to a file that tcpdump reads.
    ///
    /// # Panics
    /// When that cannot be written.
    pub fn keep(&self, file: &Path) {
        std::fs::copy(self.frames.path(), file).unwrap();
    }

    /// Ends the capture; answers who claimed the address, in order.
    ///
    /// # Panics
    /// When tcpdump does not end well, or the kernel had to drop frames.
    pub fn finish(mut self) -> Vec<AddressClaim> {
        kill_process(Pid::from_child(&self.tcpdump), Signal::INT).unwrap();
        wait_for("end of tcpdump", LIMIT, || self.tcpdump.try_wait().unwrap().ok_or("it still runs"));
        let said = self.said();
        assert!(said.contains("\n0 packets dropped by kernel"), "frames are missing: {said}");
        let mut bytes = Vec::new();
        File::open(self.frames.path()).unwrap().read_to_end(&mut bytes).unwrap();
        let frames = frames(&bytes).unwrap_or_else(|| panic!("no capture of the expected kind: {said}"));
        let own = frames
            .into_iter()
            .filter(|frame| self.ports.as_ref().is_none_or(|ports| ports.contains(&frame.interface)));
        let answer = |frame: Frame<'_>| {
            let kind = claim(frame.protocol, frame.packet, self.address)?;
            Some(AddressClaim { at: frame.at, mac: frame.mac, kind })
        };
        let mut answers: Vec<AddressClaim> = own.filter_map(answer).collect();
        // Two processors may have had two frames at once.
        answers.sort_by_key(|answer| answer.at);
        answers
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It has ended already unless something went wrong.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// The moment of a time stamp in a capture.
pub(super) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// A packet of the capture.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    at: Duration,
    interface: u32,
    mac: [u8; 6],
    protocol: u16,
    packet: &'a [u8],
}

/// Reads a capture; `None` when it is not one of the kind that is asked for. A last packet that is cut short is left out.
fn frames(mut bytes: &[u8]) -> Option<Vec<Frame<'_>>> {
    let word =
        |bytes: &[u8], place: usize| Some(u32::from_ne_bytes(bytes.get(place..place + 4)?.try_into().ok()?));
    if word(bytes, 0)? != MAGIC || word(bytes, 20)? & 0xffff != LINK_TYPE {
        return None;
    }
    bytes = bytes.get(24..)?;
    let mut frames = Vec::new();
    while let (Some(seconds), Some(nanoseconds), Some(length)) =
        (word(bytes, 0), word(bytes, 4), word(bytes, 8))
    {
        let end = 16 + length as usize;
        let Some(frame) = bytes.get(16..end) else { break };
        if frame.len() >= LINK_HEADER {
            frames.push(Frame {
                at: Duration::new(seconds.into(), nanoseconds),
                interface: u32::from_be_bytes(frame[4..8].try_into().ok()?),
                mac: frame[12..18].try_into().ok()?,
                protocol: u16::from_be_bytes(frame[..2].try_into().ok()?),
                packet: &frame[LINK_HEADER..],
            });
        }
        bytes = &bytes[end..];
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_read_to_the_last_whole_packet() {
        let mut bytes = Vec::new();
        let words = |bytes: &mut Vec<u8>, words: &[u32]| {
            words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        };
        words(&mut bytes, &[MAGIC, 0, 0, 0, 262_144, LINK_TYPE]);
        assert_eq!(frames(&bytes), Some(Vec::new()));
        words(&mut bytes, &[7, 9, 22, 22]);
        bytes.extend([8, 6, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0xab, 0xcd]);
        let whole = bytes.len();
        let expected = Frame {
            at: Duration::new(7, 9),
            interface: 3,
            mac: [2, 0, 0, 0, 0, 1],
            protocol: 0x0806,
            packet: &[0xab, 0xcd],
        };
        assert_eq!(frames(&bytes), Some(vec![expected]));
        for length in 24..whole {
            assert_eq!(frames(&bytes[..length]), Some(Vec::new()), "{length} bytes");
        }
        bytes[20] = 1;
        assert_eq!(frames(&bytes), None);
    }
}
