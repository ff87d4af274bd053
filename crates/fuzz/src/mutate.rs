//! Changes of an input.

/// Makes lengths and checksums of an input right.
pub type Repair = fn(&mut [u8]);

/// Numbers at which code decides: ends of ranges, and what lengths are compared with.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 4, 7, 8, 15, 16, 127, 128, 255, 16 * 1024, u16::MAX as u64, u32::MAX as u64];

/// Most changes that are made to an input at once.
const AT_ONCE_MAX: usize = 6;

pub(crate) struct Mutator<'a> {
    random: fastrand::Rng,
    words: &'a [&'a [u8]],
    len_max: usize,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, words: &'a [&'a [u8]], len_max: usize) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), words, len_max }
    }

    pub(crate) fn even(&mut self) -> bool {
        self.random.bool()
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.random.usize(..bound)
    }

    /// One of `kept`, changed.
    pub(crate) fn changed(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one(kept).to_vec();
        for _ in 0..self.random.usize(1..=AT_ONCE_MAX) {
            self.change(&mut input, kept);
            // Most inputs differ in one place only: others fail where the first change is found.
            if self.random.bool() {
                break;
            }
        }
        input.truncate(self.len_max);
        input
    }

    fn one<'k>(&mut self, kept: &'k [Vec<u8>]) -> &'k [u8] {
        kept.get(self.below(kept.len())).map_or(&[], Vec::as_slice)
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let at = self.random.usize(..=input.len());
        let part = at..(at + self.random.usize(..=16)).min(input.len());
        match self.random.u8(..12) {
            0 => self.at(input, at, |random, byte| *byte ^= 1 << random.u8(..8)),
            1 => self.at(input, at, |random, byte| *byte = random.u8(..)),
            2 => {
                self.at(input, at, |random, byte| *byte = byte.wrapping_add(random.u8(..16)).wrapping_sub(8))
            }
            3 => self.put_number(input, at),
            4 => self.nudge_number(input, at),
            5 => drop(input.drain(part)),
            6 => input.truncate(at),
            7 => {
                let copy = input.get(part).unwrap_or_default().to_vec();
                let times = self.random.usize(1..=8);
                insert(input, at, &copy.repeat(times));
            }
            8 => {
                let bytes: Vec<u8> = (0..self.random.usize(1..=8)).map(|_| self.random.u8(..)).collect();
                insert(input, at, &bytes);
            }
            9 => {
                let Some(word) = self.random.choice(self.words) else { return };
                insert(input, at, word);
            }
            10 => {
                let Some(word) = self.random.choice(self.words) else { return };
                let end = (at + word.len()).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
            // The rest of another input, so that parts come together that were never one.
            _ => {
                let other = self.one(kept);
                let from = self.random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    fn at(&mut self, input: &mut [u8], at: usize, change: impl FnOnce(&mut fastrand::Rng, &mut u8)) {
        if let Some(byte) = input.get_mut(at) {
            change(&mut self.random, byte);
        }
    }

    /// Width in bytes and order of a number.
    fn shape(&mut self) -> (usize, bool) {
        (1 << self.random.usize(..4), self.random.bool())
    }

    fn put_number(&mut self, input: &mut [u8], at: usize) {
        let (width, big) = self.shape();
        let value = self.random.choice(NUMBERS).unwrap_or(0);
        write_number(input, at, width, big, |_| value);
    }

    /// Moves a number by a little, as an offence against a length does.
    fn nudge_number(&mut self, input: &mut [u8], at: usize) {
        let (width, big) = self.shape();
        let by = self.random.u64(1..=9);
        let up = self.random.bool();
        let change = |value: u64| if up { value.wrapping_add(by) } else { value.wrapping_sub(by) };
        write_number(input, at, width, big, change);
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

/// Replaces the number of `width` bytes at `at`, if it is there as a whole.
fn write_number(input: &mut [u8], at: usize, width: usize, big: bool, change: impl FnOnce(u64) -> u64) {
    let Some(bytes) = input.get_mut(at..).and_then(|rest| rest.get_mut(..width)) else { return };
    let mut buffer = [0; 8];
    for (place, byte) in bytes.iter().enumerate() {
        buffer[if big { width - 1 - place } else { place }] = *byte;
    }
    let new = change(u64::from_le_bytes(buffer)).to_le_bytes();
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = new[if big { width - 1 - place } else { place }];
    }
}
