//! What a launch of root's keeps of root's privileges while it runs.
//!
//! A supervisor starts nothing any more, so of all capabilities only these stay:
//!
//! - CAP_NET_ADMIN for a guest on a bridge of ours, so that what was set for its tap can be taken
//!   back at the end. It is also all that programs executed from then on can get.
//! - CAP_NET_RAW as well where that guest has a filter: the legacy iptables tools do not work
//!   without, and a filter's rules are changed while the guest runs.
//! - CAP_DAC_OVERRIDE only where the launch directory, or that of the filters' states, lies in
//!   another user's directory (a state directory in a user's home): root owns them
//!   itself and needs nothing to change them.
//!
//! QEMU of another user's is ended by its guard, which keeps CAP_KILL for that
//! ([`crate::process`]). passt that is started again after a crash needs root's privileges, so a
//! launch with a passt that can be restarted gives nothing up.

use std::io;
use std::path::Path;

use caps::Capability;

use super::start::Running;
use crate::plan::Way;
use crate::process::keep_only_for;

impl Running {
    /// Gives up the calling thread's capabilities but those that supervising and ending this launch
    /// take; nothing where it may have to start passt again. It is the whole program's last word:
    /// what is started afterwards, other launches too, has no more. For programs with one thread.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn give_up_privileges(&self) -> io::Result<()> {
        let tap = self.plan.bridge.as_ref().is_some_and(|bridge| bridge.way == Way::Tap);
        if !tap && self.plan.user.is_none() {
            return Ok(());
        }
        let mut kept: Vec<Capability> = Vec::new();
        if tap {
            kept.push(Capability::CAP_NET_ADMIN);
        }
        // The directory is removed from the one above it.
        let mut dirs = vec![self.plan.dir.parent().unwrap_or(Path::new("/")).to_owned()];
        if let Some(bindings) = &self.filtered {
            kept.push(Capability::CAP_NET_RAW);
            dirs.push(bindings.state_dir().to_owned());
        }
        let dirs: Vec<&Path> = dirs.iter().map(|dir| dir.as_path()).collect();
        keep_only_for(&kept, &dirs)
    }
}
