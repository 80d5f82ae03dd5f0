//! Recognises a call that asks QEMU by QMP, on a machine that runs no guest.
//!
//! libguestfs starts such a QEMU to learn its features, writes QMP commands to its standard input,
//! and lets it quit. The machine has QEMU's default card, but nothing that could use it: no disk,
//! no kernel, no firmware of the caller. The default network gives no boot file, so nothing boots
//! from it either.
//!
//! A guest can come from many options, such as `-bios`, `-pflash`, `-device loader`, `-boot n` or
//! `-option-rom`, and new ones appear. So a call is a probe only if each of its options is listed
//! here. A probe that is not recognised costs some milliseconds; a guest that is taken for a probe
//! would stay on slirp.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Argument, CommandLine, Parameters, Settings, takes_value};

/// The options that bring nothing to run: they choose the machine, its display and its monitors.
const HARMLESS: [&str; 23] = [
    "S",
    "accel",
    "chardev",
    "cpu",
    "display",
    "enable-kvm",
    "m",
    "machine",
    "mon",
    "monitor",
    "name",
    "no-user-config",
    "nodefconfig",
    "nographic",
    "parallel",
    "qmp",
    "qmp-pretty",
    "sandbox",
    "serial",
    "smp",
    "uuid",
    "vga",
    "vnc",
];

/// The keys of `-machine` that bring nothing to run, in contrast to `kernel`, `firmware` or `boot`.
const HARMLESS_MACHINE: [&str; 2] = ["accel", "type"];

/// Returns the argument that puts QMP on standard input and output, if the call is a probe.
pub(super) fn probe_call<'a>(line: &'a CommandLine, settings: &Settings) -> Option<&'a Argument> {
    let is_harmless = |argument: &Argument| {
        let name = argument.name.as_deref().filter(|name| HARMLESS.contains(name));
        // QEMU refuses an option without its value.
        name.is_some_and(|name| argument.value.is_some() || takes_value(name) == Some(false))
    };
    let machine = settings.merged("machine");
    let is_known = |key: &[u8]| HARMLESS_MACHINE.iter().any(|known| known.as_bytes() == key);
    let runs_nothing =
        line.arguments().iter().all(is_harmless) && machine.iter().all(|(key, _)| is_known(key));
    line.arguments()
        .iter()
        .find(|argument| runs_nothing && is_qmp_on_stdio(line, settings, argument))
}

/// Returns whether the argument puts QMP on standard input and output. A monitor for people is no
/// QMP.
fn is_qmp_on_stdio(line: &CommandLine, settings: &Settings, argument: &Argument) -> bool {
    let is_stdio_chardev = |id: &[u8]| {
        settings.find("chardev", id).is_some_and(|c| c.parameters.is("backend", "stdio"))
    };
    let is_stdio = |device: &OsStr| {
        let device = device.as_bytes();
        device == b"stdio"
            || device.starts_with(b"stdio,")
            || device.strip_prefix(b"chardev:").is_some_and(is_stdio_chardev)
    };
    let Some(value) = line.value(argument) else { return false };
    match argument.name.as_deref() {
        Some("qmp" | "qmp-pretty") => is_stdio(value),
        Some("mon") => {
            let monitor = Parameters::read(value.as_bytes(), Some("chardev"));
            monitor.is("mode", "control") && monitor.get("chardev").is_some_and(is_stdio_chardev)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn is_probe(line: &str) -> bool {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let line = CommandLine::parse(&words);
        probe_call(&line, &line.settings(&[])).is_some()
    }

    #[test]
    fn qmp_on_standard_input_without_anything_to_run_is_a_probe() {
        for line in [
            "-qmp stdio",
            "--qmp stdio",
            "-display none -machine accel=kvm:hvf:tcg -qmp stdio",
            "-machine virt,accel=kvm -cpu max -qmp stdio,id=q -S",
            "-chardev stdio,id=c -qmp chardev:c",
            "-chardev stdio,id=c -mon chardev=c,mode=control",
            "-chardev stdio,id=c -mon c,mode=control -m 64 -smp 2 -nographic -name x -vga none",
            "-qmp-pretty stdio -serial none -monitor none",
        ] {
            assert!(is_probe(line), "{line}");
        }
    }

    #[test]
    fn anything_that_a_guest_can_come_from_makes_a_call_no_probe() {
        for more in [
            "disk.img",
            "-kernel k",
            "-bios b",
            "-pflash f",
            "-drive if=pflash,file=f",
            "-device loader,file=k",
            "-device virtio-blk-pci,drive=d",
            "-device vfio-pci,host=01:00.0",
            "-boot n",
            "-boot order=n",
            "-option-rom r",
            "-L /firmware",
            "-fw_cfg name=opt/a,file=f",
            "-usbdevice disk:f",
            "-fda f",
            "-M pc,kernel=k",
            "-M q35,firmware=b",
            "-M q35,pflash0=p",
            "-M pc,boot.order=n",
            "-set device.a.bootindex=1",
            "-global isa-fdc.driveA=d",
            "-preconfig",
            "-nosuch",
        ] {
            assert!(!is_probe(&format!("-qmp stdio {more}")), "{more}");
        }
    }

    #[test]
    fn a_monitor_for_people_or_elsewhere_makes_no_probe() {
        for line in [
            "-S",
            "-monitor stdio",
            "-chardev stdio,id=c -mon chardev=c",
            "-chardev stdio,id=c -mon chardev=c,mode=readline",
            "-chardev null,id=c -mon chardev=c,mode=control",
            "-qmp unix:/stdio,server=on",
            "-qmp",
            "-qmp stdio -name",
        ] {
            assert!(!is_probe(line), "{line}");
        }
    }
}
