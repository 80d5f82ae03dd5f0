//! Plans one NIC of the guest: its addresses, its backend, and QEMU's arguments for it.

use super::candidate::Candidate;
use super::card;
use super::choice::{self, choose};
use super::dns;
use super::draft::{Draft, NicContext};
use super::error::PlanError;
use super::guest_addresses::guest_addresses;
use super::model::{BackendPlan, NicPlan, Origin};
use super::qemu_args::{NicArgs, nic_args};
use super::request::{Backend, NicRequest};
use super::{bridge, passt};
use crate::types::facts::Problem;

/// The notes and warnings of a plan.
#[derive(Default)]
pub(super) struct Remarks {
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// The plan of one NIC.
pub(super) struct PlannedNic {
    pub(super) plan: NicPlan,
    /// The MTU that a virtio card of the caller must tell the guest.
    pub(super) card_mtu: Option<u16>,
}

/// Makes the plan of a NIC that netlaunch adds.
///
/// # Errors
/// [`PlanError`] if no allowed backend can serve the NIC.
pub(super) fn nic_plan(
    nic: &NicRequest,
    context: &NicContext,
    remarks: &mut Remarks,
) -> Result<PlannedNic, PlanError> {
    let NicContext { request, facts, .. } = *context;
    let notes = &mut remarks.notes;
    let nic = &*card::fitting(nic, facts, notes);
    let addresses = guest_addresses(nic, facts, notes).map_err(PlanError::GuestAddresses)?;
    let (backend, fallback) = choose(request, nic, facts)?;
    let draft = Draft { context, nic, addresses };
    let backend_plan = match backend {
        Backend::Slirp => BackendPlan::Slirp,
        Backend::Passt => {
            let transport = passt::transport(&draft, notes)?;
            BackendPlan::Passt(transport, passt::passt_plan(&draft, transport)?)
        }
        Backend::Bridge => {
            let unusable = |problem| PlanError::Unusable(Candidate::new(backend, Err(problem)));
            BackendPlan::Bridge(bridge::bridge_plan(&draft).map_err(unusable)?)
        }
    };
    let NicArgs { args, fd, reconnects, card_mtu } = nic_args(&draft, &backend_plan, notes)?;
    remarks.warnings.extend(warnings(&draft, backend));
    let (transport, passt, bridge) = match backend_plan {
        BackendPlan::Slirp => (None, None, None),
        BackendPlan::Passt(transport, passt) => (Some(transport), Some(passt), None),
        BackendPlan::Bridge(bridge) => (None, None, Some(bridge)),
    };
    let plan = NicPlan {
        request: nic.clone(),
        origin: Origin::Added,
        backend,
        fallback,
        transport,
        addresses,
        dns: dns::announced(&draft, backend),
        mac: Some(draft.mac()),
        id: Some(nic.id.clone()),
        publish: nic.publish.clone(),
        args,
        fd,
        reconnects,
        passt,
        bridge,
    };
    Ok(PlannedNic { plan, card_mtu })
}

/// Returns the effects of this NIC that the user hardly expects.
fn warnings(draft: &Draft, backend: Backend) -> impl Iterator<Item = String> {
    let lease = choice::no_ipv4_address(draft.nic, draft.context.facts);
    let lease = lease.filter(|_| backend == Backend::Passt);
    let padded =
        choice::padded_frames(draft.nic, draft.context.facts).filter(|_| backend == Backend::Passt);
    let problems = lease.into_iter().chain(padded);
    let lines = problems.map(|Problem { why, fix, .. }| format!("{why}; {fix}"));
    lines.chain(dns::warning(draft, backend))
}
