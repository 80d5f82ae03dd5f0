//! What a launch of root's keeps of root's privileges while it runs.
//!
//! A supervisor starts nothing any more, so of all capabilities only these stay:
//!
//! - CAP_NET_ADMIN for a guest on a bridge of ours, so that what was set for its tap can be taken
//!   back at the end. It is also all that programs executed from then on can get.
//! - CAP_DAC_OVERRIDE only where the launch directory lies in somebody else's directory (a state
//!   directory in a user's home): root owns the directory itself and needs nothing to remove it.
//!
//! QEMU of another user's is ended by its guard, which keeps CAP_KILL for that
//! ([`crate::process`]). passt that is started again after a crash needs root's privileges, so a
//! launch with a passt that can be restarted gives nothing up.

use std::io;
use std::path::Path;

use caps::Capability;
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

use super::start::Running;
use crate::plan::Way;
use crate::process::keep_only;

impl Running {
    /// Gives up the calling thread's capabilities but those that supervising and ending this launch
    /// take; nothing where it may have to start passt again. It is the whole program's last word:
    /// what is started afterwards, other launches too, has no more. For programs with one thread.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn give_up_privileges(&self) -> io::Result<()> {
        let tap = self.plan.bridge.as_ref().is_some_and(|bridge| bridge.way == Way::Tap);
        if !tap && self.plan.user.is_none() {
            return Ok(());
        }
        let mut kept: Vec<Capability> = Vec::new();
        if tap {
            kept.push(Capability::CAP_NET_ADMIN);
        }
        let passed_on = kept.clone();
        let above = self.plan.dir.parent().unwrap_or(Path::new("/"));
        if !ours_without_override(above)? {
            kept.push(Capability::CAP_DAC_OVERRIDE);
        }
        keep_only(&kept, &passed_on)
    }
}

/// Whether files in this directory can be made and removed without CAP_DAC_OVERRIDE. Asked in a
/// thread of its own, whose capabilities are its own.
fn ours_without_override(dir: &Path) -> io::Result<bool> {
    let dir = dir.to_owned();
    let asked = std::thread::spawn(move || {
        keep_only(&[], &[])?;
        let write = AccessFlags::W_OK | AccessFlags::X_OK;
        Ok(faccessat(nix::fcntl::AT_FDCWD, &dir, write, AtFlags::AT_EACCESS).is_ok())
    });
    asked.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asks has failed")))
}
