//! Settings in /proc/sys, with a record of what was there before.
//!
//! Routing for guests needs settings that the whole host shares, such as IP forwarding. A setting
//! that had the wanted value already is not ours and never touched again. One that we changed is
//! put back when the last of our networks that needs it goes, unless somebody has changed it in
//! between: [`restore`] decides, and changes nothing itself.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::types::InterfaceName;

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    /// IPv4 forwarding between all interfaces.
    Ipv4Forwarding,
    /// IPv6 forwarding between all interfaces; interfaces stop taking routes from routers'
    /// advertisements unless their `accept_ra` is 2.
    Ipv6Forwarding,
    /// Whether frames within a bridge pass the IPv4 packet filter (module br_netfilter).
    BridgeCallsIptables,
    /// The same for IPv6.
    BridgeCallsIp6tables,
    /// The same for ARP.
    BridgeCallsArptables,
    /// Whether IPv6 is turned off on all interfaces. A kernel without IPv6 lacks the setting.
    AllIpv6Disabled,
    /// Whether an interface has no IPv6 at all. Of an interface's own settings there is nothing to
    /// put back where the interface goes.
    Ipv6Disabled(InterfaceName),
    /// Whether an interface takes routes from IPv6 routers: 0 no, 1 unless it forwards, 2 always.
    AcceptRa(InterfaceName),
    /// Whether an interface makes itself addresses from routers' advertisements.
    Autoconf(InterfaceName),
}

impl Key {
    /// Its file below /proc/sys.
    pub fn path(&self) -> PathBuf {
        let own = |name: &InterfaceName, what: &str| {
            Path::new("net/ipv6/conf").join(name.as_str()).join(what)
        };
        match self {
            Key::Ipv4Forwarding => "net/ipv4/ip_forward".into(),
            Key::Ipv6Forwarding => "net/ipv6/conf/all/forwarding".into(),
            Key::BridgeCallsIptables => "net/bridge/bridge-nf-call-iptables".into(),
            Key::BridgeCallsIp6tables => "net/bridge/bridge-nf-call-ip6tables".into(),
            Key::BridgeCallsArptables => "net/bridge/bridge-nf-call-arptables".into(),
            Key::AllIpv6Disabled => "net/ipv6/conf/all/disable_ipv6".into(),
            Key::Ipv6Disabled(name) => own(name, "disable_ipv6"),
            Key::AcceptRa(name) => own(name, "accept_ra"),
            Key::Autoconf(name) => own(name, "autoconf"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// A setting that we changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// What it was.
    pub before: String,
    /// What we made it.
    pub after: String,
}

/// What becomes of a setting that we changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore<'a> {
    /// This value is put back.
    Write(&'a str),
    /// Another network of ours needs it; that one takes the record over.
    HandOver,
    /// Somebody has changed it since: it is theirs.
    Leave,
}

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// Not read.
    #[error("cannot read {}: {source}; the kernel may lack the feature", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Not written.
    #[error("cannot write {value:?} to {}: {source}; run netlaunch as root where /proc/sys is writable, or set it yourself before", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Decides what becomes of a setting that we changed, given its value now and whether another of
/// our networks needs it.
pub fn restore<'a>(change: &'a Change, now: &str, needed: bool) -> Restore<'a> {
    if needed {
        Restore::HandOver
    } else if now == change.after {
        Restore::Write(&change.before)
    } else {
        Restore::Leave
    }
}

/// The settings below a directory: /proc/sys, or a test's own.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
}

impl Sysctls {
    /// The settings below `root`, usually `/proc/sys`.
    pub fn new(root: &Path) -> Self {
        Sysctls { root: root.to_owned() }
    }

