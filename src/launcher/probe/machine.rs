//! Asks QEMU about a machine type: the types of its buses, and its memory without `-m`.
//!
//! QEMU makes the machine in the stopped state, without the caller's devices and disks, and answers
//! through its control protocol. This takes 50 ms. So the answer is cached, and QEMU is not asked
//! about a machine type that is known to have PCI.
//!
//! If QEMU does not answer, the machine is assumed to have PCI, and a launch can fail at the card.
//! [`refuses_card`] then explains that failure.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::qmp::{LIMIT, execute, returns, stopped};
use crate::launcher::qemu_options::{Settings, boolean};
use crate::sys::process::{Captured, capture};
use crate::types::facts::Machine;

/// The commands for QEMU's control protocol.
const COMMANDS: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n\
    {\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info qtree\"}}\n\
    {\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info network\"}}\n\
    {\"execute\":\"query-memory-size-summary\"}\n{\"execute\":\"quit\"}\n";

/// The options that make the machine of a command line, without the rest of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MachineName {
    /// The value of `-machine`; `None` is the emulator's default machine.
    value: Option<String>,
    /// The directories of `-L`.
    data: Vec<OsString>,
}

impl MachineName {
    /// Takes the machine's options from a command line. `data` are the directories of `-L`.
    pub(crate) fn of(settings: &Settings, data: Vec<OsString>) -> Self {
        let merged = settings.merged("machine");
        let plain = |name: &String| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        let name = settings.machine_type().filter(plain);
        // microvm has PCI if one of these switches requests it.
        let switches = ["pcie", "usb"].into_iter().filter_map(|switch| {
            let on = boolean(merged.get(switch)?)?;
            Some(format!(",{switch}={}", if on { "on" } else { "off" }))
        });
        let value = name.map(|name| name + &switches.collect::<String>());
        MachineName { value, data }
    }

    /// Returns the arguments that make the machine.
    pub(super) fn args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        if let Some(value) = &self.value {
            args.extend(["-machine".into(), value.into()]);
        }
        for dir in &self.data {
            args.extend(["-L".into(), dir.clone()]);
        }
        args
    }

    /// Returns the name under which the answer is cached; `None` if there is no need to ask.
    ///
    /// The machines of a PC emulator are known to have PCI, and `none` is known to have no bus.
    pub(super) fn cache_name(&self, emulator: &Path) -> Option<String> {
        let name = emulator.file_name().map(|name| name.as_bytes()).unwrap_or_default();
        let known = match &self.value {
            None => [&b"x86_64"[..], b"i386", b"amd64", b"kvm"].iter().any(|e| name.ends_with(e)),
            Some(value) => {
                let machine = value.split(',').next().unwrap_or_default();
                matches!(machine, "pc" | "q35" | "none")
                    || ["pc-i440fx-", "pc-q35-"].iter().any(|family| machine.starts_with(family))
            }
        };
        let value = self.value.as_deref().unwrap_or("default");
        let dirs: String = self.data.iter().map(|dir| format!(" {}", dir.display())).collect();
        (!known).then(|| format!("qemu-machine-model {value}{dirs}"))
    }

    /// Returns whether a machine that need not be asked has a card by default: each one has, except
    /// `none`.
    pub(super) fn known_card(&self) -> bool {
        self.value.as_deref().and_then(|value| value.split(',').next()) != Some("none")
    }
}

/// Asks the emulator at `path` about the machine; `None` if it does not make the machine.
///
/// The card of `-net nic` has the same model as that of a QEMU without network options.
pub(super) async fn ask(path: &Path, machine: &MachineName) -> Option<Machine> {
    let args = [&machine.args()[..], &["-net", "nic"].map(OsString::from)].concat();
    match execute(path, &args, COMMANDS).await {
        Ok(output) => read(&output),
        Err(error) => {
            let qemu = path.display();
            tracing::debug!(%qemu, %error, "no answer about the machine, which is assumed to have PCI");
            None
        }
    }
}

