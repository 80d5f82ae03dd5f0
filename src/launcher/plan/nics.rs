//! Plans all NICs of a launch, one after the other, and QEMU's arguments for them.
//!
//! ```text
//! the user-mode networks of QEMU's arguments ─▶ adopted, or left as they are ─▶ edits of the words
//! the NICs of the request ───────────────────▶ added ─▶ words behind the caller's own
//! ```
//!
//! If the caller's arguments have a user-mode network, the settings of the single NIC apply to it,
//! and no further NIC is added for them. A NIC for which slirp is chosen stays as the caller wrote
//! it, unless the request asks for more than the caller's own words have.

use std::borrow::Cow;
use std::ffi::OsString;

use super::card_mtu::check_card_mtu;
use super::check::{check_forwards, check_subnets, conflicts, conflicts_with_left};
use super::choice::{ignores_padded_frames, vhost_user_needs_card, vhost_user_needs_virtio};
use super::draft::{LaunchIds, NicContext};
use super::error::PlanError;
use super::free_ids::with_free_ids;
use super::left::{check_left, left_plan};
use super::left_network::LeftNetwork;
use super::model::{NicPlan, NicPlans, Origin};
use super::nic::{PlannedNic, Remarks, nic_plan};
use super::request::{AddressChoice, Backend, NicRequest, Request, Transport};
use super::request_error::RequestError;
use super::subnets::with_own_subnet;
use crate::launcher::adopt::{
    Card, Change, Edit, Form, UserNic, apply, edits, sets_global_mtu, sets_mtu, user_nics, uses_hub,
};
use crate::launcher::qemu_options::{CommandLine, Settings};
use crate::types::facts::{Facts, Problem};
use crate::types::{Publish, Setting, error_text, shell_line};

/// The NICs of a launch with QEMU's arguments.
pub(super) struct PlannedNics {
    pub(super) nics: NicPlans,
    /// The words that netlaunch writes.
    pub(super) written: Vec<OsString>,
    /// All words: the caller's with the edits, then those of the added NICs.
    pub(super) words: Vec<OsString>,
}

/// Plans the NICs of `request`.
///
/// # Errors
/// [`PlanError`] if a NIC cannot be served, or if two NICs use the same port, id or address.
pub(super) fn plan_nics(
    request: &Request,
    facts: &Facts,
    launch_ids: &LaunchIds,
    remarks: &mut Remarks,
) -> Result<PlannedNics, PlanError> {
    let (line, settings) = (request.command_line(), request.settings());
    let user_nics = match &line {
        Some(line) => adoptable(request, line, &settings, facts),
        None => Vec::new(),
    };
    if let Some(first) = user_nics.first() {
        check_card(request, first)?;
    }
    let adopted: Vec<&NicRequest> =
        user_nics.iter().filter_map(|nic| nic.request.as_ref().ok()).collect();
    let added = if user_nics.is_empty() { request.added() } else { &request.nics };
    let added = with_free_ids(added, &settings, &user_nics);
    conflicts(&adopted, &added)?;
    check_against_left(request, &user_nics, &added)?;
    if let Some(line) = line.as_ref().filter(|_| user_nics.is_empty()) {
        // The networks that the launch does not look at keep their forwards.
        let kept =
            crate::launcher::adopt::user_nics(line, &settings, &NicRequest::default(), facts);
        let kept = kept.iter().flat_map(|nic| LeftNetwork::read(nic).publish);
        check_forwards(kept, &added)?;
    }

    let has_global_mtu = request.present.has_global_mtu;
    let nics = Vec::new();
    let mut planner =
        Planner { request, facts, launch_ids, settings: &settings, has_global_mtu, nics };
    let mut changes: Vec<(&UserNic, Change)> = Vec::new();
    // The index of the changed NIC among the planned ones, for each change.
    let mut changed = Vec::new();
    for user_nic in &user_nics {
        let (plan, change) = planner.adopt(user_nic, !adopted.is_empty(), remarks)?;
        if let Some(change) = change {
            changes.push((user_nic, change));
            changed.push(planner.nics.len());
        }
        planner.nics.push(plan);
    }
    let edits = line.as_ref().map(|line| edits(line, &settings, &changes)).unwrap_or_default();
    planner.has_global_mtu |= sets_global_mtu(&edits);
    for (user_nic, _) in &changes {
        check_mtu_is_set(&edits, user_nic)?;
    }
    for (index, place) in changed.into_iter().enumerate() {
        check_hub(&edits, index, planner.nics.get(place), &changes)?;
        let of_nic = edits.iter().filter(|edit| edit.nic == index);
        let words: Vec<OsString> = of_nic.flat_map(|edit| edit.words.clone()).collect();
        if let Some(plan) = planner.nics.get_mut(place) {
            record_change(plan, words);
        }
    }
    let mut written: Vec<OsString> = edits.iter().flat_map(|edit| edit.words.clone()).collect();
    let mut words = line.as_ref().map(|line| apply(line, &edits)).unwrap_or_default();
    // QEMU would take a new word for the value of its last option. Without it, QEMU names the
    // mistake and runs no guest.
    let takes_words = line.as_ref().is_none_or(|line| line.without_value().is_none());
    for nic in &added {
        let PlannedNic { mut plan, .. } = planner.plan(nic, remarks)?;
        plan.args.retain(|_| takes_words);
        written.extend_from_slice(&plan.args);
        words.extend_from_slice(&plan.args);
        planner.nics.push(plan);
    }
    let mut nics = planner.nics.into_iter();
    let first = nics.next().ok_or(RequestError::NoNic)?;
    Ok(PlannedNics { nics: NicPlans::new(first, nics), written, words })
}

