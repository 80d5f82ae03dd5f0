//! Running a program for what it prints.

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

/// The number under which a program has what it is to keep open.
const HELD: RawFd = 3;

/// What a short-lived program printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended; `None` when it was killed at the time limit.
    pub status: Option<ExitStatus>,
    /// The bytes of its input that it left in its standard input. A program that opens
    /// /dev/stdin anew, as nft does, leaves all of them.
    pub left: u64,
}

/// Why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The program was not executed.
    #[error(transparent)]
    NotStarted(io::Error),
    /// The program may have been executed and may have done any part of its work; its end or its
    /// output could not be read. It does not run any more.
    #[error(transparent)]
    Lost(io::Error),
}

impl CaptureError {
    /// Whether the program was not executed for a reason that may be over in a moment: the host is
    /// short of memory, processes or descriptors, or the program's file is being written.
    pub fn is_transient(&self) -> bool {
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

/// Runs a program to its end, at most `limit`, feeds it `stdin` and collects what it prints.
///
/// It runs in a process group of its own with an empty environment but for `LC_ALL=C`. Its input is a
/// file in memory and not a pipe: were we killed, it would take what had come through by then for
/// all of it, and ebtables-restore carries out half a text.
///
/// # Errors
/// It could not be started, or its input could not be made, or a pipe failed. Nothing is left
/// running.
pub async fn capture(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    limit: Duration,
) -> io::Result<Captured> {
    Ok(capture_holding(program, args, stdin, limit, None).await?)
}

/// The same; the program keeps `held` open, which it knows nothing of, until it ends.
///
/// # Errors
/// [`CaptureError`] says whether the program may have been executed. Nothing is left running.
pub async fn capture_holding(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    limit: Duration,
    held: Option<OwnedFd>,
) -> Result<Captured, CaptureError> {
    let prepared = prepare(program, args, stdin, held).map_err(CaptureError::NotStarted)?;
    let (spawn, mut input, mut output, mut error) = prepared;
    let mut child = spawn.start()?;
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
        Ok(status) => Some(status.map_err(CaptureError::Lost)?),
        Err(_) => {
            child.stop(Signal::SIGKILL, Duration::ZERO).await;
            None
        }
    };
    // The program's standard input is the same open file, so its position tells what was read.
    let read = input.stream_position().map_err(CaptureError::Lost)?;
    let left = u64::try_from(stdin.len()).unwrap_or(u64::MAX).saturating_sub(read);
    Ok(Captured { stdout, stderr, status, left })
}

/// Makes what a program needs before it can be started: its description, its input, and the ends of
/// its output and its errors that are read here.
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
    let theirs = Stdio::Fd(input.try_clone()?.into());
    let spawn = Spawn::new(program, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(theirs, Stdio::Fd(output_end?), Stdio::Fd(error_end?))
        .own_group();
    let spawn = held.into_iter().fold(spawn, |spawn, file| spawn.fd(file, HELD));
    Ok((spawn, input, output, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn capture_feeds_and_collects() {
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
    async fn capture_ends_at_its_limit() {
        let args = ["-c", "echo early; sleep 60"].map(OsString::from);
        let got =
            capture(Path::new("/bin/sh"), &args, b"", Duration::from_millis(300)).await.unwrap();
        assert_eq!((got.stdout.as_slice(), got.status), (&b"early\n"[..], None));
    }
}
