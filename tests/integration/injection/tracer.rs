//! Runs netlaunch under ptrace(2), counts its system calls and injects one fault.
//!
//! The shell that becomes netlaunch stops itself, and the tracer seizes it then. Each process has a
//! role: `main` is netlaunch with its threads; `fork` is a forked process that has not executed a
//! program yet; `learner` is another netlaunch process; any other process is named after its
//! program. Calls are numbered from 1 for each role and call. Calls of netlaunch before its first
//! fcntl(2) belong to the dynamic loader and the C library and are not counted. After the fault,
//! the tracer detaches from all processes, so that the rest runs as usual.
//!
//! strace(1) can inject errors, too, but it counts the calls of each process separately: with `-f`,
//! one injection affects every process.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cases::Case;
use super::errors::{CALLS, Fault};

/// The number of calls for each role and call.
pub type Counts = BTreeMap<(String, &'static str), usize>;

/// The result of a traced run.
#[derive(Debug, Default)]
pub struct Traced {
    /// The exit status of netlaunch.
    pub code: Option<i32>,
    /// The signal that ended netlaunch.
    pub signal: Option<Signal>,
    /// The calls up to the fault.
    pub counts: Counts,
    /// The call with the fault, with its first argument and path.
    pub hit: Option<String>,
    /// Whether the fault hit a write to standard error, so that netlaunch could not report it.
    pub mute: bool,
}

struct Tracee {
    role: String,
    counts: bool,
    /// The error to return from the current call.
    pending_error: Option<i32>,
}

/// One traced run.
pub struct Tracer<'a> {
    main: Pid,
    case: Option<&'a Case>,
    tracees: HashMap<Pid, Tracee>,
    done: bool,
    seen: Traced,
}

impl<'a> Tracer<'a> {
    /// Traces a process from before it executes netlaunch to its end. Without a case, the tracer
    /// follows all processes and injects nothing.
    pub fn run(main: Pid, case: Option<&'a Case>) -> Traced {
        let stopped = waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        let mut options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE;
        if case.is_none_or(|case| case.role != "main") {
            options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
        }
        ptrace::seize(main, options).unwrap();
        kill(main, Signal::SIGCONT).unwrap();
        let mut tracer =
            Tracer { main, case, tracees: HashMap::new(), done: false, seen: Traced::default() };
        let shell = Tracee { role: "shell".to_owned(), counts: false, pending_error: None };
        tracer.tracees.insert(main, shell);
        while tracer.step() {}
        tracer.detach_all();
        tracer.seen
    }

