//! Gives up root's privileges while the guest runs, except for those that the end needs.
//!
//! The supervisor of a launch without passt starts no further program but the firewall's tools. Of
//! all capabilities it keeps only these:
//!
//! - CAP_NET_ADMIN for a guest on a bridge, to remove its tap at the end. Programs that are
//!   executed from then on cannot get more than that.
//! - CAP_NET_RAW as well if that guest has a filter or published ports: the legacy iptables tools
//!   do not work without it, and these rules change while the guest runs.
//! - CAP_DAC_OVERRIDE only if the launch directory, or the directory of these rules' states, is in
//!   a directory of another user (a state directory in a user's home). Otherwise root owns both,
//!   and needs no capability to change them.
//!
//! A QEMU that runs as another user is ended by its guard, which keeps CAP_KILL for that
//! ([`crate::sys::process`]). Restarting passt after a crash needs root's privileges, so a launch
//! with passt gives up nothing, unless QEMU runs as another user: such a launch uses the fd
//! transport, over which QEMU cannot connect again.

use std::io;
use std::path::Path;

use caps::Capability;

use super::running::Running;
use crate::launcher::plan::TapOwner;
use crate::sys::privileges::keep_only_for;

impl Running {
    /// Gives up the calling thread's capabilities except those that supervising and ending this
    /// launch needs. Everything that this process starts afterwards, other launches included, has
    /// no more than those. For programs with one thread.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn give_up_privileges(&self) -> io::Result<()> {
        let nics = &self.plan.nics;
        let restarts = nics.iter().any(|nic| nic.passt.is_some() && nic.reconnects);
        let mut taps = nics.iter().filter_map(|nic| nic.bridge.as_ref());
        let tap = taps.any(|bridge| bridge.tap_owner == TapOwner::Netlaunch);
        if restarts || (!tap && self.plan.user.is_none()) {
            return Ok(());
        }
        let mut kept: Vec<Capability> = Vec::new();
        if tap {
            kept.push(Capability::CAP_NET_ADMIN);
        }
        // The directory is removed from the one above it.
        let mut dirs = vec![self.plan.dir.parent().unwrap_or(Path::new("/")).to_owned()];
        let ports = self.nics.iter().filter_map(|nic| nic.port.as_ref());
        let ruled = ports.filter_map(|port| port.rules_dir()).next();
        if let Some(dir) = ruled {
            kept.push(Capability::CAP_NET_RAW);
            dirs.push(dir.to_owned());
        }
        let dirs: Vec<&Path> = dirs.iter().map(|dir| dir.as_path()).collect();
        keep_only_for(&kept, &dirs)
    }
}
