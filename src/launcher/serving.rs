//! Whether passt serves, and whether it is passt that does.
//!
//! "Ready" is: the socket is listened on, as /proc/net/unix tells. A socket file alone is no sign
//! (newer passt makes it 10 to 20 ms before it listens), a test connection would use up
//! `--one-off`, and Debian 12's passt goes on even after its bind() has failed.
//!
//! /proc/net/unix shows the path that a process has given to bind(2). A process in another mount
//! namespace can show the same one, so two more things are looked at:
//!
//! - The file at the path, no link, is a socket of passt's user, or ours (newer passt binds before
//!   it changes its user).
//! - passt, or a process in its process group, has the socket open that listens. Where we may not
//!   look (passt of an ordinary user cannot be traced, proc_pid_fd(5)), this is not known, and the
//!   directory alone, which is closed to other users, speaks for passt.
//!
//! What cannot be verified: that the file at the path and the socket that listens belong together,
//! which needs netlink (sock_diag(7)), and after this moment nothing. A process of our own user can
//! do what we do, and is not kept from anything.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::{Pid, geteuid};
use procfs::process::{FDTarget, Process, all_processes};

use crate::plan::PasstPlan;

/// Whether passt, process `pid`, is there for QEMU: listening, or with the fd transport past its
/// set-up, at the end of which it writes its pid file.
pub(super) fn serves(plan: &PasstPlan, pid: Pid) -> bool {
    match &plan.socket {
        Some(socket) => {
            let table = fs::read("/proc/net/unix").unwrap_or_default();
            let listening = listening(&table, socket);
            let is_socket = |is: &fs::Metadata| is.file_type().is_socket() && is_passts(plan, is);
            !listening.is_empty()
                && socket.symlink_metadata().is_ok_and(|is| is_socket(&is))
                && has_open(pid, &listening)
        }
        None => !names_pid_file(plan) || pid_file_written(plan),
    }
}

/// Whether passt is told to write its pid file.
pub(super) fn names_pid_file(plan: &PasstPlan) -> bool {
    plan.argv.iter().any(|arg| arg == plan.pid.as_os_str())
}

/// Whether passt has written its pid file.
pub(super) fn pid_file_written(plan: &PasstPlan) -> bool {
    let is = plan.pid.symlink_metadata();
    is.is_ok_and(|is| is.is_file() && is.len() > 0 && is_passts(plan, &is))
}

/// Whether a file is one that passt has made.
fn is_passts(plan: &PasstPlan, is: &fs::Metadata) -> bool {
    is.uid() == geteuid().as_raw() || plan.user.is_some_and(|user| is.uid() == user.uid)
}

/// The inodes of the listening sockets that have this path in `table` (proc_net(5),
/// /proc/net/unix).
///
/// Columns: number, reference count, protocol, flags, type, state, inode, path. The flag 0x10000
/// (__SO_ACCEPTCON in the kernel) marks a listening socket.
fn listening(table: &[u8], socket: &Path) -> Vec<u64> {
    let path = socket.as_os_str().as_bytes();
    let inode = |line: &[u8]| {
        let before = line.strip_suffix(path)?.strip_suffix(b" ")?;
        let columns: Vec<&str> = std::str::from_utf8(before).ok()?.split_whitespace().collect();
        let [_, _, _, flags, _, _, inode] = columns[..] else { return None };
        let listens = u32::from_str_radix(flags, 16).ok()? & 0x10000 != 0;
        inode.parse().ok().filter(|_| listens)
    };
    table.split(|byte| *byte == b'\n').filter_map(inode).collect()
}

/// Whether process `pid`, or one of its process group, has one of these sockets open; also where
/// that cannot be looked at. A script that stands for passt has the real one in its group.
fn has_open(pid: Pid, sockets: &[u64]) -> bool {
    // A /proc of another PID namespace tells of other processes.
    let me = fs::read_link("/proc/self").ok();
    if me.is_none_or(|me| me != Path::new(&std::process::id().to_string())) {
        return true;
    }
    let found = |process: &Process| {
        let fds = process.fd().ok()?;
        Some(fds.flatten().any(|fd| match fd.target {
            FDTarget::Socket(inode) => sockets.contains(&inode),
            _ => false,
        }))
    };
    let passt = Process::new(pid.as_raw()).ok().as_ref().and_then(found);
    passt.is_none_or(|has| has)
        || all_processes().is_ok_and(|all| {
            let in_group = |p: &Process| p.stat().is_ok_and(|stat| stat.pgrp == pid.as_raw());
            all.flatten().filter(in_group).any(|p| found(&p) == Some(true))
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn listening_is_told_from_being_there() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23456 /run/l/passt.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23466 /run/l/passt.sock\n\
            0000000000000000: 00000002 00000000 00000000 0001 01 23457 /run/m/passt.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 23458\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23459 /run/with space/passt.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23460 /x/run/n/passt.sock\n";
        for (path, inodes) in [
            ("/run/l/passt.sock", &[23456, 23466][..]),
            ("/run/m/passt.sock", &[]),
            ("/run/with space/passt.sock", &[23459]),
            ("/run/n/passt.sock", &[]),
            ("/l/passt.sock", &[]),
        ] {
            assert_eq!(listening(table, Path::new(path)), inodes, "{path}");
        }
    }

    fn plan(socket: &Path) -> PasstPlan {
        PasstPlan {
            program: "passt".into(),
            argv: Vec::new(),
            socket: Some(socket.to_owned()),
            pid: socket.with_file_name("passt.pid"),
            log: socket.with_file_name("passt.log"),
            fd: None,
            user: None,
        }
    }

    #[test]
    fn passt_serves_when_it_has_the_listening_socket() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&dir.path().join("s"));
        let socket = plan.socket.as_deref().unwrap();
        let me = Pid::this();
        assert!(!serves(&plan, me));
        let listener = UnixListener::bind(socket).unwrap();
        assert!(serves(&plan, me));

        // The socket of another process is not passt's.
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let seen = serves(&plan, Pid::from_raw(other.id() as i32));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!seen, "a process without the socket");

        // The file is another one than that which is listened on.
        let moved = dir.path().join("moved");
        fs::rename(socket, &moved).unwrap();
        assert!(!serves(&plan, me), "no file");
        std::os::unix::fs::symlink(&moved, socket).unwrap();
        assert!(!serves(&plan, me), "a link");
        fs::rename(&moved, socket).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::lchown(socket, Some(60_001), None).unwrap();
            assert!(!serves(&plan, me), "of another user");
            std::os::unix::fs::lchown(socket, Some(0), None).unwrap();
        }
        assert!(serves(&plan, me));
        drop(listener);
        assert!(socket.exists() && !serves(&plan, me), "nothing listens");
    }
}
