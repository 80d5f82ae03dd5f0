//! Reads frames from a capture file: pcap (draft-ietf-opsawg-pcap) in both byte orders and
//! resolutions, and pcapng (draft-ietf-opsawg-pcapng).
//!
//! Times are ignored, and so are blocks of pcapng without a frame.

/// A frame of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured<'a> {
    /// The captured bytes, which may be truncated.
    pub bytes: &'a [u8],
    /// The length of the frame before truncation.
    pub length: usize,
}

/// The reason why a file is not a capture of Ethernet frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PcapError {
    /// The file begins with other bytes than a capture.
    #[error("it is neither pcap nor pcapng; write it with `tcpdump -w`")]
    Format,
    /// The capture contains frames of another link type.
    #[error(
        "its frames are of link type {0}, not Ethernet (1); capture on the guest's interface itself"
    )]
    Link(u32),
    /// The file ends within a frame, or has invalid lengths.
    #[error("it is damaged behind frame {0}; capture again")]
    Damaged(usize),
}

/// The link type of Ethernet.
const ETHERNET: u32 = 1;
/// The first bytes of a pcapng file: the type of its first block, which is the same in both byte
/// orders.
const SECTION: u32 = 0x0a0d_0d0a;

/// Returns the frames of a capture file.
///
/// # Errors
/// Returns [`PcapError`] if the file is not valid.
pub fn read(bytes: &[u8]) -> Result<Vec<Captured<'_>>, PcapError> {
    /// The magic numbers for microseconds and nanoseconds.
    const PCAP: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
    let mut reader = Reader { rest: bytes, big: false };
    let magic = reader.word().ok_or(PcapError::Format)?;
    if magic == SECTION {
        return blocks(bytes);
    }
    reader.big = match magic {
        magic if PCAP.contains(&magic) => false,
        magic if PCAP.contains(&magic.swap_bytes()) => true,
        _ => return Err(PcapError::Format),
    };
    // This skips version, zone, accuracy and limit, 16 bytes in total.
    reader.take(16).ok_or(PcapError::Format)?;
    // The upper bits say whether the frames include their checksum.
    link(reader.word().ok_or(PcapError::Format)? & 0xffff)?;
    let mut frames = Vec::new();
    while !reader.rest.is_empty() {
        let frame = record(&mut reader).ok_or(PcapError::Damaged(frames.len()))?;
        frames.push(frame);
    }
    Ok(frames)
}

fn link(kind: u32) -> Result<(), PcapError> {
    if kind == ETHERNET { Ok(()) } else { Err(PcapError::Link(kind)) }
}

fn record<'a>(reader: &mut Reader<'a>) -> Option<Captured<'a>> {
    reader.take(8)?;
    let kept = reader.length()?;
    let length = reader.length()?;
    Some(Captured { bytes: reader.take(kept)?, length })
}

/// Returns the frames of a pcapng file.
fn blocks(bytes: &[u8]) -> Result<Vec<Captured<'_>>, PcapError> {
    const INTERFACE: u32 = 1;
    const SIMPLE: u32 = 3;
    const ENHANCED: u32 = 6;
    /// The bytes of a block's type and its length, which occurs twice.
    const AROUND: usize = 12;
    let mut reader = Reader { rest: bytes, big: false };
    let mut frames = Vec::new();
    let mut links = Vec::new();
    while !reader.rest.is_empty() {
        let damaged = PcapError::Damaged(frames.len());
        let kind = reader.word().ok_or(damaged)?;
        if kind == SECTION {
            let order = reader.rest.get(4..8).ok_or(damaged)?;
            reader.big = order == [0x1a, 0x2b, 0x3c, 0x4d];
            links.clear();
        }
        let length = reader.length().ok_or(damaged)?;
        let body = length.checked_sub(AROUND).and_then(|length| reader.take(length));
        let mut body = Reader { rest: body.ok_or(damaged)?, big: reader.big };
        reader.take(4).ok_or(damaged)?;
        match kind {
            INTERFACE => links.push(u32::from(body.short().ok_or(damaged)?)),
            ENHANCED => {
                let interface = body.length().ok_or(damaged)?;
                link(*links.get(interface).ok_or(damaged)?)?;
                frames.push(record(&mut body).ok_or(damaged)?);
            }
            SIMPLE => {
                link(*links.first().ok_or(damaged)?)?;
                let length = body.length().ok_or(damaged)?;
                // The remaining bytes are the frame, and zeros up to a multiple of four.
                let kept = length.min(body.rest.len());
                frames.push(Captured { bytes: &body.rest[..kept], length });
            }
            _ => {}
        }
    }
    Ok(frames)
}

