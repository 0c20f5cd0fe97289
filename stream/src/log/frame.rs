//! One frame of a segment, as bytes.
//!
//! ```text
//! crc32 u32 | payload length u32 | offset i64 | index in its batch u32 | payload      (little endian)
//! ```
//!
//! The CRC covers everything after itself, so a frame that was moved to another offset is as wrong as a flipped bit.
//! The index tells which frames were durable before this one was written: a batch starts only after the batch before it
//! was synced. That is what tells a torn tail (cut it) from damage to what had been promised (refuse it).

/// Bytes before the payload.
pub(super) const HEADER: usize = 20;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    crc: u32,
    /// Bytes of payload.
    pub(super) length: usize,
    /// The frame's offset in the log.
    pub(super) offset: i64,
    /// How many frames stand before it in its batch.
    pub(super) index: u32,
}

/// What stands at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A whole, sound frame.
    Frame(Header),
    /// The bytes end before the frame does; it needs this many.
    Short(usize),
    /// The CRC is wrong.
    Bad,
}

/// Appends one frame to `out`.
pub(super) fn encode(out: &mut Vec<u8>, offset: i64, index: u32, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(out.get(start + 4..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads the frame at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = header(bytes) else { return Parsed::Short(HEADER) };
    let end = HEADER + header.length;
    match bytes.get(4..end) {
        None => Parsed::Short(end),
        Some(covered) if crc32fast::hash(covered) == header.crc => Parsed::Frame(header),
        Some(_) => Parsed::Bad,
    }
}

fn header(bytes: &[u8]) -> Option<Header> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (index, _) = rest.split_first_chunk::<4>()?;
    Some(Header {
        crc: u32::from_le_bytes(*crc),
        length: u32::from_le_bytes(*length) as usize,
        offset: i64::from_le_bytes(*offset),
        index: u32::from_le_bytes(*index),
    })
}

/// Looks, in the bytes that follow from a bad frame at offset `bad`, for a sound frame that was written after that one
/// had been synced. Answers its place in `rest`. Its existence means damage; its absence means a torn tail.
pub(super) fn proof_of_damage(rest: &[u8], bad: i64) -> Option<usize> {
    // No more frames than this fit between here and the end, so most chance matches fall out before the CRC.
    let furthest = bad.saturating_add(i64::try_from(rest.len() / HEADER).unwrap_or(i64::MAX));
    (1..rest.len().saturating_sub(HEADER - 1)).find(|&at| {
        let here = rest.get(at..).unwrap_or_default();
        header(here).is_some_and(|header| {
            let batch_start = header.offset.saturating_sub(i64::from(header.index));
            header.offset <= furthest && batch_start > bad && matches!(parse(here), Parsed::Frame(_))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(first: i64, payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, payload) in payloads.iter().enumerate() {
            encode(&mut out, first + i as i64, i as u32, payload);
        }
        out
    }

    #[test]
    fn damage_is_told_from_a_torn_tail_by_the_batch_that_follows() {
        let first = batch(0, &[b"aa", b"bb", b"cc"]);
        let mut torn = first.clone();
        torn[HEADER] ^= 1;
        // The rest of the same batch proves nothing: it was written together with the bad frame.
        assert_eq!(proof_of_damage(&torn, 0), None);
        let mut damaged = torn;
        damaged.extend(batch(3, &[b"dd"]));
        assert_eq!(proof_of_damage(&damaged, 0), Some(first.len()));
    }

    #[test]
    fn zeroes_at_the_end_are_no_frame() {
        assert_eq!(parse(&[0; 64]), Parsed::Bad);
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_whole_or_not_at_all(payload: Vec<u8>, offset in 0i64..1 << 60, index: u32, cut: prop::sample::Index, bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            encode(&mut bytes, offset, index, &payload);
            let Parsed::Frame(header) = parse(&bytes) else { panic!("a sound frame was refused") };
            prop_assert_eq!((header.length, header.offset, header.index), (payload.len(), offset, index));
            prop_assert!(matches!(parse(&bytes[..cut.index(bytes.len())]), Parsed::Short(_)));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(parse(&bytes), Parsed::Frame(_)));
        }
    }
}
