//! Finds the NICs of a command line whose network is slirp.
//!
//! They have QEMU's order: networks of `-netdev`, then those of `-nic`, then those of `-net`
//! (net_init_clients() in net/net.c), and in each group that of the words. QEMU's default card is
//! there only if no option speaks about the network, so it is always alone.

use std::os::unix::ffi::OsStrExt;

use super::super::plan::{Backend, NicRequest};
use super::super::qemu_options::{CommandLine, Parameters, Setting, Settings};
use super::card::{Card, attached_by_global, is_virtio};
use super::hub::{self, Hub};
use super::json_types::wrong_type;
use super::left::{Left, given};
use super::netdev_options::{adds_something, passt_differs, translate, unlisted, with_options};
use crate::types::facts::Facts;
use crate::types::{Device, Id};

/// The option that makes a user-mode network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `-netdev user`: another option attaches the card.
    Netdev,
    /// `-nic user`: the network and its card.
    Nic,
    /// `-net user`: a network on hub 0, which it shares with all other `-net` options.
    Net,
    /// No option at all: QEMU's default card and its network.
    Default,
}

/// A NIC of QEMU's arguments whose network is slirp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNic {
    /// The option that makes its network.
    pub form: Form,
    /// The option in the caller's spelling, for messages.
    pub written: String,
    /// `id=` of its network: the caller's, or a free one.
    pub id: Id,
    /// Its card; `None` if the arguments attach no card, several ones, or one that is not read.
    pub card: Option<Card>,
    /// The request for the same NIC on another backend, with the launch's options, or the reason
    /// why it stays on slirp.
    pub request: Result<NicRequest, Left>,
    /// The options of its network, with the keys that lists have in the comma form.
    pub(in crate::launcher) options: Parameters,
    /// Whether the launch's options ask for something that the caller's arguments do not have, such
    /// as a further published port. If not, the NIC can stay as it is when slirp is chosen.
    pub has_additions: bool,
    /// Whether its card pads short frames, or may do so, which this passt ignores.
    pub pads_frames: bool,
    /// Whether a hub of the caller's arguments is between its network and its card.
    pub behind_hub: bool,
    pub(super) place: Place,
}

/// The place of a NIC among the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The argument of its network.
    Argument(usize),
    /// `-net user`, and the `-net nic` that is the only other member of the hub.
    Pair { user: usize, nic: usize },
    /// After the last argument.
    End,
    /// In a file.
    File,
}

/// Returns the NICs whose network is slirp, in QEMU's order.
///
/// `options` are the single-NIC options of the launch. Backend, transport, DNS, search domains,
/// MTU, interface, IP version and the access to the host's loopback services apply to each NIC;
/// published ports, address, gateway, host name and capture file to the first one that can leave
/// slirp.
///
/// QEMU's default card is in the list if the machine makes one. A caller whose options ask for a
/// card of their own ignores it.
pub fn user_nics(
    line: &CommandLine,
    settings: &Settings,
    options: &NicRequest,
    facts: &Facts,
) -> Vec<UserNic> {
    let mut nics = Vec::new();
    let mut taken: Vec<Id> = Vec::new();
    let is_complete = options.id_named || settings.unreadable_files().is_empty();
    let rare = if is_complete { None } else { format!("{}0", settings.id_stem()).parse().ok() };
    let wish: Id = rare.unwrap_or_else(|| options.id.clone());
    for (form, setting) in written(settings) {
        let (id, request) = translated(form, setting, (line, settings), facts);
        let id = id.unwrap_or_else(|| free_id(settings, &taken, &wish));
        taken.push(id.clone());
        let hub = Hub::of(settings, setting);
        let card = match (&hub, form) {
            (Some(hub), _) => hub.card().cloned(),
            (None, Form::Nic) => Some(Card::read(&setting.parameters, "model", "mac")),
            (None, _) => Card::on(settings, id.as_str()),
        };
        let place = place(form, setting, settings);
        let several = hub.as_ref().filter(|hub| hub.card().is_none());
        let request = match several.filter(|_| request.is_ok() && may_use_passt(options, facts)) {
            Some(hub) => Err(Left::Hub(hub.written())),
            None => request,
        };
        let behind_hub = hub.is_some() && !matches!(place, Place::Pair { .. });
        nics.push(UserNic {
            form,
            written: setting.written.clone(),
            id,
            card,
            request,
            options: unlisted(&setting.parameters),
            has_additions: false,
            pads_frames: false,
            behind_hub,
            place,
        });
    }
    if has_default_card(line, facts) {
        nics.push(UserNic {
            form: Form::Default,
            written: "QEMU's default card".to_owned(),
            id: free_id(settings, &taken, &wish),
            card: Some(Card::default()),
            request: translate(&Parameters::default(), &[]),
            options: Parameters::default(),
            has_additions: false,
            pads_frames: false,
            behind_hub: false,
            place: Place::End,
        });
    }
    let machine = facts.qemu.machine.as_ref();
    let default_is_virtio =
        machine.and_then(|machine| machine.card_model.as_deref()).is_some_and(is_virtio);
    for card in nics.iter_mut().filter_map(|nic| nic.card.as_mut()) {
        card.default_is_virtio = default_is_virtio;
    }
    for nic in nics.iter_mut().filter(|_| options.backend != Some(Backend::Slirp)) {
        // A card that is not known may pad.
        nic.pads_frames = nic.card.as_ref().is_none_or(|card| !card.is_virtio())
            && !facts.passt.takes_padded_frames();
        let request = nic.request.as_ref().ok();
        let left = request.and_then(|request| passt_differs(request, &nic.options, facts));
        nic.request = left.map_or(nic.request.clone(), Err);
    }
    add_options(&mut nics, options);
    nics
}

