//! Decides which calls of QEMU go straight to QEMU, without a network by netlaunch.
//!
//! Programs call QEMU not only to run a guest: they ask for its version and for lists of devices
//! and machines, or probe it by QMP. Such a call must have exactly QEMU's output and cost no time.
//! A guest whose networks netlaunch cannot see, or must not change, goes straight to QEMU as well.
//!
//! The calls are those of libguestfs, libvirt, virtme-ng, mkosi, systemd-vmspawn and others, which
//! the tests below have word for word.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::parameters::parts;
use super::probe_call::probe_call;
use super::{Argument, CommandLine, Setting, Settings};

/// The reason why a call goes straight to QEMU. Its text is a clause for a log. The fields have the
/// option in the caller's spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassThrough {
    /// QEMU prints its help, its version or a list, and exits.
    Help(String),
    /// QEMU refuses the line, because its last option lacks its value.
    NoValue(String),
    /// The machine has no bus for a card.
    NoMachine,
    /// A file may describe networks and cards.
    ConfigFile(String),
    /// The guest's state comes from elsewhere, and belongs to the devices that it was saved with.
    SavedState(String),
    /// `-nodefaults` without a network option.
    NoNetwork,
    /// QMP on standard input, and a machine that runs no guest. It has QEMU's default card.
    Probe(String),
    /// All networks are of other kinds.
    OtherNetworks(String),
}

impl fmt::Display for PassThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PassThrough::Help(written) => write!(f, "{written} asks QEMU for information"),
            PassThrough::NoValue(written) => {
                write!(f, "QEMU refuses {written} without its value")
            }
            PassThrough::NoMachine => f.write_str("a machine of type none has no network card"),
            PassThrough::ConfigFile(written) => {
                write!(f, "the file of {written} can have networks of its own")
            }
            PassThrough::SavedState(written) => {
                write!(f, "the saved guest of {written} needs the devices that it was saved with")
            }
            PassThrough::NoNetwork => {
                f.write_str("-nodefaults without a network option leaves no network")
            }
            PassThrough::Probe(written) => {
                write!(f, "{written} on a machine without anything to run is a probe of QEMU")
            }
            PassThrough::OtherNetworks(written) => {
                write!(f, "no user-mode network is among the networks ({written})")
            }
        }
    }
}

/// Options that print a text and end QEMU.
const INFORMATION: [&str; 4] = ["h", "help", "version", "audio-help"];

/// Options whose value is a file, or text for the guest or for people. QEMU runs the guest if
/// `help` is in such a value (measured with QEMU 10.0).
const TEXT: [&str; 29] = [
    "D",
    "append",
    "bios",
    "cdrom",
    "chroot",
    "dtb",
    "echr",
    "fda",
    "fdb",
    "global",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "initrd",
    "k",
    "kernel",
    "mem-path",
    "mtdblock",
    "name",
    "option-rom",
    "pflash",
    "pidfile",
    "runas",
    "sd",
    "shim",
    "tftp",
    "uuid",
    "writeconfig",
];

/// Options that ask with the whole value only: QEMU ignores `help` in a part of it.
const WHOLE: [&str; 2] = ["L", "accel"];

/// The keys with which `KEY=help` asks for a list, each with its option. Any other value, such as a
/// serial number of `-smbios` or an id, is the caller's text.
const LISTED: [(&str, &str); 15] = [
    ("accel", "accel"),
    ("audio", "driver"),
    ("audio", "model"),
    ("audiodev", "driver"),
    ("chardev", "backend"),
    ("device", "driver"),
    ("display", "type"),
    ("drive", "format"),
    ("machine", "type"),
    ("net", "model"),
    ("net", "type"),
    ("netdev", "type"),
    ("nic", "model"),
    ("nic", "type"),
    ("object", "qom-type"),
];

/// Returns why the call goes straight to QEMU; `None` for a guest that has, or gets by default, a
/// user-mode network.
pub fn pass_through(line: &CommandLine) -> Option<PassThrough> {
    if let Some(written) = line.arguments().iter().find_map(|argument| asks(line, argument)) {
        return Some(PassThrough::Help(written));
    }
    if let Some(option) = line.without_value() {
        return Some(PassThrough::NoValue(option.display().to_string()));
    }
    let settings = line.settings(&[]);
    let first = |names: &[&str]| {
        let named = |a: &&Argument| a.name.as_deref().is_some_and(|name| names.contains(&name));
        line.arguments().iter().find(named).map(|argument| written(line, argument))
    };
    if let Some(written) = first(&["readconfig"]) {
        return Some(PassThrough::ConfigFile(written));
    }
    if settings.machine_type().as_deref() == Some("none") {
        return Some(PassThrough::NoMachine);
    }
    if let Some(written) = first(&["incoming", "loadvm"]) {
        return Some(PassThrough::SavedState(written));
    }
    let networks: Vec<&Setting> =
        ["netdev", "nic", "net"].iter().flat_map(|group| settings.of_group(group)).collect();
    if networks.is_empty() {
        return without_network(line, &settings, first);
    }
    if networks.iter().any(|setting| is_user(setting)) {
        return None;
    }
    let written: Vec<&str> = networks.iter().map(|setting| setting.written.as_str()).collect();
    Some(PassThrough::OtherNetworks(written.join(" ")))
}

