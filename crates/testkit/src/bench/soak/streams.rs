//! Bytes that can be told from any others: a stream is known by its seed alone.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A stream of bytes that follows from its seed.
#[derive(Debug, Clone)]
pub(super) struct Stream(fastrand::Rng);

impl Stream {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// One byte after the other, so that the pieces in which a stream is read do not matter.
    fn next(&mut self) -> u8 {
        self.0.u8(..)
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
