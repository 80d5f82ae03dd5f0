//! Explains the end of QEMU, in addition to QEMU's own words.
//!
//! QEMU writes its messages to the caller's standard error, and netlaunch does not see them. Where
//! QEMU ends with status 1, its status for every mistake in its arguments, netlaunch asks it
//! whether the card that netlaunch added is the mistake.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::environment::Environment;
use crate::launcher::machine;
use crate::launcher::plan::{Origin, Plan, Request};
use crate::types::Device;
use crate::types::facts::Qemu;

/// QEMU's exit status for a mistake in its arguments.
const MISTAKE: i32 = 1;
/// By when QEMU has found each mistake in its arguments; measured with QEMU 7.2: 50 to 160 ms.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Says why QEMU has ended, where its own words do not say it. `signalled` is whether netlaunch
/// passed a signal on to QEMU.
pub(super) async fn explain(
    status: ExitStatus,
    signalled: bool,
    request: &Request,
    qemu: &Qemu,
    environment: &Environment,
) {
    if let Some(number) = status.signal() {
        if let Some(words) = killed(number).filter(|_| !signalled) {
            tracing::warn!("{words}");
        }
        return;
    }
    let (Some(MISTAKE), Device::Model(model)) = (status.code(), &request.nic.device) else {
        return;
    };
    let Some(machine) = machine(request) else { return };
    let fitting = qemu.machine.as_ref().and_then(|machine| machine.card());
    let model = fitting.filter(|_| !request.nic.device_named).unwrap_or(model);
    if let Some(words) = environment.prober().refuses_card(qemu, &machine, model).await {
        tracing::warn!("{}", refused(model, &words, fitting));
    }
}

/// Returns how the networks of QEMU's arguments were changed; empty if none was.
pub(super) fn moved(plan: &Plan) -> String {
    let moved = plan.nics.iter().filter_map(|nic| match &nic.origin {
        Origin::Adopted { written, change } => Some(format!("{written} became {change}")),
        _ => None,
    });
    moved.collect::<Vec<_>>().join(" and ")
}

/// Says how QEMU's arguments were changed, if QEMU has found a mistake in them after `lived`: its
/// own words name the changed arguments.
pub(super) fn explain_moved(status: ExitStatus, lived: Duration, moved: String) {
    if status.code() == Some(MISTAKE) && lived < AT_ONCE && !moved.is_empty() {
        tracing::warn!(
            "QEMU ended at once; in its arguments {moved}; --keep-nics leaves them as they are"
        );
    }
}

/// The line for a card that QEMU cannot make.
fn refused(model: &str, words: &str, fitting: Option<&str>) -> String {
    let instead = match fitting.filter(|card| *card != model) {
        Some(card) => format!("use --device {card}"),
        None => "use another --device, or --device none for no card".to_owned(),
    };
    let install = if words.contains("romfile") {
        ", or install the network boot ROMs (Debian: the package ipxe-qemu)"
    } else {
        ""
    };
    format!("QEMU cannot make the card {model} that netlaunch added ({words}): {instead}{install}")
}

/// The line for a QEMU that a signal has ended; `None` for signals that ask a program to end.
fn killed(number: i32) -> Option<String> {
    let signal = Signal::try_from(number).ok()?;
    let fix = match signal {
        Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => return None,
        Signal::SIGKILL => "another process did so, or the kernel for want of memory (see dmesg)",
        Signal::SIGSYS => "a system call was forbidden: see QEMU's -sandbox",
        Signal::SIGXFSZ => "a file reached the limit of ulimit -f",
        Signal::SIGXCPU => "QEMU reached the limit of ulimit -t",
        _ => "QEMU crashed",
    };
    Some(format!("QEMU was ended by {}: {fix}", signal.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_card_comes_with_the_option() {
        let words = "No 'PCI' bus found for device 'virtio-net-pci'";
        let line = refused("virtio-net-pci", words, Some("virtio-net-device"));
        assert!(line.contains(words) && line.ends_with("use --device virtio-net-device"), "{line}");
        let line = refused("e1000", "failed to find romfile \"efi-e1000.rom\"", None);
        assert!(line.contains("--device none") && line.contains("ipxe-qemu"), "{line}");
    }

    #[test]
    fn signals_that_ask_for_the_end_need_no_word() {
        assert_eq!([2, 15, 1, 3].map(killed), [const { None }; 4]);
        assert!(killed(9).is_some_and(|line| line.contains("SIGKILL")));
        assert!(killed(11).is_some_and(|line| line.contains("crashed")));
    }
}
