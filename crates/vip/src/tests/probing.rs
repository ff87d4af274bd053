//! A client that asks all the time and notes when it was answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use trestle_testkit::wait_for;

use super::lab::{Host, LIMIT};
use crate::frames;
use crate::route::RouteSocket;
use crate::sockets::{ArpSocket, NeighborSocket};

/// Time between two questions.
const PACE: Duration = Duration::from_millis(1);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// ICMP echo.
    Echo,
    /// Whose the address is: ARP, or neighbour discovery.
    Owner,
}

/// One question at a time: when it was put, and whether it was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) answered: bool,
}

/// Asks until it is ended.
pub(super) struct Prober {
    end: Arc<AtomicBool>,
    answers: Arc<std::sync::Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    pub(super) fn start(from: &Host, address: IpAddr, question: Question) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let answers = Arc::<std::sync::Mutex<Vec<Asked>>>::default();
        let (from, stop, results) = (from.clone(), Arc::clone(&end), Arc::clone(&answers));
        let thread = std::thread::spawn(move || {
            from.enter();
            let mut asker = Asker::open(address, question);
            while !stop.load(Ordering::Relaxed) {
                let at = Instant::now();
                asker.ask();
                let answered = asker.answered();
                results.lock().unwrap().push(Asked { at, answered });
                std::thread::sleep(PACE);
            }
        });
        Self { end, answers, thread: Some(thread) }
    }

    /// Waits for an answer to a question that is put from now on.
    pub(super) fn wait_for_answer(&self) {
        let since = Instant::now();
        wait_for("an answer", LIMIT, || {
            let answers = self.answers.lock().unwrap();
            let answered =
                answers.iter().rev().take_while(|asked| asked.at >= since).any(|asked| asked.answered);
            if answered { Ok(()) } else { Err("none so far") }
        });
    }

    /// Waits until this many more questions have been put, answered or not.
    pub(super) fn wait_for_questions(&self, count: usize) {
        let before = self.answers.lock().unwrap().len();
        wait_for("questions", LIMIT, || {
            let more = self.answers.lock().unwrap().len() - before;
            if more >= count { Ok(()) } else { Err(format!("{more} so far")) }
        });
    }

    pub(super) fn finish(mut self) -> Vec<Asked> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// When the last question was put that got an answer.
pub(super) fn last_answered(asked: &[Asked]) -> Option<Instant> {
    asked.iter().filter(|asked| asked.answered).map(|asked| asked.at).max()
}

struct Asker {
    address: IpAddr,
    echo: Socket,
    sequence: u16,
    owner: Option<(ArpSocket, NeighborSocket, u32, crate::Mac)>,
}

impl Asker {
    fn open(address: IpAddr, question: Question) -> Self {
        let (domain, protocol) = match address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let echo = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol)).unwrap();
        let owner = (question == Question::Owner).then(|| {
            let interface = RouteSocket::open().unwrap().interface("eth0").unwrap().unwrap();
            let arp = ArpSocket::open(interface.index).unwrap();
            (arp, NeighborSocket::open().unwrap(), interface.index, interface.mac.unwrap())
        });
        Self { address, echo, sequence: 0, owner }
    }

    fn ask(&mut self) {
        // Announcements from before the question are no answers to it.
        while self.heard() {}
        self.sequence = self.sequence.wrapping_add(1);
        // What cannot be sent (no neighbour, no link) counts as unanswered.
        match (&self.owner, self.address) {
            (Some((arp, _, _, mac)), IpAddr::V4(ip)) => {
                let _ = arp.send(&frames::probe(*mac, ip));
            }
            (Some((_, neighbors, index, mac)), IpAddr::V6(ip)) => {
                let _ = neighbors.send(&frames::solicitation(*mac, ip), frames::solicited_node(ip), *index);
            }
            (None, address) => {
                let _ = self.echo.send_to(&echo(address, self.sequence), &SocketAddr::new(address, 0).into());
            }
        }
    }

    fn answered(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.heard() {
                return true;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        false
    }

    fn heard(&self) -> bool {
        let wanted = |heard: frames::Heard| heard.address == self.address;
        match (&self.owner, self.address) {
            (Some((arp, ..)), IpAddr::V4(_)) => std::iter::from_fn(|| arp.heard()).any(wanted),
            (Some((_, neighbors, ..)), IpAddr::V6(_)) => std::iter::from_fn(|| neighbors.heard()).any(wanted),
            (None, address) => self.heard_echo(address),
        }
    }

    fn heard_echo(&self, address: IpAddr) -> bool {
        let mut buffer = [0; 256];
        while let Ok((length, _)) =
            rustix::net::recv(&self.echo, buffer.as_mut_slice(), rustix::net::RecvFlags::empty())
        {
            // Raw IPv4 sockets hand out the IP header as well.
            let (head, reply) = if address.is_ipv4() { (20, 0) } else { (0, 129) };
            let message = buffer[..length].get(head..).unwrap_or_default();
            if message.len() >= 8 && message[0] == reply && message[6..8] == self.sequence.to_be_bytes() {
                return true;
            }
        }
        false
    }
}

/// An echo request.
fn echo(address: IpAddr, sequence: u16) -> [u8; 8] {
    let [high, low] = sequence.to_be_bytes();
    let mut message = [if address.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 7, high, low];
    if address.is_ipv4() {
        // RFC 1071; the kernel does it for ICMPv6.
        let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        message[2..4].copy_from_slice(&(!folded).to_be_bytes());
    }
    message
}