/// Decides about a call without a network option, which has QEMU's default card unless
/// `-nodefaults` removes it.
fn without_network(
    line: &CommandLine,
    settings: &Settings,
    first: impl Fn(&[&str]) -> Option<String>,
) -> Option<PassThrough> {
    if first(&["nodefaults"]).is_some() {
        return Some(PassThrough::NoNetwork);
    }
    probe_call(line, settings).map(|argument| PassThrough::Probe(written(line, argument)))
}

/// Returns whether a network is a user-mode network that QEMU makes itself; `-nic` without a type
/// is one.
fn is_user(setting: &Setting) -> bool {
    let kind = setting.parameters.get("type").or((setting.group == "nic").then_some(b"user"));
    kind == Some(b"user")
}

/// Returns the option in the caller's spelling if it asks QEMU for information.
fn asks(line: &CommandLine, argument: &Argument) -> Option<String> {
    let name = argument.name.as_deref()?;
    let asks = INFORMATION.contains(&name)
        || line.value(argument).is_some_and(|value| asks_for_list(name, value));
    asks.then(|| written(line, argument))
}

/// Returns whether the value of an option asks for a list: `help` or `?`, alone, as a part, or as
/// the value of a key, as in `virtio-net-pci,help` and `driver=help`.
///
/// A false answer costs some milliseconds, as QEMU then prints its list with the network moved. A
/// false positive would run a guest without the settings that must hold. QEMU knows no request for
/// a list in JSON.
fn asks_for_list(name: &str, value: &OsStr) -> bool {
    let is_help = |text: &[u8]| matches!(text, b"help" | b"?");
    let value = value.as_bytes();
    if TEXT.contains(&name) || value.starts_with(b"{") {
        return false;
    }
    if is_help(value) {
        return true;
    }
    let is_listed = |key: &[u8]| {
        LISTED.iter().any(|(option, listed)| *option == name && listed.as_bytes() == key)
    };
    parts(value, true).iter().any(|part| match part {
        (Some(key), text) => is_listed(key) && is_help(text),
        (None, text) => is_help(text) && !WHOLE.contains(&name),
    })
}