/// Returns whether passt may serve a NIC: neither the launch nor the host excludes it.
fn may_use_passt(options: &NicRequest, facts: &Facts) -> bool {
    options.backend != Some(Backend::Slirp) && facts.passt.problem.is_none()
}

/// Returns `wish` if no network of the arguments and of `taken` has this id, or one like it.
pub fn free_id(settings: &Settings, taken: &[Id], wish: &Id) -> Id {
    let groups = ["netdev", "nic", "net", "device"];
    let is_free = |id: &Id| {
        let text = id.as_str().as_bytes();
        !taken.contains(id) && groups.iter().all(|group| settings.find(group, text).is_none())
    };
    let stem = wish.as_str().trim_end_matches(|c: char| c.is_ascii_digit());
    // A wish of 64 characters leaves no room for a number.
    let stem = if stem.len() > 54 { "net" } else { stem };
    let numbered = (0..=u32::MAX).filter_map(|n| format!("{stem}{n}").parse().ok());
    [wish.clone()].into_iter().chain(numbered).find(is_free).unwrap_or_else(|| wish.clone())
}

/// Returns the settings of user-mode networks.
fn written(settings: &Settings) -> impl Iterator<Item = (Form, &Setting)> {
    let groups = [("netdev", Form::Netdev), ("nic", Form::Nic), ("net", Form::Net)];
    let all = groups
        .into_iter()
        .flat_map(|(group, form)| settings.of_group(group).map(move |setting| (form, setting)));
    all.filter(|(form, setting)| match setting.parameters.get("type") {
        // -nic without a type is a user-mode network.
        None => *form == Form::Nic,
        Some(kind) => kind == b"user",
    })
}

