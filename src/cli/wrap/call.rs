//! Recognises a call of netlaunch by the name of a QEMU.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A call that stands in for a QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Call {
    /// The name of the QEMU, which is looked up in PATH.
    pub(super) name: OsString,
    /// QEMU's whole argument vector as the caller wrote it, the program's name first.
    pub(super) argv: Vec<OsString>,
}

impl Call {
    /// Returns the call with these arguments, the program's name first; `None` if netlaunch was
    /// called by a name that is not that of a QEMU.
    ///
    /// `executed` is the path that the caller executed, and `file` that of the program file, to
    /// which a symbolic link may have led. They count if the caller gave another name in `argv[0]`.
    pub(super) fn of(
        argv: &[OsString],
        executed: Option<&OsStr>,
        file: Option<&OsStr>,
    ) -> Option<Self> {
        let called = argv.first().map(OsString::as_os_str);
        // A link named netlaunch to a stand-in is netlaunch.
        let file = file.filter(|_| called.and_then(file_name) != Some(OsStr::new("netlaunch")));
        let names = called.into_iter().chain(executed).chain(file);
        let name = names.filter_map(file_name).find(|name| is_qemu(name))?;
        Some(Call { name: name.to_owned(), argv: argv.to_vec() })
    }

    /// Returns QEMU's arguments.
    pub(super) fn arguments(&self) -> &[OsString] {
        self.argv.get(1..).unwrap_or_default()
    }
}

fn file_name(path: &OsStr) -> Option<&OsStr> {
    Path::new(path).file_name()
}

/// Whether a stand-in can have this name: `qemu-system-*`, `qemu-kvm` or `kvm`.
pub(super) fn is_qemu(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let system = name.strip_prefix(b"qemu-system-");
    system.is_some_and(|target| !target.is_empty() && !target.contains(&b'/'))
        || matches!(name, b"qemu-kvm" | b"kvm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_by_the_name_of_a_qemu_is_one_of_its_stand_in() {
        for (argv, executed, file, expected) in [
            ("qemu-system-x86_64 -S", "/a/qemu-system-x86_64", "", Some("qemu-system-x86_64")),
            ("/a/qemu-system-arm", "/a/qemu-system-arm", "", Some("qemu-system-arm")),
            ("kvm", "/b/netlaunch", "/b/netlaunch", Some("kvm")),
            ("./qemu-kvm", "qemu-kvm", "", Some("qemu-kvm")),
            ("guest", "/a/qemu-system-x86_64", "", Some("qemu-system-x86_64")),
            ("./myvm -S", "./myvm", "/a/qemu-system-arm", Some("qemu-system-arm")),
            ("netlaunch -- kvm", "/usr/bin/netlaunch", "/usr/bin/netlaunch", None),
            ("/b/netlaunch ps", "/b/netlaunch", "/a/qemu-system-arm", None),
            ("qemu-system-", "/a/b", "", None),
            ("qemu-img", "/a/qemu-img", "", None),
            ("kvm2", "", "/a/kvm2", None),
        ] {
            let argv: Vec<OsString> = argv.split(' ').map(OsString::from).collect();
            let call = Call::of(&argv, Some(OsStr::new(executed)), Some(OsStr::new(file)));
            assert_eq!(call.as_ref().map(|call| call.name.as_os_str()), expected.map(OsStr::new));
            assert!(call.is_none_or(|call| call.argv == argv));
        }
        assert_eq!(Call::of(&[], None, None), None);
    }
}
