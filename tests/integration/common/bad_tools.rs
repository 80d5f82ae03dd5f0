//! Programs in place of the firewall's tools that end in every bad way: killed before their work or
//! after it, with an error after it, with success without it, and nft with lost messages to and
//! from the kernel.

use std::fs;
use std::process::Output;

use super::{Sandbox, extent, text};

/// How a tool ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Killed after its work.
    KilledAfter,
    /// Killed before its work.
    KilledBefore,
    /// Success without having read its input.
    Ignores,
    /// An error after its work.
    FailsAfter,
    /// nft: this system call fails with ENOBUFS at this occurrence.
    Lost(&'static str, usize),
    /// nft: killed at the entry to this system call.
    KilledAt(&'static str, usize),
}

impl Bad {
    pub const ANY: [Bad; 4] = [Bad::KilledAfter, Bad::KilledBefore, Bad::Ignores, Bad::FailsAfter];

    /// Those of each tool, and those of nft's own calls. nft sends its transaction by sendmsg and
    /// reads the kernel's answers by recvmsg.
    fn of_nft() -> Vec<Bad> {
        let calls = [("sendmsg", 1..3), ("recvmsg", 1..12)];
        let of = |(call, times): (&'static str, std::ops::Range<usize>)| {
            times
                .step_by(extent(3, 1))
                .flat_map(move |n| [Bad::Lost(call, n), Bad::KilledAt(call, n)])
        };
        Bad::ANY.into_iter().chain(calls.into_iter().flat_map(of)).collect()
    }

    /// A script that ends so.
    fn script(self, real: &str) -> String {
        // A call that only asks is carried out.
        let ask = format!("case \"$*\" in *list*|*--check*|*-c*) exec {real} \"$@\";; esac\n");
        let strace = "exec /usr/bin/strace -qq -o /dev/null -e signal=none";
        ask + &match self {
            Bad::KilledAfter => format!("{real} \"$@\"; kill -9 $$"),
            Bad::KilledBefore => "kill -9 $$".to_owned(),
            Bad::Ignores => "exit 0".to_owned(),
            Bad::FailsAfter => format!("{real} \"$@\"; echo 'Error: no buffers' >&2; exit 1"),
            Bad::Lost(call, n) => {
                format!("{strace} -e inject={call}:error=ENOBUFS:when={n} {real} \"$@\"")
            }
            Bad::KilledAt(call, n) => {
                format!("{strace} -e inject={call}:signal=KILL:when={n} {real} \"$@\"")
            }
        }
    }
}

/// A directory of the sandbox for PATH in which these tools end so.
pub fn path(sandbox: &Sandbox, tools: &[&str], bad: Bad) -> String {
    let dir = sandbox.path("wrapped");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    for tool in tools {
        let script = sandbox.script(tool, &bad.script(&format!("/usr/sbin/{tool}")));
        fs::rename(script, dir.join(tool)).unwrap();
    }
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display())
}

pub const NFT: [&str; 1] = ["nft"];
pub const IPTABLES: [&str; 3] = ["iptables-restore", "ip6tables-restore", "ebtables-restore"];

/// The tools of a backend, and how they may end.
pub fn ends(backend: &str) -> (&'static [&'static str], Vec<Bad>) {
    match backend {
        "nftables" => (&NFT, Bad::of_nft()),
        _ => (&IPTABLES, Bad::ANY.to_vec()),
    }
}

pub fn one_line(output: &Output, about: &str) {
    let said = text(&output.stderr);
    assert!(output.status.code().is_some(), "{about}: {:?}: {said}", output.status);
    if !output.status.success() {
        assert_eq!(said.lines().count(), 1, "{about}: {said}");
    }
}

/// How many commands succeeded and failed.
#[derive(Debug, Default)]
pub struct Count {
    pub done: usize,
    pub failed: usize,
}

impl Count {
    pub fn add(&mut self, output: &Output) -> bool {
        let success = output.status.success();
        *(if success { &mut self.done } else { &mut self.failed }) += 1;
        success
    }
}