/// Returns the id, if it is a valid one, and the translated request.
fn translated(
    form: Form,
    setting: &Setting,
    (line, settings): (&CommandLine, &Settings),
    facts: &Facts,
) -> (Option<Id>, Result<NicRequest, Left>) {
    let parameters = &setting.parameters;
    let text = parameters.get("id").map(String::from_utf8_lossy);
    let id = match text.as_deref().map(str::parse::<Id>).transpose() {
        Ok(id) => id,
        Err(error) => return (None, Err(Left::Id(error))),
    };
    let stays = |left| (id.clone(), Err(left));
    let refused = |what, option| Left::Refused { what, option };
    if let Some(option) = line.without_value() {
        return stays(Left::NoValue(option.display().to_string()));
    }
    if setting.argument.is_none() {
        return stays(Left::ConfigFile);
    }
    if setting.changed {
        return stays(Left::Set);
    }
    if form == Form::Netdev && id.is_none() {
        return stays(refused("a netdev without an id", setting.written.clone()));
    }
    let groups = ["netdev", "nic", "net"].into_iter().flat_map(|group| settings.of_group(group));
    let same = groups.filter(|other| other.parameters.get("id") == parameters.get("id"));
    if id.is_some() && same.count() > 1 {
        return stays(refused("two networks with one id", given(parameters, &["id"])));
    }
    if form != Form::Netdev && parameters.is_json() {
        return stays(refused("JSON here", setting.written.clone()));
    }
    let argument = setting.argument.and_then(|at| line.arguments().get(at));
    let value = argument.and_then(|argument| line.value(argument));
    if let Some(option) = value.and_then(|value| wrong_type(value.as_bytes())) {
        return stays(refused("a JSON value of another type", option));
    }
    // The card may be among the arguments of a script, or in a file that is not readable.
    let is_complete = facts.qemu.emulator.is_none() && settings.unreadable_files().is_empty();
    if form == Form::Netdev && is_complete && !is_attached(settings, parameters) {
        return stays(Left::NoCard);
    }
    if Hub::of(settings, setting).is_some_and(|hub| hub.is_empty()) {
        return stays(Left::NoCard);
    }
    if form == Form::Net {
        let users = hub::members(settings, 0).filter(|m| m.parameters.is("type", "user"));
        if users.count() > 1 {
            return stays(Left::SharedHub);
        }
        let named =
            settings.of_group("object").filter_map(|object| object.parameters.get("netdev"));
        let mut ports = named.filter(|id| id.starts_with(b"hub0port"));
        if let Some(port) = ports.next() {
            return stays(Left::HubPort(String::from_utf8_lossy(port).into_owned()));
        }
    }
    let others: &[&str] = match form {
        Form::Nic => &["type", "id", "model", "mac"],
        _ => &["type", "id"],
    };
    (id, translate(&unlisted(parameters), others))
}

/// Returns whether an option attaches something to the netdev with these parameters.
///
/// Without it QEMU warns that the netdev has no peer, and the guest has no card on it (measured
/// with QEMU 10.0). A card that a monitor adds later finds the network that the caller wrote.
fn is_attached(settings: &Settings, netdev: &Parameters) -> bool {
    let id = netdev.get("id");
    let refers = |setting: &Setting| setting.parameters.get("netdev") == id;
    let groups = ["device", "net", "netdev", "nic"];
    let by_global = id.is_some_and(|id| attached_by_global(settings, id).is_some());
    by_global || groups.iter().any(|group| settings.of_group(group).any(refers))
}

/// Returns the place of a network. A `-net user` with one `-net nic` is a pair.
fn place(form: Form, setting: &Setting, settings: &Settings) -> Place {
    let Some(user) = setting.argument else { return Place::File };
    let others = hub::others(settings, setting).filter(|_| form == Form::Net).unwrap_or_default();
    match others[..] {
        [nic] if nic.group == "net" && nic.parameters.is("type", "nic") => {
            let argument = nic.argument.filter(|_| !nic.changed);
            argument.map_or(Place::Argument(user), |nic| Place::Pair { user, nic })
        }
        _ => Place::Argument(user),
    }
}

/// Returns whether QEMU adds its default card: no option speaks about the network, and the machine
/// makes the card. A section of a file does not count (measured with QEMU 10.0).
///
/// A last option without its value would take the words of the card as its value, where QEMU now
/// refuses it.
fn has_default_card(line: &CommandLine, facts: &Facts) -> bool {
    let options = ["netdev", "nic", "net", "nodefaults"];
    facts.qemu.default_card == Some(true)
        && line.without_value().is_none()
        && options.iter().all(|option| line.spelling(option).is_none())
}

/// Adds the launch's options to each request.
fn add_options(nics: &mut [UserNic], options: &NicRequest) {
    let mut first = true;
    for nic in nics {
        let Ok(request) = &nic.request else { continue };
        let merged = with_options(request.clone(), &nic.options, options, first);
        nic.request = merged.map(|request| NicRequest {
            id: nic.id.clone(),
            mac: nic.card.as_ref().and_then(|card| card.mac),
            device: Device::None,
            device_named: true,
            ..request
        });
        nic.has_additions = adds_something(options, first);
        first = first && nic.request.is_err();
    }
}
