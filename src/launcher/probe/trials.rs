//! Remembers trials that were successful: of the firewall's tools, and of dnsmasq.
//!
//! Such a trial takes up to a tenth of a second. Its result depends on the program and on the
//! kernel, on the privileges of this process, and on its mounts. So the cache keeps a success
//! under the program, together with [`place`]. It never keeps a failure, because the user repairs
//! the host and asks again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Prober;
use super::cache::{Cache, Key};
use crate::sys::namespace::boot_id;

impl Prober {
    /// Returns whether this trial of the program at `path` was successful before, since the boot
    /// and in the same place.
    pub(crate) fn has_worked(&self, trial: &str, path: &Path) -> bool {
        let cache = Cache::open(self.cache_dir.as_deref());
        let known = Key::new(trial, path).ok().and_then(|key| cache.get::<String>(&key));
        known.is_some() && known == place()
    }

    /// Remembers that this trial of the program at `path` was successful.
    pub(crate) fn keep_success(&self, trial: &str, path: &Path) {
        if let (Ok(key), Some(place)) = (Key::new(trial, path), place()) {
            let mut cache = Cache::open(self.cache_dir.as_deref());
            cache.put(key, &place);
            cache.save();
        }
    }
}

/// Returns the boot, the user and mount namespaces, and the effective capabilities of this process,
/// as one text; `None` without /proc.
fn place() -> Option<String> {
    let namespace = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).ok();
    let (user, mount) = (namespace("user")?.ino(), namespace("mnt")?.ino());
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let (seccomp, capabilities) = (line("Seccomp:").unwrap_or_default(), line("CapEff:")?);
    let boot = boot_id().ok()?;
    Some(format!("{boot} {user} {mount} {} {}", capabilities.trim(), seccomp.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;

    #[test]
    fn a_success_is_remembered_for_a_program_but_not_for_a_script() {
        let Host { prober, .. } = &Host::new();
        let program = std::env::current_exe().unwrap();
        assert!(!prober.has_worked("nftables", &program));
        prober.keep_success("nftables", &program);
        assert!(prober.has_worked("nftables", &program));
        assert!(!prober.has_worked("dnsmasq", &program));
    }
}
