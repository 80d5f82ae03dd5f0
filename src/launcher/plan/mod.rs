//! Makes a plan: every command line of a launch, from the request and the facts about the host.
//!
//! ```text
//! Request ─ check ─┐
//! Facts ───────────┼─ each NIC: candidates ─ choose ─▶ NicPlan ─▶ Plan ─▶ print, or start
//! LaunchIds ───────┘
//! ```
//!
//! [`plan`] checks the request and plans one NIC after the other. `nic` chooses the guest's
//! addresses and the backend of a NIC, and makes a draft. From the draft come passt's or the
//! bridge's part, then QEMU's arguments. Each child imports the modules that it needs, never this
//! one.
//!
//! The module is pure: it starts no program and reads no file. The result depends on the three
//! arguments only; values that differ between two equal launches (the directory's name, the random
//! MAC address, passt's user) come in as [`LaunchIds`].

mod bridge;
mod candidate;
mod card;
mod card_mtu;
mod check;
mod choice;
mod dns;
mod draft;
mod error;
mod error_settings;
mod free_ids;
mod free_ports;
mod guest_addresses;
mod left;
mod left_network;
mod memory;
mod model;
mod nic;
mod nic_text;
mod nics;
mod own_options;
mod passt;
mod passt_args;
mod passt_options;
mod port_options;
mod present;
mod print;
mod qemu_args;
mod qmp;
mod queues;
mod request;
mod request_error;
mod slirp_args;
mod socket;
mod subnets;
mod vmm;

use std::borrow::Cow;

use crate::types::facts::{Facts, Qemu};

pub use bridge::{BridgePlan, TapOwner};
pub use candidate::Candidate;
pub use choice::candidates;
pub use dns::DnsPlan;
pub use draft::{FURTHER_FDS, LaunchIds, MAX_SOCKET_PATH};
pub use error::PlanError;
pub use memory::MemoryError;
pub use model::{NicPlan, NicPlans, Origin, Plan, QemuPlan};
pub use nic_text::NicTextError;
#[cfg(feature = "cli")]
pub(in crate::launcher) use nic_text::parts;
pub use passt::PasstPlan;
pub use present::PresentNics;
pub use print::{PLAN_VERSION, json};
pub use qmp::QmpPlan;
pub use request::{
    AddressChoice, Attachment, Backend, Command, Family, GuestFilter, MAX_MTU, NicRequest, Request,
    Transport,
};
pub use request_error::RequestError;
pub use socket::CallerSocket;
pub use vmm::Vmm;

use free_ports::with_free_ports;
use nic::Remarks;
use nics::{PlannedNics, plan_nics};

/// Makes the plan for `request` on the host that `facts` describe.
///
/// # Errors
/// [`PlanError`]: the request contradicts itself, QEMU cannot be run, or no allowed backend can
/// serve. The last one holds the reason and the fix of each candidate.
pub fn plan(request: &Request, facts: &Facts, launch_ids: &LaunchIds) -> Result<Plan, PlanError> {
    let (request, free_ports) = with_free_ports(request, &launch_ids.free_ports)?;
    let request = &*request;
    request.check()?;
    check_host(request, facts)?;
    let mut remarks = Remarks::default();
    let facts = &*with_qemu(request, facts, &mut remarks.notes);
    remarks.warnings.extend(own_options::warning(request));
    let PlannedNics { nics, written, words } = plan_nics(request, facts, launch_ids, &mut remarks)?;
    let command = request.command.as_ref();
    // A program that only starts QEMU, such as sudo, may close the descriptors.
    let is_qemu = command.is_some() && facts.qemu.emulator.is_none();
    let takes_words = request.command_line().is_some_and(|line| line.without_value().is_none());
    let qmp = (is_qemu && takes_words)
        .then(|| QmpPlan::new(&launch_ids.dir, &launch_ids.qemu_fds, &nics));
    let qmp = qmp.flatten();
    let qemu = QemuPlan {
        program: command.and(facts.qemu.path.clone()),
        name: command.map(|command| command.program.clone()),
        args: written,
        all_args: words,
        qmp,
    };
    let Remarks { notes, warnings } = remarks;
    Ok(Plan {
        nics,
        qemu,
        user: request.user.clone(),
        stop_timeout: request.stop_timeout,
        name: request.name.as_ref().map(|name| name.to_string()),
        vmm: request.vmm,
        listen: request.listen.clone(),
        dir: launch_ids.dir.clone(),
        free_ports,
        notes: unique(notes),
        warnings: unique(warnings),
    })
}

/// Removes the repetitions of remarks that hold for several NICs.
fn unique(remarks: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    remarks.into_iter().filter(|remark| seen.insert(remark.clone())).collect()
}

/// Checks that QEMU can be run, and as the requested user.
fn check_host(request: &Request, facts: &Facts) -> Result<(), PlanError> {
    if let (Some(problem), Some(_)) = (&facts.qemu.problem, &request.command) {
        let problem = problem.clone();
        return Err(match facts.qemu.path {
            None => PlanError::QemuMissing(problem),
            Some(_) => PlanError::QemuUnusable(problem),
        });
    }
    match &request.user {
        Some(user) if !facts.host.root => Err(PlanError::UserNotRoot(user.clone())),
        _ => Ok(()),
    }
}

/// Returns the facts, with an assumed QEMU in serve mode on a host without QEMU, such as a
/// container beside QEMU's own.
fn with_qemu<'a>(request: &Request, facts: &'a Facts, notes: &mut Vec<String>) -> Cow<'a, Facts> {
    let found = request.command.is_some() || facts.qemu.path.is_some();
    match request.vmm {
        Vmm::Qemu if found => return Cow::Borrowed(facts),
        Vmm::Qemu => notes.push(
            "no QEMU was found on this host, so the arguments are those of QEMU 7.2 and later"
                .to_owned(),
        ),
        // QEMU's features do not matter.
        _ => {}
    }
    let netdevs = ["bridge", "stream", "tap", "user", "vhost-user"].map(str::to_owned).into();
    Cow::Owned(Facts { qemu: Qemu { netdevs, ..Qemu::default() }, ..facts.clone() })
}
