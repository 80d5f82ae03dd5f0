//! Runs a program to its end and collects its output.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::spawn::{Spawn, Stdio};
use super::spawn_error::SpawnError;

/// The descriptor number under which a program keeps a file open.
const HELD: RawFd = 3;

/// The result of a program that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// The exit status; `None` if the program was killed at the time limit.
    pub status: Option<ExitStatus>,
    /// The number of bytes of standard input that the program did not read. A program that opens
    /// /dev/stdin again, as nft does, leaves all of them.
    pub left: u64,
}

/// The reason why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The program was not executed.
    #[error(transparent)]
    NotStarted(io::Error),
    /// The program's end or output could not be read. The program may have done any part of its
    /// work, and no longer runs.
    #[error(transparent)]
    Lost(io::Error),
}

impl CaptureError {
    /// Returns whether the program was not executed for a reason that may soon be over: the host is
    /// short of memory, processes or descriptors, or another process writes the program's file.
    pub(crate) fn is_transient(&self) -> bool {
        let CaptureError::NotStarted(error) = self else { return false };
        let spawn = error.get_ref().and_then(|inner| inner.downcast_ref::<SpawnError>());
        let errno = spawn.map_or_else(|| error.raw_os_error(), SpawnError::errno);
        matches!(
            errno,
            Some(
                libc::EAGAIN
                    | libc::EMFILE
                    | libc::ENFILE
                    | libc::ENOMEM
                    | libc::EINTR
                    | libc::ETXTBSY
            )
        )
    }
}

impl From<SpawnError> for CaptureError {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Lost { .. } => CaptureError::Lost(io::Error::other(error)),
            _ => CaptureError::NotStarted(io::Error::other(error)),
        }
    }
}

impl From<CaptureError> for io::Error {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::NotStarted(error) | CaptureError::Lost(error) => error,
        }
    }
}

/// Runs a program to its end, for at most `limit`, with `stdin` as its input, and collects its
/// output.
///
/// The program runs in its own process group, and its environment is only `LC_ALL=C`. The input is
/// a file in memory, not a pipe: if netlaunch were killed while it fills a pipe, the program would
/// take the first part for the whole input, and ebtables-restore carries out half a text.
///
/// # Errors
/// The program could not be started, its input could not be made, or a pipe failed. The program
/// does not run any more.
pub(crate) async fn capture(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    limit: Duration,
) -> io::Result<Captured> {
    Ok(capture_holding(program, args, stdin, limit, None).await?)
}

/// Does the same as [`capture`]. The program keeps `held` open until it ends, without using it.
///
/// # Errors
/// [`CaptureError`] says whether the program may have been executed. It does not run any more.
pub(crate) async fn capture_holding(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    limit: Duration,
    held: Option<OwnedFd>,
) -> Result<Captured, CaptureError> {
    let prepared = prepare(program, args, stdin, held).map_err(CaptureError::NotStarted)?;
    let (spawn, mut input, mut output, mut error) = prepared;
    let mut child = spawn.start()?;
    for line in String::from_utf8_lossy(stdin).lines() {
        tracing::trace!("its input: {line}");
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let all = async {
        let (out, err) =
            tokio::join!(output.read_to_end(&mut stdout), error.read_to_end(&mut stderr));
        out.and(err).map(|_| ())
    };
    let status = match tokio::time::timeout(limit, async {
        all.await?;
        Ok::<_, io::Error>(child.wait().await)
    })
    .await
    {
        Ok(Ok(status)) => Some(status),
        Ok(Err(error)) => {
            child.stop(Signal::SIGKILL, Duration::ZERO).await;
            return Err(CaptureError::Lost(error));
        }
        Err(_) => {
            child.stop(Signal::SIGKILL, Duration::ZERO).await;
            None
        }
    };
    // The program's standard input is the same open file, so both have the same position.
    let read = input.stream_position().map_err(CaptureError::Lost)?;
    let left = u64::try_from(stdin.len()).unwrap_or(u64::MAX).saturating_sub(read);
    Ok(Captured { stdout, stderr, status, left })
}

/// Returns the description of a program, its input, and the read ends of its output and its errors.
fn prepare(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    held: Option<OwnedFd>,
) -> io::Result<(Spawn, File, pipe::Receiver, pipe::Receiver)> {
    let mut input = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
    input.write_all(stdin)?;
    input.rewind()?;
    let (output_end, output) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let (error_end, error) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let mut argv = vec![program.as_os_str().to_owned()];
    argv.extend_from_slice(args);
    let stdin = Stdio::Fd(input.try_clone()?.into());
    let spawn = Spawn::new(program, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(stdin, Stdio::Fd(output_end?), Stdio::Fd(error_end?))
        .own_group();
    let spawn = held.into_iter().fold(spawn, |spawn, file| spawn.fd(file, HELD));
    Ok((spawn, input, output, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_gets_its_input_and_its_output_is_collected() {
        let args = ["-c", "cat; echo problem >&2; exit 3"].map(OsString::from);
        let big = vec![b'x'; 300_000];
        let got =
            capture(Path::new("/bin/sh"), &args, &big, Duration::from_secs(20)).await.unwrap();
        assert_eq!(got.stdout, big);
        assert_eq!(got.stderr, b"problem\n");
        assert_eq!(got.status.and_then(|s| s.code()), Some(3));
        assert_eq!(got.left, 0);
    }

    #[tokio::test]
    async fn input_that_was_not_read_is_counted() {
        for (script, left) in [("exit 0", 6), ("read line; exit 0", 4), ("cat", 0)] {
            let args = ["-c", script].map(OsString::from);
            let limit = Duration::from_secs(20);
            let got = capture(Path::new("/bin/sh"), &args, b"1\n2\n3\n", limit).await.unwrap();
            assert_eq!(got.left, left, "{script}");
        }
    }

    #[tokio::test]
    async fn only_a_shortage_at_the_start_is_transient() {
        let missing = Path::new("/nonexistent/program");
        let limit = Duration::from_secs(20);
        let error = capture_holding(missing, &[], b"", limit, None).await.unwrap_err();
        assert!(matches!(error, CaptureError::NotStarted(_)) && !error.is_transient(), "{error}");
        let os = io::Error::from_raw_os_error;
        assert!(CaptureError::NotStarted(os(libc::EMFILE)).is_transient());
        assert!(!CaptureError::NotStarted(os(libc::EACCES)).is_transient());
        assert!(!CaptureError::Lost(os(libc::EMFILE)).is_transient());
        let program = missing.to_owned();
        let fork = SpawnError::System { program: program.clone(), source: os(libc::EAGAIN) };
        assert!(CaptureError::from(fork).is_transient());
        let lost = CaptureError::from(SpawnError::Lost { program, source: os(libc::EAGAIN) });
        assert!(matches!(lost, CaptureError::Lost(_)) && !lost.is_transient());
    }

    #[tokio::test]
    async fn a_program_is_killed_at_the_time_limit() {
        let args = ["-c", "echo early; sleep 60"].map(OsString::from);
        let got =
            capture(Path::new("/bin/sh"), &args, b"", Duration::from_millis(300)).await.unwrap();
        assert_eq!((got.stdout.as_slice(), got.status), (&b"early\n"[..], None));
    }
}