/// A reader of bytes in one of the two orders.
struct Reader<'a> {
    rest: &'a [u8],
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn short(&mut self) -> Option<u16> {
        let bytes = *self.take(2)?.first_chunk()?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn word(&mut self) -> Option<u32> {
        let bytes = *self.take(4)?.first_chunk()?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn length(&mut self) -> Option<usize> {
        self.word()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcap(big: bool, magic: u32, link: u32, frames: &[(&[u8], u32)]) -> Vec<u8> {
        let word = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut file = [word(magic), word(0), word(0), word(0), word(65535), word(link)].concat();
        for (bytes, length) in frames {
            file.extend([word(0), word(0), word(bytes.len() as u32), word(*length)].concat());
            file.extend(*bytes);
        }
        file
    }

    fn pcapng(big: bool, frames: &[(u32, &[u8])]) -> Vec<u8> {
        let word = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let short = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let block = |kind: u32, body: Vec<u8>| {
            let length = word(body.len() as u32 + 12);
            [word(kind).to_vec(), length.to_vec(), body, length.to_vec()].concat()
        };
        let head = [word(0x1a2b_3c4d), [0; 4], [0xff; 4], [0xff; 4]].concat();
        let mut file = block(SECTION, head);
        file.extend(block(5, vec![1, 2, 3, 4]));
        file.extend(block(1, [short(1).to_vec(), vec![0; 6]].concat()));
        for (kind, bytes) in frames {
            let length = word(bytes.len() as u32);
            let head = match kind {
                6 => [word(0), word(0), word(0), length, length].concat(),
                _ => length.to_vec(),
            };
            let padding = vec![0; bytes.len().next_multiple_of(4) - bytes.len()];
            file.extend(block(*kind, [head, bytes.to_vec(), padding].concat()));
        }
        file
    }

    #[test]
    fn captures_of_both_byte_orders_and_resolutions_are_read() {
        for big in [false, true] {
            for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
                let file = pcap(big, magic, 1, &[(b"ab", 2), (b"", 60), (b"cde", 1500)]);
                let frames = read(&file).unwrap();
                let found: Vec<_> = frames.iter().map(|f| (f.bytes, f.length)).collect();
                assert_eq!(found, [(b"ab".as_slice(), 2), (b"", 60), (b"cde", 1500)]);
            }
            let file = pcapng(big, &[(6, b"abc"), (3, b"defgh")]);
            let frames = read(&file).unwrap();
            let found: Vec<_> = frames.iter().map(|f| (f.bytes, f.length)).collect();
            assert_eq!(found, [(b"abc".as_slice(), 3), (b"defgh", 5)]);
        }
    }

    #[test]
    fn bytes_of_no_capture_are_refused() {
        assert_eq!(read(b""), Err(PcapError::Format));
        assert_eq!(read(b"netlaunch"), Err(PcapError::Format));
        assert_eq!(read(&pcap(false, 0xa1b2_c3d4, 113, &[])), Err(PcapError::Link(113)));
        let file = pcap(true, 0xa1b2_c3d4, 1, &[(b"ab", 2), (b"cd", 2)]);
        assert_eq!(read(&file[..file.len() - 1]), Err(PcapError::Damaged(1)));
    }

    #[test]
    fn a_truncated_capture_gives_an_error_or_frames() {
        for file in [pcap(false, 0xa1b2_c3d4, 1, &[(b"abcd", 4)]), pcapng(true, &[(6, b"abcd")])] {
            for end in 0..file.len() {
                let _ = read(&file[..end]);
            }
            for at in 0..file.len() {
                for byte in [0, 1, 0x7f, 0xff] {
                    let mut file = file.clone();
                    file[at] = byte;
                    let _ = read(&file);
                }
            }
        }
    }
}
