//! Releases the pages of files, such as the program's code, from the memory of this process.
//!
//! A start touches most of the program: the parser of the command line, the probe, the plan. A
//! supervisor then waits for as long as its guest runs, and uses a small part of that. The kernel
//! counts every touched page as resident memory of the process until memory becomes scarce.
//! [`release`] gives these pages back once. The next use of a page maps it again from the page
//! cache, together with its 15 neighbours.
//!
//! Measured on x86_64: netlaunch has 7.0 MiB resident as root when QEMU runs, 2.1 MiB after a
//! release, and 2.8 MiB after a minute of supervision.
//!
//! /proc/self/smaps lists the mappings and says which of them have pages that differ from their
//! file. Those are never released.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use nix::sys::mman::{MmapAdvise, madvise};

/// A mapping of memory: its first address and its length.
type Mapping = (NonZeroUsize, usize);

/// Releases the resident pages of all read-only private mappings of files. Call it when the process
/// has begun to wait: each page that is used again costs a page fault.
///
/// # Errors
/// /proc/self/smaps cannot be read; the pages then stay.
pub(crate) fn release() -> io::Result<()> {
    let mut smaps = BufReader::new(File::open("/proc/self/smaps")?);
    let mut line = Vec::new();
    let mut mapping = None;
    while smaps.read_until(b'\n', &mut line)? > 0 {
        mapping = next(&line, mapping, give_back);
        line.clear();
    }
    Ok(())
}

/// Reads one line of smaps. Returns the mapping to which the following lines belong, if its pages
/// may be released; `release` is called once the lines have shown that they all are as in the file.
fn next(line: &[u8], mapping: Option<Mapping>, release: impl FnOnce(Mapping)) -> Option<Mapping> {
    // Each mapping begins with a line with its address in lower-case hexadecimal digits; the lines
    // with its figures begin with a capital letter (proc_pid_smaps(5)).
    if !line.first().is_some_and(u8::is_ascii_uppercase) {
        return read_only_file(line);
    }
    match line.strip_prefix(b"Anonymous:") {
        Some(size) if size.trim_ascii() == b"0 kB" => {
            mapping.map(release);
            None
        }
        Some(_) => None,
        None => mapping,
    }
}

/// Reads the first line of a mapping. Returns the mapping if it is a private one of a file and
/// cannot be written.
pub(crate) fn read_only_file(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let inode = words.nth(2)?;
    if inode == "0" || permissions.get(1..2) != Some("-") || !permissions.ends_with('p') {
        return None;
    }
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((NonZeroUsize::new(start)?, end.checked_sub(start)?))
}

/// Gives the pages of a mapping back. If the kernel refuses, as for locked memory, they stay.
fn give_back((start, length): Mapping) {
    let start = NonNull::new(ptr::with_exposed_provenance_mut(start.get()));
    let Some(start) = start else { return };
    // SAFETY: the kernel listed the mapping as private, read-only, of a file and without a page of
    // its own ("Anonymous: 0"), so every page has the content of the file, and the next access gets
    // the same content from there. The kernel itself does the same whenever memory is scarce. If
    // the mapping has been replaced since it was listed, by a thread that loads or unloads a
    // library, the argument would not hold: the callers have one thread.
    let _ = unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(smaps: &str) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        let mut mapping = None;
        for line in smaps.lines() {
            mapping = next(line.as_bytes(), mapping, |(start, length)| {
                all.push((start.get(), length));
            });
        }
        all
    }

    #[test]
    fn only_unchanged_read_only_private_mappings_of_files_are_released() {
        for (first, anonymous, expected) in [
            ("1000-3000 r-xp 00000000 08:01 42 /usr/bin/netlaunch", "0", vec![(0x1000, 0x2000)]),
            ("1000-3000 r--p 00001000 08:01 42 /a dir/with \u{fffd}", "0", vec![(0x1000, 0x2000)]),
            ("1000-3000 ---p 00001000 08:01 42 /usr/lib/libc.so.6", "0", vec![(0x1000, 0x2000)]),
            ("1000-3000 r--p 00001000 08:01 42 /usr/bin/netlaunch", "104", vec![]),
            ("1000-3000 rw-p 00001000 08:01 42 /usr/bin/netlaunch", "0", vec![]),
            ("1000-3000 r--s 00001000 08:01 42 /var/db/passwd", "0", vec![]),
            ("1000-3000 r-xp 00000000 00:00 0 [vdso]", "0", vec![]),
            ("1000-3000 rw-p 00000000 00:00 0", "0", vec![]),
            ("0-3000 r-xp 00000000 08:01 42 /null", "0", vec![]),
            ("unreadable", "0", vec![]),
        ] {
            let smaps = format!("{first}\nRss: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd\n");
            // A mapping without the line "Anonymous:" is left alone, also before another one.
            let smaps = format!("5000-6000 r-xp 0 08:01 42 /x\nRss: 8 kB\n{smaps}{smaps}");
            assert_eq!(released(&smaps), [expected.clone(), expected].concat(), "{first}");
        }
    }
}
