//! Reads frames from a capture, one after the other: pcap (draft-ietf-opsawg-pcap) in both byte
//! orders and resolutions, and pcapng (draft-ietf-opsawg-pcapng).
//!
//! [`PcapReader::frame`] reads as far as the end of the next frame and no further, so the capture
//! may be a pipe from a program that still captures. Only one frame is in memory. Times are
//! ignored, and so are blocks of pcapng without a frame.

use std::io::{self, ErrorKind, Read};

/// A frame of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured<'a> {
    /// The captured bytes, which may be truncated.
    pub bytes: &'a [u8],
    /// The length of the frame before truncation.
    pub length: usize,
}

/// The reason why the next frame of a capture cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcapError {
    /// The capture begins with other bytes.
    #[error("it is neither pcap nor pcapng; write it with `tcpdump -w`")]
    Format,
    /// The capture contains frames of another link type.
    #[error(
        "its frames are of link type {0}, not Ethernet (1); capture on the guest's interface itself"
    )]
    Link(u32),
    /// The capture ends within a frame, or has invalid lengths.
    #[error("it is damaged behind frame {0}; capture again")]
    Damaged(usize),
    /// The capture cannot be read.
    #[error("it cannot be read; name another capture")]
    Read(#[source] io::Error),
}

/// The link type of Ethernet.
const ETHERNET: u32 = 1;
/// The first bytes of a pcapng file: the type of its first block, which is the same in both byte
/// orders.
const SECTION: u32 = 0x0a0d_0d0a;
/// The magic numbers of pcap, for microseconds and nanoseconds.
const PCAP: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
/// The most bytes of a frame, or of a block of pcapng that contains one. tcpdump captures at most
/// 256 KiB of a frame (its MAXIMUM_SNAPLEN).
const MOST_BYTES: usize = 512 << 10;
/// The most interfaces of a section of pcapng.
const MOST_INTERFACES: usize = 1 << 16;

/// A reader of the frames of one capture.
#[derive(Debug)]
pub struct PcapReader<R> {
    input: R,
    /// The bytes of numbers are in big-endian order.
    big: bool,
    /// The link types of the section's interfaces; `None` for a pcap file.
    links: Option<Vec<u32>>,
    /// The type of the next block of pcapng, if it is read already.
    kind: Option<u32>,
    /// The bytes of the last frame or block.
    buffer: Vec<u8>,
    /// The number of frames that were read.
    frames: usize,
}

impl<R: Read> PcapReader<R> {
    /// Reads the head of a capture.
    ///
    /// # Errors
    /// [`PcapError`] if the bytes are no capture of Ethernet frames.
    pub fn open(mut input: R) -> Result<Self, PcapError> {
        let magic = head(&mut input)?;
        let magic = u32::from_le_bytes(magic);
        let big = match magic {
            SECTION => false,
            magic if PCAP.contains(&magic) => false,
            magic if PCAP.contains(&magic.swap_bytes()) => true,
            _ => return Err(PcapError::Format),
        };
        let kind = Some(SECTION).filter(|_| magic == SECTION);
        let links = kind.map(|_| Vec::new());
        let mut reader = PcapReader { input, big, links, kind, buffer: Vec::new(), frames: 0 };
        if reader.links.is_none() {
            // This skips version, zone, accuracy and limit, 16 bytes in total.
            let _: [u8; 16] = head(&mut reader.input)?;
            // The upper bits say whether the frames include their checksum.
            let kind = head(&mut reader.input).map(|bytes| reader.word_of(bytes))?;
            link(kind & 0xffff)?;
        }
        Ok(reader)
    }

