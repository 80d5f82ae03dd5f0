//! Documents that the command line names, and those that the user edits.
//!
//! [`edit`] hands a copy to the user's editor and loses nothing that was typed there: whatever goes
//! wrong afterwards, a copy that was changed stays and its name is said; one that was not changed
//! goes.
//!
//! The keys of the terminal signal the editor and us alike, and there they mean what the editor
//! makes of them. A signal that is sent to us alone ends the editor, and then us.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::environment::Environment;
use crate::input::{self, Pipes};
use crate::printable::printable;
use crate::probe::program::find;
use crate::process::signals::Signals;
use crate::process::{Spawn, SpawnError};
use crate::xml::MAX_BYTES;

/// How long an editor may take to save what it has when it is told to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a document cannot be read or edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The document cannot be read.
    #[error("{}: {source}; name a file that can be read, or - for standard input", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Signals cannot be watched.
    #[error("signals cannot be watched: {0}; raise the limit of open files")]
    Signals(io::Error),
    /// What the environment names is no command.
    #[error("the editor {0:?} is no command; correct VISUAL or EDITOR")]
    NoEditor(String),
    /// The editor cannot be run.
    #[error("the editor {program} cannot be run: {source}; set VISUAL or EDITOR to another")]
    Editor { program: String, source: io::Error },
    /// The editor failed.
    #[error("the editor {program} failed ({status}), so nothing was changed; edit again")]
    EditorFailed { program: String, status: ExitStatus },
    /// The copy for the editor cannot be made or read.
    #[error("{}: {source}; make room there, or set TMPDIR to another directory", path.display())]
    Copy { path: PathBuf, source: io::Error },
}

impl DocumentError {
    /// Whether the mistake is the caller's, not the system's.
    pub(super) fn is_callers(&self) -> bool {
        matches!(self, DocumentError::Read { .. })
    }
}

/// Why an edit changed nothing, and where what was typed is kept.
#[derive(Debug)]
pub(super) struct Stopped<E> {
    /// Why.
    pub(super) error: E,
    /// The file; `None` where nothing was typed.
    pub(super) kept: Option<PathBuf>,
}

impl<E> From<E> for Stopped<E> {
    fn from(error: E) -> Self {
        Stopped { error, kept: None }
    }
}

/// The bytes of a document that the command line names, no more than a document can have and one.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DocumentError> {
    let most = MAX_BYTES as u64 + 1;
    let bytes = match path.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            io::stdin().lock().take(most).read_to_end(&mut bytes).map(|_| bytes)
        }
        false => input::start(path, most, Pipes::Read),
    };
    bytes.map_err(|source| DocumentError::Read { path: path.to_owned(), source })
}

/// Has the user edit the document `before` of the definition `name`, and hands what comes back, and
/// the name of its file, to `define`; `None` when it is what was there.
pub(super) async fn edit<T, E: From<DocumentError>>(
    name: &impl Display,
    before: &str,
    environment: &Environment,
    define: impl AsyncFnOnce(&[u8], &Path) -> Result<T, E>,
) -> Result<Option<T>, Stopped<E>> {
    let words = environment.editor().to_string_lossy();
    let argv: Vec<OsString> =
        shell_words::split(&words).unwrap_or_default().into_iter().map(OsString::from).collect();
    if argv.is_empty() {
        return Err(E::from(DocumentError::NoEditor(words.into_owned())).into());
    }
    // Taken before there is a copy that would be left.
    let mut signals = Signals::take().map_err(|error| E::from(DocumentError::Signals(error)))?;
    // A directory of our own, so that what the editor puts beside the file is ours, too.
    let parent = environment.temporary_dir();
    let dir = tempfile::Builder::new()
        .prefix("netlaunch-edit-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(|source| E::from(DocumentError::Copy { path: parent, source }))?;
    let path = dir.path().join(format!("{name}.xml"));
    let failed = |source| E::from(DocumentError::Copy { path: path.clone(), source });
    fs::write(&path, before).map_err(failed)?;
    let argv = [argv, vec![path.clone().into()]].concat();
    let program = printable(&argv[0].to_string_lossy()).into_owned();
    let ended = match run(&argv, environment, &mut signals).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(DocumentError::EditorFailed { program, status }.into()),
        Err(source) => return Err(E::from(DocumentError::Editor { program, source }).into()),
    };
    // Read by its name: editors replace files.
    let after = read(&path);
    if after.as_ref().is_ok_and(|after| after == before.as_bytes()) {
        return ended.map(|()| None).map_err(Stopped::from);
    }
    let typed: Result<_, E> = ended.and_then(|()| after.map_err(E::from));
    let defined = match typed {
        Ok(xml) => define(&xml, &path).await,
        Err(error) => Err(error),
    };
    match defined {
        Ok(defined) => Ok(Some(defined)),
        // Only what is there can be kept: an editor may have removed it.
        Err(error) if path.exists() => {
            let _ = dir.keep();
            Err(Stopped { error, kept: Some(path) })
        }
        Err(error) => Err(error.into()),
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
        .inherit()
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
