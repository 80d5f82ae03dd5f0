//! Changes settings in /proc/sys, and records their earlier values.
//!
//! Routing for guests needs settings that the whole host shares, such as IP forwarding. netlaunch
//! never changes a setting that had the wanted value already. It restores a setting that it changed
//! when the last network that needs it ends, unless another program has changed the setting in the
//! meantime. [`restore`] decides this, and changes no setting itself.

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
    /// IPv6 forwarding between all interfaces. With forwarding, an interface ignores routes from
    /// routers' advertisements unless its `accept_ra` is 2.
    Ipv6Forwarding,
    /// Whether frames within a bridge pass the IPv4 packet filter (module br_netfilter).
    BridgeCallsIptables,
    /// Whether frames within a bridge pass the IPv6 packet filter.
    BridgeCallsIp6tables,
    /// Whether frames within a bridge pass the ARP packet filter.
    BridgeCallsArptables,
    /// Whether IPv6 is turned off on all interfaces. A kernel without IPv6 lacks the setting.
    AllIpv6Disabled,
    /// Whether an interface has no IPv6. The settings of an interface need not be restored if the
    /// interface no longer exists.
    Ipv6Disabled(InterfaceName),
    /// Whether an interface accepts routes from IPv6 routers: 0 no, 1 unless it forwards, 2 always.
    AcceptRa(InterfaceName),
    /// Whether an interface makes addresses for itself from routers' advertisements.
    Autoconf(InterfaceName),
    /// Whether the host forwards IPv4 packets that arrive on an interface. A write to
    /// [`Key::Ipv4Forwarding`] sets it on all interfaces, and `default` for later ones.
    Ipv4ForwardingOf(InterfaceName),
    /// Whether the host forwards IPv6 packets that arrive on an interface; see
    /// [`Key::Ipv6Forwarding`].
    Ipv6ForwardingOf(InterfaceName),
    /// Whether all interfaces accept ICMP redirects. A write to [`Key::Ipv4Forwarding`] sets this
    /// to the opposite value.
    AcceptRedirects,
}

impl Key {
    /// Returns the path below /proc/sys.
    pub fn path(&self) -> PathBuf {
        let of = |version: &str, name: &InterfaceName, what: &str| {
            Path::new("net").join(version).join("conf").join(name.as_str()).join(what)
        };
        let own = |name: &InterfaceName, what: &str| of("ipv6", name, what);
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
            Key::Ipv4ForwardingOf(name) => of("ipv4", name, "forwarding"),
            Key::Ipv6ForwardingOf(name) => own(name, "forwarding"),
            Key::AcceptRedirects => "net/ipv4/conf/all/accept_redirects".into(),
        }
    }

    /// Returns the setting of the whole host on which this one depends: a write to that setting
    /// changes this one or its meaning.
    pub fn follows(&self) -> Option<Key> {
        match self {
            Key::Ipv4ForwardingOf(_) | Key::AcceptRedirects => Some(Key::Ipv4Forwarding),
            Key::Ipv6ForwardingOf(_) | Key::AcceptRa(_) => Some(Key::Ipv6Forwarding),
            _ => None,
        }
    }

    /// Returns the same setting for another interface; a setting of the whole host stays the same.
    pub fn of(&self, name: InterfaceName) -> Self {
        match self {
            Key::Ipv6Disabled(_) => Key::Ipv6Disabled(name),
            Key::AcceptRa(_) => Key::AcceptRa(name),
            Key::Autoconf(_) => Key::Autoconf(name),
            Key::Ipv4ForwardingOf(_) => Key::Ipv4ForwardingOf(name),
            Key::Ipv6ForwardingOf(_) => Key::Ipv6ForwardingOf(name),
            key => key.clone(),
        }
    }

    /// Returns whether the setting turns forwarding on or off.
    pub fn is_forwarding(&self) -> bool {
        matches!(
            self,
            Key::Ipv4Forwarding
                | Key::Ipv6Forwarding
                | Key::Ipv4ForwardingOf(_)
                | Key::Ipv6ForwardingOf(_)
        )
    }

    /// Returns whether this is the default for interfaces that are made later.
    pub fn is_default(&self) -> bool {
        match self {
            Key::Ipv6Disabled(name)
            | Key::AcceptRa(name)
            | Key::Autoconf(name)
            | Key::Ipv4ForwardingOf(name)
            | Key::Ipv6ForwardingOf(name) => name.as_str() == "default",
            _ => false,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// A setting that netlaunch changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The setting.
    pub key: Key,
    /// The value from before.
    pub before: String,
    /// The value that netlaunch wrote.
    pub after: String,
    /// The number of the interface of the setting, which stays the same if the interface is
    /// renamed. For `default` it is the number of the newest interface: interfaces with a higher
    /// number came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// The decision about a setting that netlaunch changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore<'a> {
    /// The caller writes this value back.
    Write(&'a str),
    /// Another network needs the setting, and takes over the record.
    HandOver,
    /// Another program has changed the setting since, so it stays.
    Leave,
}

/// The reason why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The setting could not be read.
    #[error("cannot read {}; the kernel may lack the feature", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The directory of settings does not exist.
    #[error("cannot read {}: {} does not exist; mount /proc", path.display(), root.display())]
    NoProc {
        /// The file.
        path: PathBuf,
        /// The directory.
        root: PathBuf,
    },
    /// The setting could not be written.
    #[error("cannot write {value:?} to {}; run as root where /proc/sys is writable, or set it yourself before", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Decides about a setting that netlaunch changed, from its present value and from whether another
/// network needs it.
pub fn restore<'a>(change: &'a SettingChange, now: &str, needed: bool) -> Restore<'a> {
    if needed {
        Restore::HandOver
    } else if now == change.after {
        Restore::Write(&change.before)
    } else {
        Restore::Leave
    }
}