/// Checks that vhost-user faces the card itself where the edits of the change `index` use a hub.
fn check_hub(
    edits: &[Edit],
    index: usize,
    plan: Option<&NicPlan>,
    changes: &[(&UserNic, Change)],
) -> Result<(), RequestError> {
    let is_vhost_user = plan.is_some_and(|plan| plan.transport == Some(Transport::VhostUser));
    match changes.get(index).filter(|_| is_vhost_user && uses_hub(edits, index)) {
        Some((user_nic, _)) => Err(RequestError::VhostUserHub(user_nic.written.clone())),
        None => Ok(()),
    }
}

/// Checks that the card of a NIC of the caller gets the requested MTU.
fn check_mtu_is_set(edits: &[Edit], user_nic: &UserNic) -> Result<(), RequestError> {
    let mtu = user_nic.request.as_ref().ok().and_then(|nic| nic.mtu);
    match mtu.filter(|mtu| !sets_mtu(edits, user_nic, *mtu)) {
        Some(mtu) => Err(RequestError::SharedMtu { mtu, written: user_nic.written.clone() }),
        None => Ok(()),
    }
}

/// Checks that the added NICs, and the settings for the networks of the caller's arguments, go with
/// those networks that stay on slirp.
fn check_against_left(
    request: &Request,
    user_nics: &[UserNic],
    added: &[NicRequest],
) -> Result<(), RequestError> {
    let adopted: Vec<&NicRequest> =
        user_nics.iter().filter_map(|nic| nic.request.as_ref().ok()).collect();
    let left = user_nics.iter().filter(|nic| nic.request.is_err());
    let left: Vec<LeftNetwork> = left.map(LeftNetwork::read).collect();
    let nic = &request.nic;
    // The first network that stays gets the ports that it does not have already.
    let first = left.first().filter(|_| adopted.is_empty());
    let is_new = |publish: &&Publish| first.is_some_and(|own| !own.publish.contains(publish));
    let to_left = nic.publish.iter().filter(is_new);
    let publish = adopted.iter().copied().chain(added).flat_map(|nic| &nic.publish);
    conflicts_with_left(&left, added, to_left.chain(publish).cloned())?;
    // The addresses of the caller's own words may be in one subnet, as QEMU accepts it.
    if nic.address == AddressChoice::Default || adopted.is_empty() {
        return Ok(());
    }
    let others = adopted.iter().skip(1).map(|nic| nic.address);
    let mut others = left.iter().map(|network| network.address).chain(others);
    others.try_for_each(|other| check_subnets(other, nic.address))
}

