//! The VMMs (virtual machine monitors) other than QEMU, and their arguments for passt's socket.
//!
//! netlaunch starts QEMU only. In serve mode and in a printed plan it writes the arguments of
//! another VMM, which the caller starts:
//!
//! | VMM | connection | arguments |
//! |---|---|---|
//! | cloud-hypervisor | vhost-user | `--net vhost_user=true,socket=PATH,mac=MAC` |
//! | crosvm | vhost-user | `--vhost-user net,socket=PATH` |
//! | libkrun | UNIX socket | `--device virtio-net,type=unixstream,path=PATH,mac=MAC` |
//!
//! The form for crosvm is from its book (Vhost-user devices), `type=unixstream` from krunkit's pull
//! request that added it. The form for cloud-hypervisor and muvm's `--passt-socket` were not
//! compared with their documentation. libkrun is a library, and krunkit is its command. No test
//! runs these programs.
//!
//! All of them get their network from passt only, because slirp is a part of QEMU.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::request::{Backend, NicRequest, Request, Transport};
use super::request_error::RequestError;
use crate::types::Setting;

/// The program that runs the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Vmm {
    /// QEMU, which netlaunch starts unless it is in serve mode.
    #[default]
    Qemu,
    /// cloud-hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// A program that uses libkrun, such as krunkit or muvm.
    Libkrun,
}

impl Vmm {
    /// Returns the name that the command line and JSON use.
    pub fn name(self) -> &'static str {
        match self {
            Vmm::Qemu => "qemu",
            Vmm::CloudHypervisor => "cloud-hypervisor",
            Vmm::Crosvm => "crosvm",
            Vmm::Libkrun => "libkrun",
        }
    }

    /// Returns the only connection to passt that the VMM has; `None` if it has several.
    fn transport(self) -> Option<Transport> {
        match self {
            Vmm::Qemu => None,
            Vmm::CloudHypervisor | Vmm::Crosvm => Some(Transport::VhostUser),
            Vmm::Libkrun => Some(Transport::Unix),
        }
    }
}

impl Request {
    /// Checks that the VMM can have what is requested.
    pub(super) fn check_vmm(&self) -> Result<(), RequestError> {
        match self.vmm.transport() {
            None => Ok(()),
            Some(_) if self.command.is_some() => Err(RequestError::VmmCommand(self.vmm.name())),
            Some(needed) => self.added().iter().try_for_each(|nic| self.vmm.check(nic, needed)),
        }
    }

    /// Returns the NIC with the only backend and transport that the VMM, or the place of the
    /// socket, allows.
    pub(super) fn completed<'a>(&self, nic: &'a NicRequest) -> Cow<'a, NicRequest> {
        let transport = match self.socket {
            Some(_) => Some(Transport::Fd),
            None => nic.transport.or(self.vmm.transport()),
        };
        if self.vmm == Vmm::Qemu && self.socket.is_none() && self.listen.is_none() {
            return Cow::Borrowed(nic);
        }
        let backend = Some(Backend::Passt);
        Cow::Owned(NicRequest { backend, transport, ..nic.clone() })
    }
}

impl Vmm {
    /// Checks that a NIC can have the only transport of the VMM, `needed`.
    fn check(self, nic: &NicRequest, needed: Transport) -> Result<(), RequestError> {
        let vmm = self;
        if let Some(backend) = nic.backend.filter(|backend| *backend != Backend::Passt) {
            return Err(RequestError::VmmBackend { vmm: vmm.name(), backend: backend.name() });
        }
        match nic.transport.filter(|transport| *transport != needed) {
            Some(other) => {
                let (needed, other) = (needed.name(), other.name());
                Err(RequestError::VmmTransport { vmm: vmm.name(), needed, other })
            }
            None if nic.pcap.is_some() && needed != Transport::VhostUser => {
                Err(RequestError::VmmCapture(vmm.name()))
            }
            None => Ok(()),
        }
    }
}

/// Returns the VMM's arguments for passt's socket at `path`, and notes what the caller must add.
///
/// # Errors
/// The path has a comma. The check of the request finds one in a path of the caller, so that this
/// one is in the launch directory.
pub(super) fn args(
    draft: &Draft,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<Vec<OsString>, RequestError> {
    draft.context.request.vmm.check_path(path, Setting::StateDir)?;
    let mac = draft.mac();
    let value = |before: &str, after: &str| {
        let mut value = OsString::from(before);
        value.push(path);
        value.push(after);
        value
    };
    Ok(match draft.context.request.vmm {
        Vmm::Qemu => Vec::new(),
        Vmm::CloudHypervisor => {
            notes.push(
                "cloud-hypervisor needs shared guest memory: add shared=on to its --memory".into(),
            );
            vec!["--net".into(), value("vhost_user=true,socket=", &format!(",mac={mac}"))]
        }
        Vmm::Crosvm => {
            notes.push("crosvm chooses the guest's MAC address itself".into());
            vec!["--vhost-user".into(), value("net,socket=", "")]
        }
        Vmm::Libkrun => {
            notes.push(
                "these are krunkit's arguments; muvm takes the path with --passt-socket, and a program that calls libkrun gives it to krun_add_net_unixstream()".into(),
            );
            let after = format!(",mac={mac}");
            vec!["--device".into(), value("virtio-net,type=unixstream,path=", &after)]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::Command;
    use super::*;

    #[test]
    fn each_vmm_has_one_connection_and_is_started_by_the_caller() {
        let check = |vmm, backend, transport, started| {
            let command = Command { program: "qemu".into(), args: Vec::new() };
            let nic = NicRequest { backend, transport, ..NicRequest::default() };
            let command = Some(command).filter(|_| started);
            Request { vmm, nic, command, ..Request::default() }.check_vmm().is_ok()
        };
        for (vmm, backend, transport, started, good) in [
            (Vmm::Qemu, Some(Backend::Slirp), None, true, true),
            (Vmm::CloudHypervisor, None, None, false, true),
            (Vmm::CloudHypervisor, Some(Backend::Passt), Some(Transport::VhostUser), false, true),
            (Vmm::CloudHypervisor, None, Some(Transport::Unix), false, false),
            (Vmm::CloudHypervisor, Some(Backend::Slirp), None, false, false),
            (Vmm::Crosvm, None, None, true, false),
            (Vmm::Crosvm, Some(Backend::Bridge), None, false, false),
            (Vmm::Libkrun, None, Some(Transport::Unix), false, true),
            (Vmm::Libkrun, None, Some(Transport::VhostUser), false, false),
        ] {
            assert_eq!(check(vmm, backend, transport, started), good, "{vmm:?} {transport:?}");
        }
    }
}
