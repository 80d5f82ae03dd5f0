//! Recognises netlaunch among programs, without executing them.
//!
//! A stand-in has the name of a QEMU. So a search for the real QEMU finds the stand-in itself, and
//! stand-ins in other directories, which may be copies of another version. Executing one of them
//! could go on without end.
//!
//! The program file of netlaunch contains an ELF note with the name `netlaunch` (src/main.rs).
//! Every version has it, so each recognises every other. Reading it takes three small reads,
//! whatever the size of the file. The same file under another name is also recognised by its device
//! and inode.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The name of the note, with its final NUL byte.
const NOTE_NAME: &[u8] = b"netlaunch\0";

/// The largest segment of notes that is read. Those of QEMU and netlaunch have less than 200 bytes.
const MOST_NOTES: u64 = 1 << 16;

/// The program file of this process. It exists under this name even if it was replaced or removed.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

/// The kind of a program file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// netlaunch, of any version.
    Netlaunch,
    /// A script, or a program that is smaller than any QEMU and has none of its texts. It may call
    /// QEMU by its name.
    Wrapper,
    /// Any other program, and a file of another type.
    Other,
}

/// The size below which a program is no QEMU, if it has none of its texts. Debian's smallest system
/// emulator has 8 MB.
const SMALLEST_QEMU: u64 = 3 << 20;
/// The beginning of the text that every QEMU prints for `-version`.
const QEMUS_TEXT: &[u8] = b"QEMU emulator version ";

/// Returns the kind of the program file at `path`.
///
/// A file that cannot be read counts as netlaunch if it has the size of this program: a copy that
/// only its owner can read would otherwise execute itself.
pub(super) fn kind(path: &Path) -> Kind {
    // Opening a FIFO would wait for its writer.
    let Some(found) = fs::metadata(path).ok().filter(fs::Metadata::is_file) else {
        return Kind::Other;
    };
    let own = fs::metadata(OWN_PROGRAM).ok();
    let is_own = |own: &fs::Metadata| own.dev() == found.dev() && own.ino() == found.ino();
    if own.as_ref().is_some_and(is_own) {
        return Kind::Netlaunch;
    }
    let read = File::open(path).and_then(|file| kind_of_file(&file));
    read.unwrap_or(match own {
        Some(own) if own.len() == found.len() => Kind::Netlaunch,
        _ => Kind::Other,
    })
}

fn kind_of_file(file: &File) -> io::Result<Kind> {
    let mut start = [0; 64];
    let got = file.read_at(&mut start, 0)?;
    if start[..got].starts_with(b"#!") {
        return Ok(Kind::Wrapper);
    }
    let Some(header) = Header::read(&start[..got]) else { return Ok(Kind::Other) };
    if has_netlaunchs_note(file, &header)? {
        return Ok(Kind::Netlaunch);
    }
    Ok(if is_qemu(file)? { Kind::Other } else { Kind::Wrapper })
}

/// Returns whether an ELF file has the size or the texts of a QEMU.
fn is_qemu(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length >= SMALLEST_QEMU {
        return Ok(true);
    }
    let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
    let got = file.read_at(&mut content, 0)?;
    Ok(content[..got].windows(QEMUS_TEXT.len()).any(|text| text == QEMUS_TEXT))
}

