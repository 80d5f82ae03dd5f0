//! The files below a directory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Returns the files below a directory and its directories, sorted. A directory that does not
/// exist has none.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.unwrap_or_else(|error| panic!("{}: {error}", dir.display())),
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}
