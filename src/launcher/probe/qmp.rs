//! Runs commands of QEMU's control protocol, QMP (docs/interop/qemu-qmp-ref).
//!
//! A stopped QEMU without devices gets all commands at once on its standard input, and the last
//! command makes it quit. Its output goes to a file in memory.
//!
//! The output must not go to a pipe: at `quit` QEMU discards the part of its output that does not
//! fit into the pipe yet, without an error and with status 0, and the schema is four times as long
//! as a pipe (measured with 10.0.2: a reader that is 0.3 s late always gets 64 kB of 236).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sys::process::{Spawn, Stdio};

/// The time limit for each run of QEMU.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Returns the arguments of a QEMU that has no devices, does not start its guest and reads QMP
/// commands.
pub(super) fn stopped() -> [OsString; 6] {
    ["-nodefaults", "-display", "none", "-S", "-qmp", "stdio"].map(OsString::from)
}

/// Starts a stopped QEMU with these arguments, and returns the output of its control protocol for
/// `commands`.
///
/// # Errors
/// QEMU cannot be started, or does not end within [`LIMIT`].
pub(super) async fn execute(
    path: &Path,
    args: &[OsString],
    commands: &[u8],
) -> io::Result<Vec<u8>> {
    match tokio::time::timeout(LIMIT, run(path, args, commands)).await {
        Ok(output) => output,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn run(path: &Path, args: &[OsString], commands: &[u8]) -> io::Result<Vec<u8>> {
    let argv = [&[path.into()], args, &stopped()].concat();
    let (input, feed) = pipe2(OFlag::O_CLOEXEC)?;
    // This cannot block, because an empty pipe has room for all commands.
    nix::unistd::write(&feed, commands)?;
    drop(feed);
    let mut output = File::from(memfd_create(c"netlaunch-qmp", MFdFlags::MFD_CLOEXEC)?);
    let stdout = Stdio::Fd(output.try_clone()?.into());
    let mut child = Spawn::new(path, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(Stdio::Fd(input), stdout, Stdio::Null)
        .own_group()
        .start()
        .map_err(io::Error::other)?;
    child.wait().await;
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    Ok(text)
}

/// Returns the values that the commands returned, in order.
pub(super) fn returns(output: &[u8]) -> impl Iterator<Item = &RawValue> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        r#return: &'a RawValue,
    }
    output.split(|&b| b == b'\n').filter_map(|line| {
        let reply: Reply = serde_json::from_slice(line).ok()?;
        Some(reply.r#return)
    })
}
