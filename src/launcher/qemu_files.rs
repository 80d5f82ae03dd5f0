//! The parts of QEMU's own command line that netlaunch reads as well: its configuration files, its
//! machine, and whether it daemonizes.

use std::ffi::OsString;
use std::path::Path;

use crate::launcher::plan::Request;
use crate::launcher::probe::MachineName;
use crate::launcher::qemu_options::{CommandLine, ConfigFile};
use crate::sys::input::{self, Pipes};

/// The size of the largest configuration file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Returns the files of `-readconfig` on the request's QEMU command line. A pipe is left to QEMU,
/// because it can be read only once; so is a file that cannot be read.
pub(crate) fn config_files(request: &Request) -> Vec<ConfigFile> {
    let Some(line) = request.command_line() else { return Vec::new() };
    let mut files: Vec<ConfigFile> = Vec::new();
    for path in line.values("readconfig") {
        if files.iter().any(|file| file.path == path) {
            continue;
        }
        match input::read(Path::new(path), LARGEST, Pipes::Refused) {
            Ok(text) => files.push(ConfigFile { path: path.to_owned(), text }),
            Err(error) => {
                tracing::info!("QEMU's -readconfig {} is not looked at: {error}", path.display());
            }
        }
    }
    files
}

/// Returns the machine of the request's QEMU command line; `None` in serve mode.
pub(crate) fn machine(request: &Request) -> Option<MachineName> {
    let line = request.command_line()?;
    let data: Vec<OsString> = line.values("L").map(OsString::from).collect();
    Some(MachineName::of(&line.settings(&request.config_files), data))
}

/// Returns whether QEMU daemonizes with these arguments.
pub(crate) fn daemonizes(args: &[OsString]) -> bool {
    CommandLine::parse(args).spelling("daemonize").is_some()
}