/// Returns the NICs of the caller's arguments that the launch may move.
///
/// A launch that keeps the caller's NICs or joins a bridge moves none. QEMU's default card is not
/// moved if the request has a card of its own, or if a script runs QEMU: the script's own arguments
/// are not known, and with `-nodefaults` among them there is no such card.
pub(super) fn adoptable(
    request: &Request,
    line: &CommandLine,
    settings: &Settings,
    facts: &Facts,
) -> Vec<UserNic> {
    let nic = &request.nic;
    if request.keep_nics || nic.attachment.is_some() {
        return Vec::new();
    }
    let has_card =
        nic.id_named || nic.mac.is_some() || nic.device_named || !request.nics.is_empty();
    let mut nics = user_nics(line, settings, nic, facts);
    let is_script = facts.qemu.emulator.is_some();
    nics.retain(|nic| nic.form != Form::Default || !(has_card || is_script));
    nics
}

/// Refuses the settings of a card for a NIC of the caller, which has its card already.
fn check_card(request: &Request, user_nic: &UserNic) -> Result<(), RequestError> {
    let nic = &request.nic;
    let settings = [
        (nic.id_named, Setting::Id),
        (nic.mac.is_some(), Setting::Mac),
        (nic.device_named, Setting::Device),
    ];
    match settings.into_iter().find(|(given, _)| *given) {
        Some((_, setting)) => {
            Err(RequestError::CardKept { setting, written: user_nic.written.clone() })
        }
        None => Ok(()),
    }
}

struct Planner<'a> {
    request: &'a Request,
    facts: &'a Facts,
    launch_ids: &'a LaunchIds,
    settings: &'a Settings,
    /// Whether netlaunch sets the MTU of each virtio card.
    has_global_mtu: bool,
    /// The NICs that are planned so far.
    nics: Vec<NicPlan>,
}

