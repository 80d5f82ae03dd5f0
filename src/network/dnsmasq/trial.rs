//! Tries whether dnsmasq starts and serves, for `netlaunch probe`.
//!
//! The trial runs in an empty network namespace, which the caller has entered, and in a PID
//! namespace, whose end kills the daemon. dnsmasq gets the options of a network, but no files: it
//! runs with a transient user and the capabilities of a network's dnsmasq, and opens the sockets of
//! DHCP, DNS and router advertisements. Its interface does not exist, so it serves no address.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::process::{CAPABILITIES, words};
use super::record::only_root;
use crate::sys::process::{Isolation, Spawn, Stdio, capture};
use crate::types::facts::Problem;
use crate::types::{TransientUser, error_text};

/// The options of the trial. The ranges are documentation addresses. A range of DHCPv6 addresses
/// would need an interface with a MAC address, so the IPv6 range has router advertisements only.
const OPTIONS: [&str; 11] = [
    "--conf-file=/dev/null",
    "--pid-file=",
    "--interface=nl-try",
    "--except-interface=lo",
    "--bind-dynamic",
    "--no-resolv",
    "--no-hosts",
    "--dhcp-range=192.0.2.10,192.0.2.20",
    "--dhcp-range=2001:db8::,ra-only",
    "--enable-ra",
    "--leasefile-ro",
];

/// The fix for a dnsmasq that is installed but does not work.
const FIX: &str = "run dnsmasq by hand, or look for its messages in the system log";

/// Starts dnsmasq until it serves, and ends it.
///
/// # Errors
/// Returns the reason why a network would have no dnsmasq. No process is left.
pub async fn try_dnsmasq(program: &Path) -> Result<(), Problem> {
    let failed = |why: String| Problem::new(why, FIX);
    let tried = run(program).await;
    let (is_served, said) = tried.map_err(|error| {
        failed(format!("{} cannot be started: {}", program.display(), error_text(&error)))
    })?;
    if is_served {
        return Ok(());
    }
    let said = words(&said).unwrap_or_else(|| "it ends without a message".to_owned());
    Err(failed(format!("{} does not serve: {said}", program.display())))
}

/// Lets dnsmasq check the options of [`try_dnsmasq`], for a host on which this process may make no
/// namespace. dnsmasq opens no socket then.
///
/// # Errors
/// Returns the reason why a network would have no dnsmasq.
pub async fn check_dnsmasq(program: &Path, limit: Duration) -> Result<(), Problem> {
    let args: Vec<OsString> = OPTIONS.into_iter().chain(["--test"]).map(OsString::from).collect();
    let checked = capture(program, &args, b"", limit).await;
    let shown = program.display();
    let why = match checked {
        Ok(ended) if ended.status.is_some_and(|status| status.success()) => return Ok(()),
        Ok(ended) => {
            let said = words(&String::from_utf8_lossy(&ended.stderr));
            format!(
                "{shown} refuses a network's options: {}",
                said.as_deref().unwrap_or("no reason")
            )
        }
        Err(error) => format!("{shown} cannot be started: {}", error_text(&error)),
    };
    Err(Problem::new(why, FIX))
}

/// Runs the first process of dnsmasq to its end. Returns whether dnsmasq serves, and its messages.
async fn run(program: &Path) -> io::Result<(bool, String)> {
    let (error_end, mut error) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let mut argv = vec![program.as_os_str().to_owned()];
    argv.extend(OPTIONS.map(OsString::from));
    let user = TransientUser::pick().ok();
    if user.is_none() && only_root() {
        // An empty group keeps dnsmasq from changing its groups, which is not permitted here.
        argv.extend(["--user=root", "--group="].map(OsString::from));
    }
    let mut spawn = Spawn::new(program, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(Stdio::Null, Stdio::Null, Stdio::Fd(error_end?))
        .isolation(Isolation::PidNamespace)
        .own_group();
    if let Some(user) = user {
        spawn = spawn.transient(user, &CAPABILITIES);
    }
    let mut child = spawn.start().map_err(io::Error::other)?;
    let mut stderr = Vec::new();
    error.read_to_end(&mut stderr).await?;
    let status = child.wait().await;
    Ok((status.success(), String::from_utf8_lossy(&stderr).into_owned()))
}
