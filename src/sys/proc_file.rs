//! Reads files of /proc.
//!
//! Such a file has no size that a reader could ask for, so the standard library reads it in nine
//! small pieces. A scan of all processes at the start of each of 20 networks was 34,000 reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than the usual size of a file about a process, in bytes.
const USUAL: usize = 4096;

/// Reads a whole file of /proc.
///
/// # Errors
/// The kernel's error, for example because the process has ended.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; USUAL];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_end_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for size in [0, 1, USUAL - 1, USUAL, USUAL + 1, 5 * USUAL] {
            let content: Vec<u8> = (0..size).map(|number| number as u8).collect();
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap(), content, "{size}");
        }
        assert!(read(dir.path().join("missing")).is_err());
        assert_eq!(
            read("/proc/self/cmdline").unwrap(),
            std::fs::read("/proc/self/cmdline").unwrap()
        );
    }
}
