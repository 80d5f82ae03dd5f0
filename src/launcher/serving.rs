//! Finds out whether passt serves, and whether the process that serves is passt.
//!
//! passt is ready when /proc/net/unix shows that its socket listens. The socket file alone is no
//! sign (newer passt makes it 10 to 20 ms before it listens), a test connection would use up
//! `--one-off`, and Debian 12's passt goes on even after its bind() has failed.
//!
//! /proc/net/unix shows the path that a process has given to bind(2). A process in another mount
//! namespace can show the same path, so two more checks follow:
//!
//! - The file at the path is a socket and no link, and belongs to passt's user or to netlaunch's
//!   (newer passt binds before it changes its user).
//! - passt, or a process in its process group, has the listening socket open. netlaunch may not
//!   look at a passt of an ordinary user, because that passt cannot be traced (proc_pid_fd(5)).
//!   Then the only proof is the launch directory, which is closed to other users.
//!
//! The socket says nothing about the published ports: newer passt makes it before it listens on
//! them, and older passt goes on without a port that it cannot listen on. So passt serves only when
//! the kernel has a socket of passt's user on each published port ([`missing_port`]).
//!
//! Two things are not verified: that the file at the path belongs to the listening socket, which
//! would need netlink (sock_diag(7)), and anything after this moment. A process of netlaunch's own
//! user can do everything that netlaunch does, so no check is about such a process.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::{Pid, geteuid};
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};

use crate::launcher::plan::PasstPlan;
use crate::types::{Protocol, Publish};

/// Returns whether passt, process `pid`, is ready for QEMU: it listens, or with the fd transport it
/// has written its pid file, which it does at the end of its set-up.
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

/// Returns the first published port on which passt does not listen, from the tables in /proc/net.
/// The sockets belong to passt's user, or to netlaunch's: older passt makes them before it changes
/// its user.
pub(super) fn missing_port(plan: &PasstPlan) -> Option<(&Publish, u16)> {
    let tables = Tables::read(plan);
    plan.publish.iter().find_map(|publish| {
        let table = match publish.protocol {
            Protocol::Tcp => tables.tcp.as_ref()?,
            Protocol::Udp => tables.udp.as_ref()?,
        };
        let is_missing = |port: &u16| !table.contains(&SocketAddr::new(publish.address, *port));
        publish.host.ports().find(is_missing).map(|port| (publish, port))
    })
}

/// The addresses on which passt's user or netlaunch's listens. `None` if no port of that protocol
/// is published, or if /proc cannot be read; then no port counts as missing.
#[derive(Default)]
struct Tables {
    tcp: Option<HashSet<SocketAddr>>,
    udp: Option<HashSet<SocketAddr>>,
}

impl Tables {
    /// Reads the tables of the protocols that are published. A kernel without IPv6 has no table for
    /// it.
    fn read(plan: &PasstPlan) -> Self {
        let is_users =
            |uid: u32| uid == geteuid().as_raw() || plan.user.is_some_and(|user| uid == user.uid);
        let publishes = |protocol| plan.publish.iter().any(|p| p.protocol == protocol);
        let mut tables = Tables::default();
        if publishes(Protocol::Tcp)
            && let Ok(v4) = procfs::net::tcp()
        {
            let listens = |e: &TcpNetEntry| e.state == TcpState::Listen && is_users(e.uid);
            let all = v4.into_iter().chain(procfs::net::tcp6().into_iter().flatten());
            tables.tcp = Some(all.filter(listens).map(|e| e.local_address).collect());
        }
        if publishes(Protocol::Udp)
            && let Ok(v4) = procfs::net::udp()
        {
            let all = v4.into_iter().chain(procfs::net::udp6().into_iter().flatten());
            tables.udp = Some(all.filter(|e| is_users(e.uid)).map(|e| e.local_address).collect());
        }
        tables
    }
}

/// Returns whether passt's command line names a pid file.
pub(super) fn names_pid_file(plan: &PasstPlan) -> bool {
    plan.argv.iter().any(|arg| arg == plan.pid.as_os_str())
}

/// Returns whether passt has written its pid file.
pub(super) fn pid_file_written(plan: &PasstPlan) -> bool {
    let is = plan.pid.symlink_metadata();
    is.is_ok_and(|is| is.is_file() && is.len() > 0 && is_passts(plan, &is))
}

/// Returns whether passt has made this file.
fn is_passts(plan: &PasstPlan, is: &fs::Metadata) -> bool {
    is.uid() == geteuid().as_raw() || plan.user.is_some_and(|user| is.uid() == user.uid)
}

/// Returns the inodes of the listening sockets that have this path in `table` (proc_net(5),
/// /proc/net/unix).
///
/// Columns: number, reference count, protocol, flags, type, state, inode, path. The flag 0x10000
/// (__SO_ACCEPTCON in the kernel) marks a listening socket.
pub(super) fn listening(table: &[u8], socket: &Path) -> Vec<u64> {
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

/// Returns whether process `pid`, or a process of its group, has one of these sockets open; also if
/// netlaunch may not look. If passt is a script, the real passt is in its group.
fn has_open(pid: Pid, sockets: &[u64]) -> bool {
    // A /proc of another PID namespace shows other processes.
    let me = fs::read_link("/proc/self").ok();
    if me.is_none_or(|me| me != Path::new(&std::process::id().to_string())) {
        return true;
    }
    let found = |process: &Process| {
        let (mut known, mut unknown) = (false, false);
        for fd in process.fd().ok()? {
            match fd.map(|fd| fd.target) {
                Ok(FDTarget::Socket(inode)) if sockets.contains(&inode) => return Some(true),
                Ok(_) => known = true,
                // Without CAP_SYS_PTRACE the directory of another user's process may be readable
                // while its entries are not.
                Err(_) => unknown = true,
            }
        }
        (known && !unknown).then_some(false)
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
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::launcher::plan::DnsPlan;

    #[test]
    fn only_the_listening_sockets_of_a_path_are_found() {
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
            publish: Vec::new(),
            dns: DnsPlan::default(),
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

        // The file at the path is not the listening socket.
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

    #[test]
    fn passt_serves_when_it_listens_on_every_published_port() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let (t, u) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        for (publish, missing) in [
            (format!("{t}:80"), None),
            (format!("[::1]:{u}:53/udp"), None),
            (format!("{t}:80/udp"), Some(t)),
            (format!("0.0.0.0:{t}:80"), Some(t)),
            (format!("[::1]:{t}:80"), Some(t)),
            (format!("{u}:53/udp"), Some(u)),
        ] {
            let publish = vec![publish.parse().unwrap()];
            let plan = PasstPlan { publish, ..plan(Path::new("/nowhere/s")) };
            assert_eq!(missing_port(&plan).map(|(_, port)| port), missing, "{:?}", plan.publish);
        }
    }
}