/// Returns an option with its value as the caller wrote it, for messages.
fn written(line: &CommandLine, argument: &Argument) -> String {
    let name = line.words().get(argument.at).map(|word| word.display().to_string());
    let value = line.value(argument).map(|value| format!(" {}", value.display()));
    name.unwrap_or_default() + &value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;

    fn decide(line: &str) -> Option<PassThrough> {
        let words = shell_words::split(line).unwrap();
        pass_through(&CommandLine::parse(&words.iter().map(OsString::from).collect::<Vec<_>>()))
    }

    /// Returns the name of the reason, or "runs".
    fn kind(line: &str) -> String {
        let Some(reason) = decide(line) else { return "runs".to_owned() };
        let debug = format!("{reason:?}");
        debug.split('(').next().unwrap().to_owned()
    }

    #[test]
    fn a_probe_call_of_a_launcher_passes_through() {
        for (line, expected) in [
            // libguestfs 1.48.
            ("-display none -help", "Help"),
            ("-display none -version", "Help"),
            ("-display none -machine accel=kvm:hvf:tcg -device ?", "Help"),
            ("-display none -machine accel=kvm:hvf:tcg -qmp stdio", "Probe"),
            // libguestfs 1.60.
            ("-display none -machine none,accel=kvm:hvf:tcg -qmp stdio -S", "NoMachine"),
            ("-display none -machine none -accel kvm -accel tcg -qmp stdio", "NoMachine"),
            // libvirt 12.
            (
                "-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/q,server=on,wait=off -pidfile /p -daemonize",
                "NoMachine",
            ),
            // mkosi 27, virtme-ng 1.41, quickemu 4.9, systemd-vmspawn 262, kvm-ok, virt-v2v.
            ("--version", "Help"),
            ("-version", "Help"),
            ("-machine help", "Help"),
            ("-cpu help", "Help"),
            ("-accel ?", "Help"),
            ("-device virtio-net-pci,help", "Help"),
            ("-audio driver=help", "Help"),
            ("-L help", "Help"),
            ("-drive file=a,format=help", "Help"),
            ("-netdev help", "Help"),
            ("-device driver=virtio-net-pci,help", "Help"),
            ("-drive file=a,,b,format=help", "Help"),
            ("-device ide-hd,serial=a,,b,help", "Help"),
            ("-M virt,help -nic user", "Help"),
            ("-drive file=a,if=virtio -nic user --help", "Help"),
            ("-no-user-config -nodefaults -readconfig /run/x", "ConfigFile"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn a_guest_without_a_user_network_passes_through() {
        for (line, expected) in [
            ("-nodefaults -kernel k", "NoNetwork"),
            ("-nodefaults -device virtio-net-pci disk.img", "NoNetwork"),
            ("-nic none disk.img", "OtherNetworks"),
            ("-net none disk.img", "OtherNetworks"),
            ("-netdev tap,id=a -device e1000,netdev=a", "OtherNetworks"),
            ("-netdev stream,id=a,addr.type=unix,addr.path=user", "OtherNetworks"),
            ("-net nic disk.img", "OtherNetworks"),
            ("-netdev passt,id=a", "OtherNetworks"),
            ("-nic user -incoming defer", "SavedState"),
            ("-loadvm here disk.img", "SavedState"),
            ("-readconfig f -nic user", "ConfigFile"),
            ("-machine none -readconfig f -nic user", "ConfigFile"),
            ("-M type=none -nic user", "NoMachine"),
            ("-M pc -machine none", "NoMachine"),
            ("-qmp stdio", "Probe"),
            ("-S -nic user -name", "NoValue"),
            ("-nic user --append", "NoValue"),
            ("-m", "NoValue"),
            ("-qmp stdio -kernel", "NoValue"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn a_guest_with_a_user_network_does_not_pass_through() {
        for line in [
            "",
            "disk.img",
            "-nic user",
            "-nic model=e1000 -nodefaults",
            "-netdev user,id=a -device e1000,netdev=a -nodefaults",
            r#"-netdev '{"type":"user","id":"a"}'"#,
            "-net none -netdev user,id=n0",
            "-net nic -net user",
            "-nic tap -nic user",
            "-nic user -qmp stdio",
            "-qmp stdio disk.img",
            "-monitor stdio",
            "-qmp stdio -bios b",
            "-qmp stdio -boot n",
            "-qmp unix:/stdio,server=on",
            "-append help -name ?",
            "-smbios type=1,serial=help",
            "-smbios type=11,value=?",
            "-fw_cfg name=opt/a,string=help",
            "-chardev null,id=help",
            "-device ide-hd,drive=d,model=help",
            "-kernel help -pidfile help -D help -k help -echr help",
            "-cdrom a,help",
            "-smbios type=11,value=please,,help",
            "-fw_cfg name=opt/x,string=a,,help,,b",
            "-drive file=a,,?,if=virtio",
            "-device ide-hd,drive=d,serial=x,,?",
            "-chardev a,,help",
            r#"-device '{"driver":"virtio-blk-pci","drive":"a","serial":"x,?,y"}'"#,
            r#"-blockdev '{"driver":"file","node-name":"a","filename":"/x,help,y"}'"#,
            "-accel tcg,help",
            "-L /x,help",
            "-global isa-serial.x=y,help",
            "-append '-machine none' -nic user",
            "-M q35 -drive file=none",
            "-netdev tap,id=a -set netdev.a.type=user",
        ] {
            assert_eq!(decide(line), None, "{line}");
        }
    }

    #[test]
    fn the_reason_names_the_option_as_the_caller_wrote_it() {
        for (line, expected) in [
            ("--machine help", "--machine help asks QEMU for information"),
            ("-nic none", "no user-mode network is among the networks (-nic none)"),
            ("-qmp stdio", "-qmp stdio on a machine without anything to run is a probe of QEMU"),
            ("-nodefaults", "-nodefaults without a network option leaves no network"),
        ] {
            assert_eq!(decide(line).unwrap().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_version_call_passes_through_with_any_other_options(
            words in prop::collection::vec("-[SM]|pc|-nic|user|-display|none", 0..6),
        ) {
            // A word before it could take -version as its value.
            let words = ["-version".to_owned()].into_iter().chain(words).map(OsString::from);
            let line = CommandLine::parse(&words.collect::<Vec<_>>());
            prop_assert_eq!(pass_through(&line), Some(PassThrough::Help("-version".to_owned())));
        }
    }
}
