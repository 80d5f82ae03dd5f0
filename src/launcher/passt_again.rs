//! Starts passt although a client is there before the guest.
//!
//! The passt of Debian 13 (0.0~git20250503) is killed by SIGSEGV if a client connects to a TCP port
//! before QEMU has connected (measured). A client that tries until the guest answers would end one
//! passt after the other. So a passt that is killed while it starts is started again. Once QEMU
//! runs, it connects to netlaunch, and passt gets the connection as a descriptor: it listens on the
//! published ports only while QEMU is there.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixListener;

use super::passt::{PasstError, PasstSpawn, start};
use crate::sys::process::Child;
use crate::types::Protocol;

/// How many times passt is started before QEMU.
const STARTS: u32 = 8;
/// The pause between two of these starts.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts the passt of a QEMU that is not there yet, and waits until it serves.
pub(super) async fn start_before_qemu(passt_spawn: &PasstSpawn) -> Result<Child, PasstError> {
    let has_clients = passt_spawn.plan.publish.iter().any(|p| p.protocol == Protocol::Tcp);
    for _ in 1..STARTS {
        match start(passt_spawn, None).await {
            Err(PasstError::Ended { status, .. })
                if has_clients && status.signal() == Some(libc::SIGSEGV) =>
            {
                tracing::debug!("passt was killed while it started; it is started again");
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
    start(passt_spawn, None).await
}

/// Waits until QEMU connects, starts passt, and waits until it serves. QEMU tries to connect as
/// long as it runs, so there is no time limit.
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
