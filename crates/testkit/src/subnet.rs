//! Loopback addresses that no other test uses.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The claim on a subnet is this port on its last address, held open; the kernel gives it up when the process ends.
const CLAIM_PORT: u16 = 7479;

/// 127.x.y.0/24. All of 127.0.0.0/8 answers on Linux without any set-up.
#[derive(Debug)]
pub struct Subnet {
    second: u8,
    third: u8,
    _claim: TcpListener,
}

impl Subnet {
    /// Claims a subnet that no live process has claimed.
    ///
    /// # Panics
    /// When all of them are taken.
    pub fn claim() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start at different places, so that they seldom meet. 127.0 to 127.15 stay free for other uses, and
        // 127.128 and up for backends that exist in numbers.
        let start = std::process::id().wrapping_mul(97);
        for _ in 0..112 * 256 {
            let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (112 * 256);
            let (second, third) = ((16 + number / 256) as u8, (number % 256) as u8);
            if let Ok(claim) = TcpListener::bind((Ipv4Addr::new(127, second, third, 254), CLAIM_PORT)) {
                return Self { second, third, _claim: claim };
            }
        }
        panic!("every loopback subnet from 127.16 to 127.127 is claimed");
    }

    /// An address in it; `host` is 1 to 253.
    pub fn ip(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, self.third, host)
    }
}
