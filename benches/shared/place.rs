//! The place of a bench's files.

use std::path::Path;

/// Makes the files of this process's sandboxes in memory, as /run is on a host. A rename on a disk
/// costs more than all other work on a status file.
pub(super) fn in_memory() {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let _ = tempfile::env::override_temp_dir(memory);
    }
}
