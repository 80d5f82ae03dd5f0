//! Starts passt again for a QEMU that runs.
//!
//! QEMU connects again by itself. netlaunch takes the connection, and passt gets it as a descriptor,
//! so passt listens on the published ports only while QEMU is there. The passt of Debian 13
//! (0.0~git20250503) is killed by SIGSEGV if a client connects to a TCP port before QEMU has
//! connected (measured), so a client that tries until the guest answers would end one passt after
//! the other.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::net::UnixListener;

use super::passt::{PasstError, PasstSpawn, start};
use crate::sys::process::Child;

/// Waits until QEMU connects, and then starts passt and waits until it serves. QEMU tries to connect
/// as long as it runs, so there is no time limit.
pub(super) async fn start_again(passt_spawn: &PasstSpawn) -> Result<Child, PasstError> {
    let Some(socket) = &passt_spawn.plan.socket else { return start(passt_spawn, None).await };
    let failed = |source| PasstError::Listen { path: socket.clone(), source };
    let peer = connection(socket).await.map_err(failed)?;
    let plan = passt_spawn.plan.connected();
    start(&PasstSpawn { plan, ..passt_spawn.clone() }, Some(peer)).await
}

/// Returns the first connection to a new socket at `path`.
async fn connection(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (connection, _) = UnixListener::bind(path)?.accept().await?;
    let connection = connection.into_std()?;
    connection.set_nonblocking(false)?;
    Ok(connection.into())
}
