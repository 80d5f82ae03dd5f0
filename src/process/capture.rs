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
    capture_holding(program, args, stdin, limit, None).await
}

/// The same; the program keeps `held` open, which it knows nothing of, until it ends.
///
/// # Errors
/// As [`capture`].
pub async fn capture_holding(
    program: &Path,
    args: &[OsString],
    stdin: &[u8],
    limit: Duration,
    held: Option<OwnedFd>,
) -> io::Result<Captured> {
    let mut input = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
    input.write_all(stdin)?;
    input.rewind()?;
    let (output_end, mut output) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let (error_end, mut error) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let mut argv = vec![program.as_os_str().to_owned()];
    argv.extend_from_slice(args);
    let spawn = Spawn::new(program, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(Stdio::Fd(input.into()), Stdio::Fd(output_end?), Stdio::Fd(error_end?))
        .own_group();
    let spawn = held.into_iter().fold(spawn, |spawn, file| spawn.fd(file, HELD));
    let mut child = spawn.start().map_err(io::Error::other)?;
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
        Ok(status) => Some(status?),
        Err(_) => {
            child.stop(Signal::SIGKILL, Duration::ZERO).await;
            None
        }
    };
    Ok(Captured { stdout, stderr, status })
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
    }

    #[tokio::test]
    async fn capture_ends_at_its_limit() {
        let args = ["-c", "echo early; sleep 60"].map(OsString::from);
        let got =
            capture(Path::new("/bin/sh"), &args, b"", Duration::from_millis(300)).await.unwrap();
        assert_eq!((got.stdout.as_slice(), got.status), (&b"early\n"[..], None));
    }
}