    /// Reads the next frame; `None` at the end of the capture.
    ///
    /// # Errors
    /// [`PcapError`]; no frame follows.
    pub fn frame(&mut self) -> Result<Option<Captured<'_>>, PcapError> {
        let found = match self.links.take() {
            None => self.record()?,
            Some(mut links) => {
                let found = self.block(&mut links);
                self.links = Some(links);
                found?
            }
        };
        let Some((start, kept, length)) = found else { return Ok(None) };
        let end = start.checked_add(kept);
        let bytes = end.and_then(|end| self.buffer.get(start..end));
        let bytes = bytes.ok_or(PcapError::Damaged(self.frames))?;
        self.frames += 1;
        Ok(Some(Captured { bytes, length }))
    }

    /// Reads the next frame of a pcap file into the buffer. Returns its place in the buffer, the
    /// number of captured bytes and the length.
    fn record(&mut self) -> Result<Option<(usize, usize, usize)>, PcapError> {
        // The time has two words.
        if self.start()?.is_none() {
            return Ok(None);
        }
        let (_, kept, length) = (self.word()?, self.word()?, self.word()?);
        let (kept, length) = (self.length(kept)?, self.length(length)?);
        self.fill(kept)?;
        Ok(Some((0, kept, length)))
    }

    /// Reads blocks of a pcapng file up to the next one with a frame, as [`record`](Self::record)
    /// does.
    fn block(&mut self, links: &mut Vec<u32>) -> Result<Option<(usize, usize, usize)>, PcapError> {
        const INTERFACE: u32 = 1;
        const SIMPLE: u32 = 3;
        const ENHANCED: u32 = 6;
        /// The bytes of a block's type and its length, which occurs twice.
        const AROUND: usize = 12;
        loop {
            let kind = match self.kind.take() {
                Some(kind) => kind,
                None => match self.start()? {
                    Some(kind) => kind,
                    None => return Ok(None),
                },
            };
            let mut length: [u8; 4] = self.bytes()?;
            let mut read = 0;
            if kind == SECTION {
                let order: [u8; 4] = self.bytes()?;
                self.big = order == [0x1a, 0x2b, 0x3c, 0x4d];
                links.clear();
                read = order.len();
            }
            if self.big {
                length.reverse();
            }
            let length = self.length(u32::from_le_bytes(length))?;
            let body = length.checked_sub(AROUND + read).ok_or(PcapError::Damaged(self.frames))?;
            if !matches!(kind, INTERFACE | SIMPLE | ENHANCED) {
                self.skip(body + 4)?;
                continue;
            }
            self.fill(body)?;
            let _: [u8; 4] = self.bytes()?;
            let damaged = PcapError::Damaged(self.frames);
            let word = |reader: &Self, at: usize| {
                let bytes = reader.buffer.get(at..)?.first_chunk()?;
                Some(reader.word_of(*bytes))
            };
            let frame = match kind {
                INTERFACE => {
                    let link = word(self, 0).ok_or(damaged)?;
                    // The link type is the first half of the word.
                    let link = if self.big { link >> 16 } else { link & 0xffff };
                    if links.len() >= MOST_INTERFACES {
                        return Err(PcapError::Damaged(self.frames));
                    }
                    links.push(link);
                    continue;
                }
                ENHANCED => {
                    let words = (word(self, 0), word(self, 12), word(self, 16));
                    let (Some(interface), Some(kept), Some(length)) = words else {
                        return Err(damaged);
                    };
                    (interface, 20, kept, length)
                }
                _ => {
                    let length = word(self, 0).ok_or(damaged)?;
                    // The remaining bytes are the frame, and zeros up to a multiple of four.
                    let rest = u32::try_from(body - 4).unwrap_or(u32::MAX);
                    (0, 4, length.min(rest), length)
                }
            };
            let (interface, start, kept, length) = frame;
            let kind = usize::try_from(interface).ok().and_then(|at| links.get(at).copied());
            link(kind.ok_or(PcapError::Damaged(self.frames))?)?;
            return Ok(Some((start, self.length(kept)?, self.length(length)?)));
        }
    }

    /// Reads the first word of a record or block; `None` at the end of the capture.
    fn start(&mut self) -> Result<Option<u32>, PcapError> {
        let mut bytes = [0; 4];
        loop {
            match self.input.read(&mut bytes[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(PcapError::Read(error)),
            }
        }
        let rest = self.bytes::<3>()?;
        bytes[1..].copy_from_slice(&rest);
        Ok(Some(self.word_of(bytes)))
    }

    fn word(&mut self) -> Result<u32, PcapError> {
        self.bytes().map(|bytes| self.word_of(bytes))
    }

    fn word_of(&self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn length(&self, word: u32) -> Result<usize, PcapError> {
        usize::try_from(word).map_err(|_| PcapError::Damaged(self.frames))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PcapError> {
        let mut bytes = [0; N];
        let read = self.input.read_exact(&mut bytes);
        read.map(|()| bytes).map_err(|error| self.broken(error))
    }

    /// Reads this many bytes into the buffer.
    fn fill(&mut self, count: usize) -> Result<(), PcapError> {
        if count > MOST_BYTES {
            return Err(PcapError::Damaged(self.frames));
        }
        self.buffer.resize(count, 0);
        let read = self.input.read_exact(&mut self.buffer);
        read.map_err(|error| self.broken(error))
    }

    fn skip(&mut self, count: usize) -> Result<(), PcapError> {
        let most = u64::try_from(count).unwrap_or(u64::MAX);
        let skipped = io::copy(&mut self.input.by_ref().take(most), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == most => Ok(()),
            Ok(_) => Err(PcapError::Damaged(self.frames)),
            Err(error) => Err(PcapError::Read(error)),
        }
    }

    fn broken(&self, error: io::Error) -> PcapError {
        match error.kind() {
            ErrorKind::UnexpectedEof => PcapError::Damaged(self.frames),
            _ => PcapError::Read(error),
        }
    }
}

/// Reads bytes of a capture's head.
fn head<const N: usize>(input: &mut impl Read) -> Result<[u8; N], PcapError> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(PcapError::Format),
        Err(error) => Err(PcapError::Read(error)),
    }
}

