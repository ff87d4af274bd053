//! Bytes that can be told from any others: a stream is known by its seed alone.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A stream of bytes that follows from its seed (SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub(super) struct Stream {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Stream {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, word: [0; 8], used: 8 }
    }

    fn next(&mut self) -> u8 {
        if self.used == 8 {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            self.word = (z ^ (z >> 31)).to_le_bytes();
            self.used = 0;
        }
        self.used += 1;
        self.word[self.used - 1]
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        buffer.iter_mut().for_each(|byte| *byte = self.next());
    }

    /// Whether these are the next bytes.
    pub(super) fn matches(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| *byte == self.next())
    }
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// All of it, and nothing after it yet.
    Whole,
    /// It broke off, with what came being right.
    Short,
    /// Something else came.
    Wrong,
}

const CHUNK: usize = 32 * 1024;

/// Sends `length` bytes of a stream.
pub(super) async fn send(to: &mut (impl AsyncWriteExt + Unpin), seed: u64, length: u64) -> io::Result<()> {
    let (mut stream, mut left) = (Stream::new(seed), length);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let count = left.min(CHUNK as u64) as usize;
        stream.fill(&mut buffer[..count]);
        to.write_all(&buffer[..count]).await?;
        left -= count as u64;
    }
    Ok(())
}

/// Receives `length` bytes of a stream.
pub(super) async fn receive(from: &mut (impl AsyncReadExt + Unpin), seed: u64, length: u64) -> Received {
    let (mut stream, mut left) = (Stream::new(seed), length);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let most = left.min(CHUNK as u64) as usize;
        match from.read(&mut buffer[..most]).await {
            Ok(0) | Err(_) => return Received::Short,
            Ok(count) if stream.matches(&buffer[..count]) => left -= count as u64,
            Ok(_) => return Received::Wrong,
        }
    }
    Received::Whole
}