/// The settings below a directory: /proc/sys, or the directory of a test.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
}

impl Sysctls {
    /// Returns the settings below `root`, usually `/proc/sys`.
    pub fn new(root: &Path) -> Self {
        Sysctls { root: root.to_owned() }
    }

    /// Returns a setting's value without the final newline; `None` if the kernel has no such
    /// setting.
    ///
    /// # Errors
    /// Returns [`SysctlError::Read`] or [`SysctlError::NoProc`].
    pub fn get(&self, key: &Key) -> Result<Option<String>, SysctlError> {
        let path = self.root.join(key.path());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(None),
            // Without /proc the absence of a file says nothing about the kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SysctlError::NoProc { path, root: self.root.clone() })
            }
            Err(source) => Err(SysctlError::Read { path, source }),
        }
    }

    /// Sets a value. Returns `None` if the setting had that value already.
    ///
    /// # Errors
    /// Returns an error if the setting does not exist, or cannot be read or written.
    pub fn set(&self, key: &Key, value: &str) -> Result<Option<SettingChange>, SysctlError> {
        let change = self.plan(key, value)?;
        if let Some(change) = &change {
            self.make(change)?;
        }
        Ok(change)
    }

    /// Returns the change that would set this value, so that the caller can record it first: before
    /// the change is made, undoing it has no effect. Returns `None` if the setting has that value
    /// already.
    ///
    /// # Errors
    /// Returns an error if the setting does not exist or cannot be read.
    pub fn plan(&self, key: &Key, value: &str) -> Result<Option<SettingChange>, SysctlError> {
        let Some(before) = self.get(key)? else {
            let source = io::ErrorKind::NotFound.into();
            return Err(SysctlError::Read { path: self.root.join(key.path()), source });
        };
        let change =
            SettingChange { key: key.clone(), before, after: value.to_owned(), index: None };
        Ok(Some(change).filter(|change| change.before != change.after))
    }

    /// Makes a change.
    ///
    /// # Errors
    /// Returns an error if the setting cannot be written.
    pub fn make(&self, change: &SettingChange) -> Result<(), SysctlError> {
        self.write(&change.key, &change.after)
    }

    /// Restores a setting as [`restore`] decides, and returns the decision. A setting that no
    /// longer exists belonged to an interface or a module and needs no restoring.
    ///
    /// # Errors
    /// Returns an error if the setting cannot be read or written.
    pub fn undo<'a>(
        &self,
        change: &'a SettingChange,
        needed: bool,
    ) -> Result<Restore<'a>, SysctlError> {
        let Some(now) = self.get(&change.key)? else { return Ok(Restore::Leave) };
        let decided = restore(change, &now, needed);
        if let Restore::Write(value) = decided {
            self.write(&change.key, value)?;
        }
        Ok(decided)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// Returns an error if the setting cannot be written.
    pub fn write(&self, key: &Key, value: &str) -> Result<(), SysctlError> {
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
    fn only_a_changed_setting_is_restored() {
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
        let change = SettingChange { key, before: "1".into(), after: "0".into(), index: None };
        assert_eq!(sysctls.undo(&change, false).unwrap(), Restore::Leave);
    }

    #[test]
    fn the_written_form_stays() {
        let change = SettingChange {
            key: Key::Ipv6Forwarding,
            before: "0".into(),
            after: "1".into(),
            index: None,
        };
        let written = r#"{"key":"ipv6-forwarding","before":"0","after":"1"}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), written);
        let own = Key::AcceptRa("br0".parse().unwrap());
        assert_eq!(serde_json::to_string(&own).unwrap(), r#"{"accept-ra":"br0"}"#);
    }
}