fn has_netlaunchs_note(file: &File, header: &Header) -> io::Result<bool> {
    let mut table = vec![0; header.table_length()];
    let got = file.read_at(&mut table, header.table)?;
    for (offset, length) in header.note_segments(&table[..got]) {
        let mut notes = vec![0; usize::try_from(length.min(MOST_NOTES)).unwrap_or(0)];
        let got = file.read_at(&mut notes, offset)?;
        if header.has_note(&notes[..got]) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The parts of an ELF header (elf(5)) that lead to the notes.
struct Header {
    wide: bool,
    little: bool,
    /// The offset of the program headers, and the size and the number of them.
    table: u64,
    entry: usize,
    entries: usize,
}

impl Header {
    /// Reads a header; returns `None` if the file is no ELF file.
    fn read(start: &[u8]) -> Option<Self> {
        let (wide, little) = match start {
            [0x7f, b'E', b'L', b'F', class @ (1 | 2), data @ (1 | 2), ..] => {
                (*class == 2, *data == 1)
            }
            _ => return None,
        };
        let mut header = Header { wide, little, table: 0, entry: 0, entries: 0 };
        let [table, entry, entries] = if wide { [32, 54, 56] } else { [28, 42, 44] };
        header.table = header.address(start, table)?;
        header.entry = usize::try_from(header.number(start, entry, 2)?).ok()?;
        header.entries = usize::try_from(header.number(start, entries, 2)?).ok()?;
        Some(header)
    }

    /// Returns the length of the table of program headers, at most 4 GiB by the ranges of both
    /// factors; a longer one than usual is cut, since it is no program's.
    fn table_length(&self) -> usize {
        self.entry.saturating_mul(self.entries).min(MOST_NOTES as usize)
    }

    /// Returns the offset and the length of each segment with notes.
    fn note_segments(&self, table: &[u8]) -> Vec<(u64, u64)> {
        const PT_NOTE: u64 = 4;
        let [offset, length] = if self.wide { [8, 32] } else { [4, 16] };
        let entries = table.chunks_exact(self.entry.max(1));
        let notes = entries.filter(|entry| self.number(entry, 0, 4) == Some(PT_NOTE));
        notes
            .filter_map(|entry| Some((self.address(entry, offset)?, self.address(entry, length)?)))
            .collect()
    }

    /// Whether netlaunch's note is among the notes of a segment.
    fn has_note(&self, mut notes: &[u8]) -> bool {
        let aligned = |length: u64| usize::try_from(length.div_ceil(4) * 4).ok();
        loop {
            let lengths = [0, 4].map(|at| self.number(notes, at, 4));
            let [Some(name), Some(description)] = lengths else { return false };
            if notes.get(12..).is_some_and(|rest| rest.starts_with(NOTE_NAME))
                && name == NOTE_NAME.len() as u64
            {
                return true;
            }
            let next = aligned(name).zip(aligned(description));
            let next = next.and_then(|(name, description)| name.checked_add(description + 12));
            match next.and_then(|next| notes.get(next..)) {
                Some(rest) => notes = rest,
                None => return false,
            }
        }
    }

    fn address(&self, bytes: &[u8], at: usize) -> Option<u64> {
        self.number(bytes, at, if self.wide { 8 } else { 4 })
    }

    /// Reads an unsigned number of `length` bytes, at most 8.
    fn number(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + length)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let number =
            if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) };
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an ELF file, little-endian, whose only segment has the notes `notes`.
    fn elf(wide: bool, notes: &[u8]) -> Vec<u8> {
        let (size, fields, at): (usize, [usize; 3], [usize; 2]) =
            if wide { (56, [32, 54, 56], [8, 32]) } else { (32, [28, 42, 44], [4, 16]) };
        let mut file = vec![0; 64 + size];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1]);
        file[fields[0]] = 64;
        file[fields[1]] = size as u8;
        file[fields[2]] = 1;
        file[64] = 4;
        file[64 + at[0]] = (64 + size) as u8;
        file[64 + at[1]] = notes.len() as u8;
        file.extend(notes);
        file
    }

    fn note(name: &[u8], description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len(), description.len(), 1] {
            note.extend((number as u32).to_le_bytes());
        }
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().div_ceil(4) * 4, 0);
        }
        note
    }

    #[test]
    fn a_program_is_netlaunch_exactly_if_it_has_the_note() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let gnu = note(b"GNU\0", b"12345");
        let own = note(b"netlaunch\0", b"\x01\0\0\0");
        for (content, expected) in [
            (elf(true, &own), Kind::Netlaunch),
            (elf(false, &own), Kind::Netlaunch),
            (elf(true, &[gnu.clone(), own.clone()].concat()), Kind::Netlaunch),
            (elf(true, &gnu), Kind::Wrapper),
            (elf(true, &note(b"netlaunch2\0", b"")), Kind::Wrapper),
            (elf(true, &gnu[..9]), Kind::Wrapper),
            (elf(true, &[0xff; 40]), Kind::Wrapper),
            ([elf(true, &gnu), b"QEMU emulator version 7".to_vec()].concat(), Kind::Other),
            ([elf(true, &gnu), vec![0; 3 << 20]].concat(), Kind::Other),
            (elf(true, &own)[..50].to_vec(), Kind::Other),
            (b"#!/bin/sh\n".to_vec(), Kind::Wrapper),
            (b"netlaunch\0".to_vec(), Kind::Other),
            (Vec::new(), Kind::Other),
        ] {
            fs::write(&path, &content).unwrap();
            assert_eq!(kind(&path), expected, "{content:?}");
        }
    }

    #[test]
    fn the_own_file_is_recognised_without_a_note() {
        // The program of the tests has no note.
        assert_eq!(kind(Path::new(OWN_PROGRAM)), Kind::Netlaunch);
        assert_eq!(kind(Path::new("/nonexistent")), Kind::Other);
        assert_eq!(kind(Path::new("/dev/null")), Kind::Other);
    }
}