    /// A setting's value without the line's end; none where the kernel has no such setting.
    ///
    /// # Errors
    /// [`SysctlError::Read`].
    pub fn get(&self, key: &Key) -> Result<Option<String>, SysctlError> {
        let path = self.root.join(key.path());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            // Without /proc nothing is known about the kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(None),
            Err(source) => Err(SysctlError::Read { path, source }),
        }
    }

    /// Sets a value; nothing to undo where it was that already.
    ///
    /// # Errors
    /// The setting is missing, or cannot be read or written.
    pub fn set(&self, key: &Key, value: &str) -> Result<Option<Change>, SysctlError> {
        let change = self.plan(key, value)?;
        if let Some(change) = &change {
            self.make(change)?;
        }
        Ok(change)
    }

    /// The change that setting this value would be, to be recorded before it is made: until then
    /// undoing it does nothing. None where the value is that already.
    ///
    /// # Errors
    /// The setting is missing, or cannot be read.
    pub fn plan(&self, key: &Key, value: &str) -> Result<Option<Change>, SysctlError> {
        let Some(before) = self.get(key)? else {
            let source = io::ErrorKind::NotFound.into();
            return Err(SysctlError::Read { path: self.root.join(key.path()), source });
        };
        let change = Change { key: key.clone(), before, after: value.to_owned() };
        Ok(Some(change).filter(|change| change.before != change.after))
    }

    /// Makes a change.
    ///
    /// # Errors
    /// The setting cannot be written.
    pub fn make(&self, change: &Change) -> Result<(), SysctlError> {
        self.write(&change.key, &change.after)
    }

    /// Puts a setting back as [`restore`] decides, and says what it decided. One that is gone was
    /// an interface's or a module's, and is left.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn undo<'a>(&self, change: &'a Change, needed: bool) -> Result<Restore<'a>, SysctlError> {
        let Some(now) = self.get(&change.key)? else { return Ok(Restore::Leave) };
        let decided = restore(change, &now, needed);
        if let Restore::Write(value) = decided {
            self.write(&change.key, value)?;
        }
        Ok(decided)
    }

    fn write(&self, key: &Key, value: &str) -> Result<(), SysctlError> {
        let path = self.root.join(key.path());
        fs::write(&path, value).map_err(|source| SysctlError::Write {
            path,
            value: value.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc() -> (tempfile::TempDir, Sysctls) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Key::Ipv4Forwarding.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "0\n").unwrap();
        let sysctls = Sysctls::new(dir.path());
        (dir, sysctls)
    }

    #[test]
    fn only_what_we_changed_is_put_back() {
        let (_dir, sysctls) = proc();
        let key = Key::Ipv4Forwarding;
        assert_eq!(sysctls.set(&key, "0").unwrap(), None);
        let change = sysctls.set(&key, "1").unwrap().unwrap();
        assert_eq!(sysctls.set(&key, "1").unwrap(), None, "a second network changes nothing");
        assert_eq!(sysctls.undo(&change, true).unwrap(), Restore::HandOver);
        assert_eq!(sysctls.get(&key).unwrap().as_deref(), Some("1"));
        assert_eq!(sysctls.undo(&change, false).unwrap(), Restore::Write("0"));
        assert_eq!(sysctls.get(&key).unwrap().as_deref(), Some("0"));
        assert_eq!(sysctls.undo(&change, false).unwrap(), Restore::Leave);
    }

    #[test]
    fn a_setting_that_is_missing_is_named() {
        let (_dir, sysctls) = proc();
        let key = Key::AcceptRa("br.1".parse().unwrap());
        assert_eq!(sysctls.get(&key).unwrap(), None);
        let error = sysctls.set(&key, "0").unwrap_err().to_string();
        assert!(error.contains("net/ipv6/conf/br.1/accept_ra"), "{error}");
        let change = Change { key, before: "1".into(), after: "0".into() };
        assert_eq!(sysctls.undo(&change, false).unwrap(), Restore::Leave);
    }

    #[test]
    fn the_written_form_stays() {
        let change = Change { key: Key::Ipv6Forwarding, before: "0".into(), after: "1".into() };
        let written = r#"{"key":"ipv6-forwarding","before":"0","after":"1"}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), written);
        let own = Key::AcceptRa("br0".parse().unwrap());
        assert_eq!(serde_json::to_string(&own).unwrap(), r#"{"accept-ra":"br0"}"#);
    }
}