impl Planner<'_> {
    /// Plans a NIC after those that are planned already.
    fn plan(&self, nic: &NicRequest, remarks: &mut Remarks) -> Result<PlannedNic, PlanError> {
        self.plan_with(nic, &self.facts_of_next(), remarks)
    }

    /// Plans a NIC with these facts.
    fn plan_with(
        &self,
        nic: &NicRequest,
        facts: &Facts,
        remarks: &mut Remarks,
    ) -> Result<PlannedNic, PlanError> {
        let is_left = |nic: &&NicPlan| matches!(nic.origin, Origin::Left { .. });
        let context = NicContext {
            request: self.request,
            facts,
            launch_ids: self.launch_ids,
            place: self.nics.iter().filter(|nic| !is_left(nic)).count(),
            passts_before: self.nics.iter().filter(|nic| nic.passt.is_some()).count(),
            has_dhcpv6: self.request.present.has_dhcpv6
                || self.nics.iter().any(NicPlan::has_dhcpv6),
            memory_is_shared: self.nics.iter().any(NicPlan::shares_memory),
            has_global_mtu: self.has_global_mtu,
        };
        let nic = with_own_subnet(nic, self.request, self.facts, &self.nics)?;
        nic_plan(&self.request.completed(&nic), &context, remarks)
    }

    /// Plans a NIC of the caller's arguments. `is_taken` is whether one of these NICs takes the
    /// settings of the single NIC.
    fn adopt(
        &self,
        user_nic: &UserNic,
        is_taken: bool,
        remarks: &mut Remarks,
    ) -> Result<(NicPlan, Option<Change>), PlanError> {
        let nic = match &user_nic.request {
            Ok(nic) => nic,
            Err(left) => {
                let is_first = !is_taken && self.nics.is_empty();
                let added = check_left(self.request, user_nic, left, is_first)?;
                let plan = left_plan(user_nic, error_text(left), self.settings);
                return Ok((plan, (!added.is_empty()).then_some(Change::Append(added))));
            }
        };
        check_card_mtu(nic, user_nic, self.settings)?;
        let mut own = Remarks::default();
        let mut facts = self.facts_of_next();
        if user_nic.pads_frames && nic.backend.is_none() && facts.passt.problem.is_none() {
            // The launch falls back to slirp, as with any other reason against passt.
            let problem = ignores_padded_frames(&user_nic.written);
            facts.to_mut().passt.problem = Some(problem);
        }
        let is_virtio = user_nic.card.as_ref().is_none_or(Card::is_virtio);
        let is_vhost_user = nic.transport == Some(Transport::VhostUser);
        if is_vhost_user && user_nic.behind_hub && facts.passt.problem.is_none() {
            facts.to_mut().passt.problem = Some(vhost_user_needs_card(&user_nic.written));
        }
        if is_vhost_user && !is_virtio && facts.passt.problem.is_none() {
            let problem = vhost_user_needs_virtio(&format!("the card of {}", user_nic.written));
            facts.to_mut().passt.problem = Some(problem);
        }
        let PlannedNic { plan, card_mtu } = match self.plan_with(nic, &facts, &mut own) {
            Ok(planned) => planned,
            // The caller's own words need no socket.
            Err(error @ PlanError::SocketPath { .. }) if nic.backend.is_none() => {
                return Ok((left_plan(user_nic, error.to_string(), self.settings), None));
            }
            Err(error) => return Err(error),
        };
        if plan.backend == Backend::Slirp && !user_nic.has_additions {
            let left = left_plan(user_nic, String::new(), self.settings);
            let why = plan.fallback.clone();
            let why = why.unwrap_or_else(|| "slirp is the backend of this launch".to_owned());
            let origin = Origin::Left { written: user_nic.written.clone(), why };
            return Ok((NicPlan { origin, id: left.id, args: Vec::new(), ..plan }, None));
        }
        remarks.notes.append(&mut own.notes);
        remarks.warnings.append(&mut own.warnings);
        if plan.backend == Backend::Passt && user_nic.pads_frames {
            let Problem { why, fix, .. } = ignores_padded_frames(&user_nic.written);
            remarks.warnings.push(format!("{why}; {fix}"));
        }
        let change = Change::Replace { args: netdev_first(&plan.args), mtu: card_mtu };
        let origin = Origin::Adopted { written: user_nic.written.clone(), change: String::new() };
        Ok((NicPlan { origin, mac: nic.mac, ..plan }, Some(change)))
    }

    /// Returns the facts with the bridge of the next NIC on a bridge.
    fn facts_of_next(&self) -> Cow<'_, Facts> {
        match self.nics.iter().filter(|nic| nic.bridge.is_some()).count() {
            0 => Cow::Borrowed(self.facts),
            before => {
                let target = self.facts.further_targets.get(before - 1).cloned();
                Cow::Owned(Facts { target, ..self.facts.clone() })
            }
        }
    }
}

/// Returns the arguments with those of the netdev first, whose place the caller's own option has.
/// QEMU does not care about the order of a netdev and its chardev.
fn netdev_first(args: &[OsString]) -> Vec<OsString> {
    let at = args.iter().position(|word| word == "-netdev").unwrap_or_default();
    let (before, rest) = args.split_at(at);
    let (netdev, after) = rest.split_at(rest.len().min(2));
    [netdev, before, after].concat()
}

/// Records the words that replace those of a NIC of the caller.
fn record_change(plan: &mut NicPlan, words: Vec<OsString>) {
    if let Origin::Adopted { change, .. } = &mut plan.origin {
        *change = shell_line(&words);
    }
    plan.args = words;
}
