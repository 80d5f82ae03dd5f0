//! `netlaunch network edit`: a definition in the user's editor.
//!
//! The editor gets a copy and loses nothing that was typed there: whatever goes wrong afterwards,
//! a copy that was changed stays and its name is said; one that was not changed goes.
//!
//! The keys of the terminal signal the editor and us alike, and there they mean what the editor
//! makes of them. A signal that is sent to us alone ends the editor, and then us.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::environment::Environment;
use super::log;
use super::network::{NetworkError, document, interfaces};
use crate::network::{Define, Definition, NetworkStore};
use crate::probe::program::find;
use crate::process::signals::Signals;
use crate::process::{Spawn, SpawnError};

/// How long an editor may take to save what it has when it is told to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has the user edit a definition, and defines what comes back; `None` when that is what was there.
pub(super) async fn edit(
    store: &NetworkStore,
    definition: &Definition,
    environment: &Environment,
) -> Result<Option<Definition>, NetworkError> {
    let name = &definition.network.name;
    let before = crate::network::to_xml(&definition.network);
    let words = environment.editor().to_string_lossy();
    let argv: Vec<OsString> =
        shell_words::split(&words).unwrap_or_default().into_iter().map(OsString::from).collect();
    if argv.is_empty() {
        return Err(NetworkError::NoEditor(words.into_owned()));
    }
    // Taken before there is a copy that would be left.
    let mut signals = Signals::take().map_err(NetworkError::Signals)?;
    // A directory of our own, so that what the editor puts beside the file is ours, too.
    let parent = environment.temporary_dir();
    let dir = tempfile::Builder::new()
        .prefix("netlaunch-edit-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(|source| NetworkError::Copy { path: parent, source })?;
    let path = dir.path().join(format!("{name}.xml"));
    fs::write(&path, &before)
        .map_err(|source| NetworkError::Copy { path: path.clone(), source })?;
    let argv = [argv, vec![path.clone().into()]].concat();
    let program = log::printable(&argv[0].to_string_lossy()).into_owned();
    let ended = match run(&argv, environment, &mut signals).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(NetworkError::EditorFailed { program, status }),
        Err(source) => return Err(NetworkError::Editor { program, source }),
    };
    // Read by its name: editors replace files.
    let after = document(&path);
    if after.as_ref().is_ok_and(|after| after == before.as_bytes()) {
        return ended.map(|()| None);
    }
    let source = &path;
    let defined = ended.and(after).and_then(|xml| {
        let edited = Some(definition);
        let define = Define { xml: &xml, source, interfaces: &interfaces(), edited };
        Ok(store.define(&define, &mut rand::rng())?)
    });
    match defined {
        Ok(defined) => Ok(Some(defined)),
        // Only what is there can be kept: an editor may have removed it.
        Err(error) if path.exists() => {
            let _ = dir.keep();
            Err(NetworkError::Kept { error: Box::new(error), path })
        }
        Err(error) => Err(error),
    }
}

/// Runs the editor to its end, on our terminal.
async fn run(
    argv: &[OsString],
    environment: &Environment,
    signals: &mut Signals,
) -> io::Result<ExitStatus> {
    let name: &OsStr = argv.first().map(OsString::as_os_str).unwrap_or_default();
    let path = find(name, &environment.path()).place().ok_or(Errno::ENOENT)?;
    let started = Spawn::new(&path, argv)
        .env(&environment.for_children())
        .mask(signals.mask_before())
        .start();
    let mut editor = started.map_err(|error| match error {
        SpawnError::Exec { source, .. } => source,
        other => io::Error::other(other),
    })?;
    loop {
        let received = tokio::select! {
            status = editor.wait() => return Ok(status),
            received = signals.next() => received,
        };
        match received.signal {
            // The editor got the key, too.
            Signal::SIGINT | Signal::SIGQUIT if received.from_kernel => {}
            Signal::SIGUSR1 | Signal::SIGUSR2 => {}
            signal => {
                return Ok(editor.stop(signal, PATIENCE).await);
            }
        }
    }
}