fn link(kind: u32) -> Result<(), PcapError> {
    if kind == ETHERNET { Ok(()) } else { Err(PcapError::Link(kind)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes and lengths of the frames of a capture.
    type Frames = Vec<(Vec<u8>, usize)>;

    fn read(bytes: &[u8]) -> Result<Frames, String> {
        let mut frames = Vec::new();
        let mut reader = PcapReader::open(bytes).map_err(|error| error.to_string())?;
        while let Some(frame) = reader.frame().map_err(|error| error.to_string())? {
            frames.push((frame.bytes.to_vec(), frame.length));
        }
        Ok(frames)
    }

    fn frames(expected: &[(&[u8], usize)]) -> Result<Frames, String> {
        Ok(expected.iter().map(|(bytes, length)| (bytes.to_vec(), *length)).collect())
    }

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
                assert_eq!(read(&file), frames(&[(b"ab", 2), (b"", 60), (b"cde", 1500)]));
            }
            let file = pcapng(big, &[(6, b"abc"), (3, b"defgh")]);
            assert_eq!(read(&file), frames(&[(b"abc", 3), (b"defgh", 5)]));
        }
    }

    #[test]
    fn bytes_of_no_capture_are_refused() {
        let refused = |bytes: &[u8], error: PcapError| {
            assert_eq!(read(bytes), Err(error.to_string()));
        };
        refused(b"", PcapError::Format);
        refused(b"netlaunch", PcapError::Format);
        refused(&pcap(false, 0xa1b2_c3d4, 113, &[]), PcapError::Link(113));
        let file = pcap(true, 0xa1b2_c3d4, 1, &[(b"ab", 2), (b"cd", 2)]);
        refused(&file[..file.len() - 1], PcapError::Damaged(1));
        let huge = pcap(false, 0xa1b2_c3d4, 1, &[]);
        let huge = [huge, vec![0; 8], vec![0xff; 8]].concat();
        refused(&huge, PcapError::Damaged(0));
    }

    #[test]
    fn a_frame_is_read_before_the_next_one_is_written() {
        use std::io::Write;
        for file in [
            pcap(false, 0xa1b2_c3d4, 1, &[(b"first", 5), (b"second", 6)]),
            pcapng(true, &[(6, b"first"), (3, b"second")]),
        ] {
            let (from, mut to) = std::io::pipe().unwrap();
            let end = file.windows(6).position(|bytes| bytes == b"second").unwrap();
            // The pipe ends after the first frame, and before the second one's bytes.
            to.write_all(&file[..end]).unwrap();
            let mut reader = PcapReader::open(from).unwrap();
            assert_eq!(reader.frame().unwrap().unwrap().bytes, b"first");
            to.write_all(&file[end..]).unwrap();
            drop(to);
            assert_eq!(reader.frame().unwrap().unwrap().bytes, b"second");
            assert!(reader.frame().unwrap().is_none());
        }
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