    /// Handles one event. Returns whether netlaunch still exists and is traced.
    fn step(&mut self) -> bool {
        // Waits only for the tracees of this thread, because other tests of this process have
        // children, too.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(None, Some(flags)) {
            Ok(WaitStatus::PtraceSyscall(pid)) => self.call(pid),
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                self.event(pid, event);
                self.resume(pid, None);
            }
            Ok(WaitStatus::Stopped(pid, signal)) => self.resume(pid, Some(signal)),
            Ok(WaitStatus::Exited(pid, code)) => {
                self.tracees.remove(&pid);
                if pid == self.main {
                    self.seen.code = Some(code);
                    return false;
                }
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                self.tracees.remove(&pid);
                if pid == self.main {
                    self.seen.signal = Some(signal);
                    return false;
                }
            }
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => return false,
        }
        !self.done || !self.tracees.is_empty()
    }

    /// Lets the process continue; after the fault, without the tracer.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        // A process that was killed in between is not an error: the next event reports its end.
        if self.done && self.tracees.get(&pid).is_none_or(|tracee| tracee.pending_error.is_none()) {
            if ptrace::detach(pid, signal).is_ok() {
                self.tracees.remove(&pid);
            }
        } else {
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn event(&mut self, pid: Pid, event: i32) {
        if event == Event::PTRACE_EVENT_EXEC as i32 {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let role = match (name.as_str(), pid == self.main) {
                ("netlaunch", true) => "main".to_owned(),
                ("netlaunch", false) => "learner".to_owned(),
                _ => name.clone(),
            };
            let counts = name != "netlaunch";
            self.tracees.insert(pid, Tracee { role, counts, pending_error: None });
        } else {
            let forks =
                [Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK, Event::PTRACE_EVENT_CLONE];
            if forks.iter().any(|fork| *fork as i32 == event)
                && let Ok(child) = ptrace::getevent(pid)
            {
                // Registered at once, because `step` must not stop while a child is missing.
                self.tracee(Pid::from_raw(child as i32));
            }
            self.tracee(pid);
        }
    }

    /// Returns the entry of a process, and makes it for a new process.
    fn tracee(&mut self, pid: Pid) -> &mut Tracee {
        if !self.tracees.contains_key(&pid) {
            let of = |field| {
                let number = crate::common::status_field(pid.as_raw(), field).parse();
                let leader = self.tracees.get(&Pid::from_raw(number.unwrap_or_default()))?;
                Some(leader.role.clone())
            };
            // A thread has the role of its process, and a fork of a tool has the role of the tool.
            let role = of("Tgid").unwrap_or_else(|| match of("PPid") {
                Some(role) if !["main", "learner"].contains(&role.as_str()) => role,
                _ => "fork".to_owned(),
            });
            self.tracees.insert(pid, Tracee { role, counts: true, pending_error: None });
        }
        self.tracees.get_mut(&pid).unwrap()
    }

    /// Handles the begin or the end of a call.
    fn call(&mut self, pid: Pid) {
        if let Some(errno) = self.tracee(pid).pending_error.take() {
            if let Ok(mut registers) = ptrace::getregs(pid) {
                registers.rax = -i64::from(errno) as u64;
                let _ = ptrace::setregs(pid, registers);
            }
            self.finish();
        } else if !self.done && is_entry(pid) {
            self.entry(pid);
        }
        self.resume(pid, None);
    }

    fn entry(&mut self, pid: Pid) {
        let Ok(mut registers) = ptrace::getregs(pid) else { return };
        let number = registers.orig_rax as i64;
        let tracee = self.tracee(pid);
        tracee.counts |= number == libc::SYS_fcntl && tracee.role != "shell";
        let Some(call) = CALLS.iter().find(|call| call.number == number) else { return };
        if !tracee.counts || !is_possible(pid, call.name, &registers) {
            return;
        }
        let role = tracee.role.clone();
        let n = self.seen.counts.entry((role.clone(), call.name)).or_default();
        *n += 1;
        let Some(case) = self.case else { return };
        if (case.role.as_str(), case.call, case.n) != (role.as_str(), call.name, *n) {
            return;
        }
        let path = [registers.rdi, registers.rsi].into_iter().find_map(|at| path_at(pid, at));
        let path = path.unwrap_or_default();
        // ENOENT for an existing file would be a state that the kernel cannot have.
        let creates = registers.rdx as i32 & libc::O_CREAT != 0;
        if case.fault == Fault::Error(libc::ENOENT) && call.name == "openat" && !creates {
            return;
        }
        self.seen.hit = Some(format!("{}({:#x} {path})", call.name, registers.rdi));
        self.seen.mute = call.name.starts_with("write") && registers.rdi == 2;
        match case.fault {
            Fault::Kill => {
                let _ = kill(pid, Signal::SIGKILL);
                self.finish();
            }
            Fault::Error(errno) => {
                registers.orig_rax = u64::MAX;
                ptrace::setregs(pid, registers).unwrap();
                self.tracee(pid).pending_error = Some(errno);
            }
        }
    }

    /// Ends the injection: interrupts every process, so that the tracer can detach.
    fn finish(&mut self) {
        self.done = true;
        for pid in self.tracees.keys() {
            let _ = ptrace::interrupt(*pid);
        }
    }

    /// Detaches from all processes and waits for the end of netlaunch.
    fn detach_all(&mut self) {
        self.finish();
        while !self.tracees.is_empty() && self.step() {}
        while self.seen.code.is_none() && self.seen.signal.is_none() {
            match waitpid(self.main, None) {
                Ok(WaitStatus::Exited(_, code)) => self.seen.code = Some(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => self.seen.signal = Some(signal),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Returns whether the call can fail at all: tokio wakes itself through an eventfd(2), whose writes
/// cannot fail.
fn is_possible(pid: Pid, call: &str, registers: &libc::user_regs_struct) -> bool {
    let file = || fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi)).unwrap_or_default();
    call != "write" || !file().to_string_lossy().contains("[eventfd]")
}

fn is_entry(pid: Pid) -> bool {
    ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

/// Returns the path at an address of a process, if there is one.
fn path_at(pid: Pid, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = [0; 200];
    let length = memory.read_at(&mut bytes, address).ok()?;
    let text = bytes[..length].split(|byte| *byte == 0).next()?;
    let is_path = text.len() > 1 && text.iter().all(|byte| (33..127).contains(byte));
    is_path.then(|| String::from_utf8_lossy(text).into_owned())
}
