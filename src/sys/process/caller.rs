//! Replaces this process by another program, as its caller would have started it.
//!
//! netlaunch changes its signal mask and ignores the signals of failed writes, and an executed
//! program inherits both (execve(2)). [`CallerSignals`] has their state at the start, and
//! [`CallerSignals::execute`] puts it back first. The environment, the descriptors without the
//! close-on-exec flag, the process number and the parent stay as they are by themselves.

use std::ffi::{CStr, CString, OsString};
use std::fs::OpenOptions;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{execv, execve, getpid};

use super::signals::{SignalNumber, send_signal, set};

/// The signals whose action netlaunch changes.
const CHANGED: [Signal; 2] = [Signal::SIGPIPE, Signal::SIGXFSZ];

/// The signal state that this process has from its caller.
#[derive(Clone)]
pub(crate) struct CallerSignals {
    mask: SigSet,
    actions: [Option<libc::sigaction>; 2],
}

impl CallerSignals {
    /// Records the state. Call it before the process changes its mask or an action.
    pub(crate) fn record() -> Self {
        let mask = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
        CallerSignals { mask, actions: CHANGED.map(action) }
    }

    /// Executes the program at the path `program` in place of this one. It gets the arguments
    /// `argv`, the program's own name first. `env` is its environment; `None` is exactly the one of
    /// this process. Returns only if that fails, with the error.
    ///
    /// A file that is no binary and names no interpreter is a script for /bin/sh, as for execvp(3).
    pub(crate) fn execute(
        &self,
        program: &Path,
        argv: &[OsString],
        env: Option<&[(OsString, OsString)]>,
    ) -> io::Error {
        self.restore();
        match execute(program, argv, env) {
            Errno::ENOEXEC => {
                let script = [OsString::from("sh"), program.into()];
                let argv: Vec<OsString> =
                    script.into_iter().chain(argv.iter().skip(1).cloned()).collect();
                execute(Path::new("/bin/sh"), &argv, env)
            }
            errno => errno,
        }
        .into()
    }

    /// Ends this process by `signal`, as its program has ended. A core file would have netlaunch's
    /// memory in it, so none is written. Returns only if the process cannot end in this way.
    pub(crate) fn end_by(&self, signal: SignalNumber) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        // SAFETY: SIG_DFL installs no handler.
        unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
        let only = set([signal]);
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
        let _ = send_signal(getpid(), signal);
    }

    /// Puts the state back.
    fn restore(&self) {
        for (signal, action) in CHANGED.into_iter().zip(&self.actions) {
            if let Some(action) = action {
                // SAFETY: the action is one that this process had before. It has no handler of
                // its own, so it is SIG_DFL or SIG_IGN.
                unsafe { libc::sigaction(signal as i32, action, std::ptr::null_mut()) };
            }
        }
        let _ = self.mask.thread_set_mask();
    }
}

/// Returns the path that the caller of this program executed, which may differ from `argv[0]`;
/// `None` if the kernel does not give it (getauxval(3), AT_EXECFN).
pub(crate) fn executed_path() -> Option<OsString> {
    // SAFETY: the call reads a value that the kernel put onto the stack before `main`.
    let path = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if path.is_null() {
        return None;
    }
    // SAFETY: the kernel's value is the address of a string that ends with a NUL byte. It stays
    // where it is for the life of the process.
    let path = unsafe { CStr::from_ptr(path) };
    Some(OsString::from_vec(path.to_bytes().to_vec()))
}

/// Opens /dev/null for each standard descriptor that is closed, so that no other file gets its
/// number. execve(2) closes it again: a program that inherits the standard descriptors finds them
/// as this process found them.
///
/// # Errors
/// There is no /dev/null.
pub(crate) fn fill_closed_standard() -> io::Result<()> {
    loop {
        // A new descriptor has the lowest free number.
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // It stays open for the life of the process.
        let _ = null.into_raw_fd();
    }
}

/// Returns the action of a signal; `None` if the kernel does not give it.
fn action(signal: Signal) -> Option<libc::sigaction> {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction only fills in the old one, and zeroes are a valid
    // value of the structure in any case.
    unsafe {
        let filled = libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()) == 0;
        filled.then(|| now.assume_init())
    }
}

fn execute(program: &Path, argv: &[OsString], env: Option<&[(OsString, OsString)]>) -> Errno {
    let string = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let strings = || {
        let program = string(program.as_os_str().as_bytes())?;
        let argv: Vec<CString> =
            argv.iter().map(|word| string(word.as_bytes())).collect::<Result<_, Errno>>()?;
        let variable = |(name, value): &(OsString, OsString)| {
            string(&[name.as_bytes(), b"=", value.as_bytes()].concat())
        };
        let env = env.map(|env| env.iter().map(variable).collect::<Result<Vec<_>, Errno>>());
        Ok((program, argv, env.transpose()?))
    };
    let executed = strings().and_then(|(program, argv, env)| match env {
        Some(env) => execve(&program, &argv, &env),
        None => execv(&program, &argv),
    });
    match executed {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_executed_leaves_the_process_as_it_was() {
        let signals = CallerSignals::record();
        let error = signals.execute(Path::new("/nonexistent"), &["x".into()], None);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let error = signals.execute(Path::new("/"), &["x\0".into()], Some(&[]));
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
