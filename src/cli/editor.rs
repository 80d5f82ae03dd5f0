//! Reads documents that the command line names, and lets the user edit definitions.
//!
//! [`edit`] writes a copy of the definition, runs the user's editor on the copy, reads the copy and
//! defines its text. If the text cannot be defined, the changed copy stays and the error names its
//! path; an unchanged copy is removed. So no error loses the user's work.
//!
//! The terminal sends the signal of a key to the editor and to netlaunch alike; netlaunch leaves
//! the reaction to the editor. A signal that another process sends to netlaunch ends the editor
//! first.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::environment::Environment;
use crate::sys::input::{self, Pipes};
use crate::sys::process::signals::Signals;
use crate::sys::process::{Spawn, SpawnError};
use crate::sys::program::find;
use crate::types::printable::printable;
use crate::xml::MAX_BYTES;

/// How long an editor may take to save its text after a signal that ends it.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why a document cannot be read or edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The document cannot be read.
    #[error("{}: {source}; name a file that can be read, or - for standard input", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}; raise the limit of open files")]
    Signals(io::Error),
    /// VISUAL or EDITOR is not a command.
    #[error("the editor {0:?} is not a command; correct VISUAL or EDITOR")]
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
    /// Returns whether the error is a mistake of the caller, and not a failure of the system.
    pub(super) fn is_callers(&self) -> bool {
        match self {
            DocumentError::Read { .. } => true,
            DocumentError::Signals(_)
            | DocumentError::NoEditor(_)
            | DocumentError::Editor { .. }
            | DocumentError::EditorFailed { .. }
            | DocumentError::Copy { .. } => false,
        }
    }
}

/// Why an edit changed nothing, and the copy that keeps the edited text.
#[derive(Debug)]
pub(super) struct EditError<E> {
    /// The reason.
    pub(super) error: E,
    /// The copy; `None` if its text is unchanged or the editor removed it.
    pub(super) kept: Option<PathBuf>,
}

impl<E> From<E> for EditError<E> {
    fn from(error: E) -> Self {
        EditError { error, kept: None }
    }
}

/// Reads a document that the command line names; `-` is standard input. Reads at most one byte more
/// than a document may have, so that the parser reports a document that is too large.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DocumentError> {
    let most = MAX_BYTES as u64 + 1;
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().take(most).read_to_end(&mut bytes).map(|_| bytes)
    } else {
        input::start(path, most, Pipes::Read)
    };
    bytes.map_err(|source| DocumentError::Read { path: path.to_owned(), source })
}

/// Splits the editor's command into words as a shell does; a command that is not UTF-8 only at
/// spaces.
fn words(command: &OsStr) -> Vec<OsString> {
    match command.to_str() {
        Some(text) => {
            let words = shell_words::split(text).unwrap_or_default();
            words.into_iter().map(OsString::from).collect()
        }
        None => {
            let words = command.as_bytes().split(u8::is_ascii_whitespace);
            words.filter(|word| !word.is_empty()).map(|w| OsStr::from_bytes(w).into()).collect()
        }
    }
}

/// Lets the user edit `before`, the document of the definition `name`. Calls `define` with the new
/// text and the path of the copy; returns `None` if the text is unchanged.
pub(super) async fn edit<T, E: From<DocumentError>>(
    name: &impl Display,
    before: &str,
    environment: &Environment,
    define: impl AsyncFnOnce(&[u8], &Path) -> Result<T, E>,
) -> Result<Option<T>, EditError<E>> {
    let argv = words(environment.editor());
    if argv.is_empty() {
        let editor = environment.editor().to_string_lossy().into_owned();
        return Err(E::from(DocumentError::NoEditor(editor)).into());
    }
    // Before the copy exists, so that no signal leaves the copy behind.
    let mut signals = Signals::take().map_err(|error| E::from(DocumentError::Signals(error)))?;
    // A new directory, so that the files that the editor makes beside the copy are removed as well.
    let parent = environment.temporary_dir();
    let dir = tempfile::Builder::new()
        .prefix("netlaunch-edit-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(|source| E::from(DocumentError::Copy { path: parent, source }))?;
    let path = dir.path().join(format!("{name}.xml"));
    let failed = |source| E::from(DocumentError::Copy { path: path.clone(), source });
    // The umask may have removed bits.
    let mode = fs::Permissions::from_mode;
    fs::set_permissions(dir.path(), mode(0o700)).map_err(failed)?;
    fs::write(&path, before).map_err(failed)?;
    fs::set_permissions(&path, mode(0o600)).map_err(failed)?;
    let argv = [argv, vec![path.clone().into()]].concat();
    let program = printable(&argv[0].to_string_lossy()).into_owned();
    let ended = match run(&argv, environment, &mut signals).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err::<_, E>(DocumentError::EditorFailed { program, status }.into()),
        Err(source) => return Err(E::from(DocumentError::Editor { program, source }).into()),
    };
    // Read by path, because editors replace files.
    let after = read(&path);
    if after.as_ref().is_ok_and(|after| after == before.as_bytes()) {
        ended?;
        return Ok(None);
    }
    let text: Result<_, E> = ended.and_then(|()| Ok(after?));
    let defined = match text {
        Ok(xml) => define(&xml, &path).await,
        Err(error) => Err(error),
    };
    match defined {
        Ok(defined) => Ok(Some(defined)),
        // The editor may have removed the copy.
        Err(error) if path.exists() => {
            let _ = dir.keep();
            Err(EditError { error, kept: Some(path) })
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs the editor to its end, on the terminal of netlaunch.
async fn run(
    argv: &[OsString],
    environment: &Environment,
    signals: &mut Signals,
) -> io::Result<ExitStatus> {
    let name: &OsStr = argv.first().map(OsString::as_os_str).unwrap_or_default();
    let path = find(name, &environment.path()).existing_path().ok_or(Errno::ENOENT)?;
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
        match received.signal.named() {
            // The terminal sent the signal of the key to the editor as well.
            Some(Signal::SIGINT | Signal::SIGQUIT) if received.from_kernel => {}
            Some(Signal::SIGUSR1 | Signal::SIGUSR2) => {}
            // A real-time signal has no name.
            signal => return Ok(editor.stop(signal.unwrap_or(Signal::SIGTERM), END_LIMIT).await),
        }
    }
}
