//! The frame around every record: a version byte and a checksum, so that no damaged record is ever decoded.

use prost::Message;

/// Version of the frame.
pub(crate) const VERSION: u8 = 1;
/// Version byte and CRC-32.
const HEADER: usize = 5;

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// It is shorter than its frame.
    #[error("it has {0} bytes, which is less than the {HEADER} of its frame")]
    Short(usize),
    /// Its checksum does not hold.
    #[error("its checksum is {stored:08x}, but its content gives {computed:08x}")]
    Checksum {
        /// As written.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// It was written by a newer version.
    #[error("its version is {0}, and this program reads {VERSION}")]
    Newer(u8),
    /// It is intact, and this program cannot read it.
    #[error("{0}")]
    Content(String),
    /// It is the record of another log entry.
    #[error("it says that it is entry {0}")]
    OtherEntry(u64),
}

impl RecordError {
    /// Whether a write that was interrupted can have left it so.
    pub(crate) fn is_torn(&self) -> bool {
        matches!(self, RecordError::Short(_) | RecordError::Checksum { .. })
    }
}

fn checksum(version: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version]);
    hasher.update(payload);
    hasher.finalize()
}

/// Frames a message.
pub(crate) fn seal(message: &impl Message) -> Vec<u8> {
    let mut record = vec![0; HEADER];
    record.reserve(message.encoded_len());
    // A `Vec` grows, so encoding into one cannot run out of room.
    let _: Result<(), prost::EncodeError> = message.encode(&mut record);
    let crc = checksum(VERSION, &record[HEADER..]);
    record[0] = VERSION;
    record[1..HEADER].copy_from_slice(&crc.to_be_bytes());
    record
}

/// Checks a frame and decodes its message.
pub(crate) fn unseal<M: Message + Default>(record: &[u8]) -> Result<M, RecordError> {
    let [version, c0, c1, c2, c3, payload @ ..] = record else {
        return Err(RecordError::Short(record.len()));
    };
    let stored = u32::from_be_bytes([*c0, *c1, *c2, *c3]);
    let computed = checksum(*version, payload);
    if stored != computed {
        return Err(RecordError::Checksum { stored, computed });
    }
    if *version != VERSION {
        return Err(RecordError::Newer(*version));
    }
    M::decode(payload).map_err(|e| RecordError::Content(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trestle_api::storage::{LeaderId, Vote};

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let vote = Vote { leader: Some(LeaderId { term: 7, member_id: 3 }), committed: true };
        let sealed = seal(&vote);
        assert_eq!(unseal::<Vote>(&sealed), Ok(vote));
        for byte in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[byte] ^= 1 << bit;
                assert!(unseal::<Vote>(&changed).is_err(), "byte {byte}, bit {bit}");
            }
            assert!(unseal::<Vote>(&sealed[..byte]).is_err(), "cut at {byte}");
        }
    }

    #[test]
    fn a_newer_version_is_not_taken_for_damage() {
        let mut record = seal(&Vote::default());
        record[0] = 2;
        let crc = checksum(2, &[]);
        record[1..HEADER].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(unseal::<Vote>(&record), Err(RecordError::Newer(2)));
    }
}