/// Returns the reason why QEMU cannot make the card `model` on a machine, which is QEMU's own last
/// line; `None` if it can make the card.
pub(super) async fn refuses_card(
    path: &Path,
    machine: &MachineName,
    model: &str,
) -> Option<String> {
    let device = ["-device", model].map(OsString::from);
    let args = [&machine.args()[..], &device, &stopped()].concat();
    let quit = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
    let Captured { stderr, status, .. } = capture(path, &args, quit, LIMIT).await.ok()?;
    if status?.success() {
        return None;
    }
    let words = String::from_utf8_lossy(&stderr);
    let line = words.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    // QEMU writes its own name and the option before the reason.
    let mut line = line.split_once(": ").map_or(line, |(_, words)| words);
    if let Some((_, words)) = line.split_once(": ").filter(|_| line.starts_with("-device ")) {
        line = words;
    }
    Some(super::first_line(line)?.to_owned())
}

/// Reads the machine from the output of the control protocol.
pub(super) fn read(output: &[u8]) -> Option<Machine> {
    let values: Vec<serde_json::Value> =
        returns(output).filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let mut texts = values.iter().filter_map(|value| value.as_str());
    let tree = texts.next()?;
    let card = texts.next().and_then(|networks| Some(networks.split_once("type=nic")?.1));
    let model = card.and_then(|card| card.lines().next()?.split_once(",model="));
    let card_model = model.and_then(|(_, text)| Some(text.split(',').next()?.to_owned()));
    let buses: BTreeSet<String> = tree
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("type ")?.trim().to_owned()))
        .collect();
    let memory = values.iter().find_map(|value| value.get("base-memory")?.as_u64());
    let machine = Machine { buses, memory, makes_card: card.is_some(), card_model };
    (!machine.buses.is_empty()).then_some(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::qemu_options::CommandLine;

    fn name(line: &str) -> MachineName {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        MachineName::of(&CommandLine::parse(&words).settings(&[]), Vec::new())
    }

    #[test]
    fn qemu_is_not_asked_about_a_machine_that_is_known_to_have_pci() {
        for (emulator, line, expected) in [
            ("qemu-system-x86_64", "", None),
            ("kvm", "-m 1", None),
            ("qemu-system-x86_64", "-M q35,accel=kvm", None),
            ("qemu-system-x86_64", "-machine pc-q35-9.2", None),
            ("qemu-system-x86_64", "-M none", None),
            (
                "qemu-system-x86_64",
                "-M microvm,accel=kvm,x-y=z",
                Some("qemu-machine-model microvm"),
            ),
            (
                "qemu-system-x86_64",
                "-M microvm,pcie=yes",
                Some("qemu-machine-model microvm,pcie=on"),
            ),
            ("qemu-system-x86_64", "-M isapc", Some("qemu-machine-model isapc")),
            ("qemu-system-arm", "", Some("qemu-machine-model default")),
            ("qemu-system-s390x", "-append -M", Some("qemu-machine-model default")),
        ] {
            let got = name(line).cache_name(Path::new("/usr/bin").join(emulator).as_path());
            assert_eq!(got.as_deref(), expected, "{emulator} {line}");
        }
    }

    #[test]
    fn the_buses_and_the_memory_are_read_from_the_output() {
        let output = "{\"QMP\": {}}\r\n{\"return\": {}}\r\n\
            {\"return\": \"bus: main-system-bus\\r\\n  type System\\r\\n    type virtio-mmio-bus\\r\\n\"}\r\n\
            {\"return\": \"hub 0\\r\\n \\\\ hub0port0: e1000.0: index=0,type=nic,model=e1000\\r\\n\"}\r\n\
            {\"return\": {\"base-memory\": 134217728, \"plugged-memory\": 0}}\r\n";
        let machine = read(output.as_bytes()).unwrap();
        assert_eq!((machine.card(), machine.memory), (Some("virtio-net-device"), Some(128 << 20)));
        assert_eq!((machine.makes_card, machine.card_model.as_deref()), (true, Some("e1000")));
        assert_eq!(read(b"{\"return\": {}}\n"), None);
    }
}
