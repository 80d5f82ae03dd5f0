//! Replaces the networks of QEMU's arguments.
//!
//! | form | new words |
//! |---|---|
//! | `-netdev user` | the netdev |
//! | `-nic user`, no other `-nic` that stays after it | the netdev and `-net nic,netdev=ID` |
//! | `-nic user`, otherwise | the netdev and `-nic hubport`, joined by a hub |
//! | `-net user` with one `-net nic` | the netdev, and `netdev=ID` on that `-net nic` |
//! | `-net user`, otherwise | the netdev, joined to hub 0 |
//! | QEMU's default card | the netdev and `-net nic,netdev=ID` after the last word |
//!
//! QEMU makes the cards of `-nic` first and then those of `-net`, and gives out slots and MAC
//! addresses in this order. So a card may move from `-nic` to `-net` only if no card passes another
//! one. QEMU has no `-nic stream`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::super::qemu_options::{Argument, CommandLine, Parameters, Settings, path_value};
use super::card::Card;
use super::hub;
use super::netdev_options::unlisted;
use super::user_nic::{Form, Place, UserNic, free_id};
use crate::types::Id;

/// A change of one NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The NIC gets another network.
    Replace {
        /// The arguments that make the network: `-netdev`, its value with `id=` of the NIC, and
        /// further ones.
        args: Vec<OsString>,
        /// The MTU that a virtio card tells the guest.
        mtu: Option<u16>,
    },
    /// The NIC stays on slirp and gets these parameters in addition, such as
    /// `hostfwd=tcp::2222-:22`.
    Append(Vec<String>),
}

/// The new words for one argument of QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The index of the NIC among the changes.
    pub nic: usize,
    /// The index of the argument; `None` adds the words after the last argument.
    pub argument: Option<usize>,
    /// The new words.
    pub words: Vec<OsString>,
}

/// Returns the edits for the changes of these NICs. No two edits are for one argument.
pub fn edits(line: &CommandLine, settings: &Settings, changes: &[(&UserNic, Change)]) -> Vec<Edit> {
    let ids = changes.iter().map(|(nic, _)| nic.id.clone()).collect();
    let hubs = hub::numbers(settings);
    let mut editor = Editor { line, settings, changes, edits: Vec::new(), ids, hubs };
    for (index, (nic, change)) in changes.iter().enumerate() {
        match change {
            Change::Replace { args, mtu } => {
                editor.replace(index, nic, args);
                if let Some(mtu) = mtu {
                    editor.set_mtu(index, nic, *mtu);
                }
            }
            Change::Append(parameters) => editor.append(index, nic, parameters),
        }
    }
    editor.edits
}

/// Returns whether the edits set the MTU of the virtio card of `user_nic`, if they can. A card that
/// takes no MTU needs none.
///
/// A card of `-nic` and `-net nic` can get it through `-global` only, and not beside another virtio
/// card with another MTU.
pub fn sets_mtu(edits: &[Edit], user_nic: &UserNic, mtu: u16) -> bool {
    let card = user_nic.card.as_ref().filter(|card| card.takes_mtu());
    let needs_global = card.is_some_and(|card| card.device.is_none());
    !needs_global || edits.iter().any(|edit| edit.words == global_mtu(mtu))
}

/// Returns whether the edits of the NIC with this index put its card on a hub.
pub fn uses_hub(edits: &[Edit], nic: usize) -> bool {
    let words = edits.iter().filter(|edit| edit.nic == nic).flat_map(|edit| &edit.words);
    words.into_iter().any(|word| word.as_bytes().starts_with(b"hubport,"))
}

/// Returns whether the edits set the MTU of each virtio card, also of the cards that come later.
pub fn sets_global_mtu(edits: &[Edit]) -> bool {
    edits.iter().any(|edit| edit.words.iter().any(|word| is_global_mtu(&word.to_string_lossy())))
}

/// Returns whether the text of an edit, or of several ones, sets the MTU of each virtio card.
pub fn is_global_mtu(text: &str) -> bool {
    text.contains(GLOBAL_MTU)
}

/// The property that is the MTU of each virtio card; `virtio-net-device` is a part of each.
const GLOBAL_MTU: &str = "virtio-net-device.host_mtu=";

/// Returns the words that set the MTU of each virtio card.
fn global_mtu(mtu: u16) -> Vec<OsString> {
    words(["-global", &format!("{GLOBAL_MTU}{mtu}")])
}

/// Returns the words of the line with the edits.
pub fn apply(line: &CommandLine, edits: &[Edit]) -> Vec<OsString> {
    let mut words = Vec::new();
    for (index, argument) in line.arguments().iter().enumerate() {
        match edits.iter().find(|edit| edit.argument == Some(index)) {
            Some(edit) => words.extend_from_slice(&edit.words),
            None => words.extend_from_slice(line.words_of(argument)),
        }
    }
    for edit in edits.iter().filter(|edit| edit.argument.is_none()) {
        words.extend_from_slice(&edit.words);
    }
    words
}

struct Editor<'a> {
    line: &'a CommandLine,
    settings: &'a Settings,
    changes: &'a [(&'a UserNic, Change)],
    edits: Vec<Edit>,
    /// The ids of the changed NICs and of the hubs' ports.
    ids: Vec<Id>,
    /// The numbers of the hubs.
    hubs: BTreeSet<u32>,
}

impl Editor<'_> {
    /// Gives a NIC the network that `args` make.
    fn replace(&mut self, nic: usize, user_nic: &UserNic, args: &[OsString]) {
        let id = &user_nic.id;
        match (user_nic.form, user_nic.place) {
            (_, Place::File) => {}
            (_, Place::End) => {
                let words = [args, &words(["-net", &format!("nic,netdev={id}")])].concat();
                self.edits.push(Edit { nic, argument: None, words });
            }
            (_, Place::Pair { user, nic: card }) => {
                let words = self.spelled(user, args);
                self.edits.push(Edit { nic, argument: Some(user), words });
                self.add_to(nic, card, &format!("netdev={id}"));
            }
            (Form::Nic, Place::Argument(argument)) => {
                let parameters = self.parameters(argument);
                let board = if self.is_last(argument) {
                    let value = format!("nic,netdev={id}").into();
                    let value = with_card(value, &parameters, "macaddr");
                    vec!["-net".into(), value]
                } else {
                    self.on_hub(id, &parameters)
                };
                let words = [args, &board].concat();
                self.edits.push(Edit { nic, argument: Some(argument), words });
            }
            (Form::Net, Place::Argument(argument)) => {
                let port = self.port(id);
                let port = format!("hubport,id={port},hubid=0,netdev={id}");
                let words =
                    [&self.spelled(argument, args)[..], &words(["-netdev", &port])].concat();
                self.edits.push(Edit { nic, argument: Some(argument), words });
            }
            (_, Place::Argument(argument)) => {
                let words = self.spelled(argument, args);
                self.edits.push(Edit { nic, argument: Some(argument), words });
            }
        }
    }

    /// Returns the words of a card of `-nic` on a hub of its own.
    fn on_hub(&mut self, id: &Id, parameters: &Parameters) -> Vec<OsString> {
        // The -net options join hub 0.
        let number = (1..=u32::MAX).find(|number| !self.hubs.contains(number)).unwrap_or(1);
        self.hubs.insert(number);
        let port = self.port(id);
        let port = format!("hubport,id={port},hubid={number},netdev={id}");
        let board = with_card(format!("hubport,hubid={number}").into(), parameters, "mac");
        vec!["-netdev".into(), port.into(), "-nic".into(), board]
    }

    /// Returns a free id for the port of a hub.
    fn port(&mut self, id: &Id) -> Id {
        let wish = format!("{id}-hub").parse().unwrap_or_default();
        let port = free_id(self.settings, &self.ids, &wish);
        self.ids.push(port.clone());
        port
    }

    /// Returns whether the card of a `-nic` may become one of `-net`: no card of another `-nic`
    /// that stays follows, and no card of `-net` precedes.
    fn is_last(&self, argument: usize) -> bool {
        let moves = |other: Option<usize>| {
            self.changes.iter().any(|(nic, change)| {
                let replaced = matches!(change, Change::Replace { .. });
                replaced && other.is_some_and(|at| nic.place == Place::Argument(at))
            })
        };
        let mut seen = false;
        let mut stays_after = false;
        for setting in self.settings.of_group("nic") {
            let is_card = !setting.parameters.is("type", "none");
            stays_after |= seen && is_card && !moves(setting.argument);
            seen |= setting.argument == Some(argument);
        }
        let boards = self.settings.of_group("net").filter(|s| s.parameters.is("type", "nic"));
        let before = boards.map(|setting| setting.argument).any(|at| at < Some(argument));
        !stays_after && !before
    }

    /// Sets `host_mtu` on a virtio card, if the caller does not set it.
    ///
    /// A `-device` gets the property. Another card can get it through `-global` only, which applies
    /// to all virtio cards, so it is used if each of them gets this MTU or has its own. A file that
    /// is not readable may have further cards.
    fn set_mtu(&mut self, nic: usize, user_nic: &UserNic, mtu: u16) {
        let Some(card) = user_nic.card.as_ref().filter(|card| card.takes_mtu()) else { return };
        if let Some(device) = card.device {
            return self.set_device_mtu(nic, device, mtu);
        }
        let global = global_mtu(mtu);
        let is_there = self.edits.iter().any(|edit| edit.words == global);
        let with_mtu = self.changes.iter().filter(|(nic, change)| {
            let same = matches!(change, Change::Replace { mtu: Some(other), .. } if *other == mtu);
            same && nic.card.as_ref().is_some_and(Card::takes_mtu)
        });
        let is_complete = self.settings.unreadable_files().is_empty();
        if is_complete
            && !is_there
            && self.cards_without_mtu(card.default_is_virtio) == with_mtu.count()
        {
            self.edits.push(Edit { nic, argument: None, words: global });
        }
    }

    /// Adds `host_mtu` to a `-device`, which may be JSON.
    fn set_device_mtu(&mut self, nic: usize, device: usize, mtu: u16) {
        let Some(found) = self.line.arguments().get(device) else { return };
        let Some(value) = self.line.value(found) else { return };
        let json = value.as_bytes().trim_ascii_end().strip_suffix(b"}");
        let value = match json.filter(|json| json.starts_with(b"{")) {
            Some(json) => {
                let member = format!(",\"host_mtu\":{mtu}}}");
                OsString::from_vec([json.trim_ascii_end(), member.as_bytes()].concat())
            }
            None => extended(value.to_owned(), &format!("host_mtu={mtu}")),
        };
        let words = vec![self.option(found), value];
        self.edits.push(Edit { nic, argument: Some(device), words });
    }

    /// Returns the number of virtio cards for which the caller sets no MTU.
    fn cards_without_mtu(&self, default_is_virtio: bool) -> usize {
        let of = |group, model, default_is_virtio| {
            self.settings.of_group(group).filter_map(move |setting| {
                let parameters = &setting.parameters;
                let is_card = match group {
                    "nic" => !parameters.is("type", "none"),
                    "net" => parameters.is("type", "nic"),
                    _ => true,
                };
                let card = Card::read(parameters, model, "mac");
                is_card.then_some(Card { default_is_virtio, ..card })
            })
        };
        let written = of("device", "driver", false)
            .chain(of("nic", "model", default_is_virtio))
            .chain(of("net", "model", default_is_virtio));
        let is_default = self.changes.iter().any(|(nic, _)| nic.place == Place::End);
        written.filter(Card::takes_mtu).count() + usize::from(is_default && default_is_virtio)
    }

    /// Adds parameters to the user-mode network of a NIC.
    fn append(&mut self, nic: usize, user_nic: &UserNic, parameters: &[String]) {
        let added = parameters.join(",");
        match user_nic.place {
            Place::File => {}
            Place::End => {
                let user = format!("user,{added}");
                let words = words(["-net", "nic", "-net", &user]);
                self.edits.push(Edit { nic, argument: None, words });
            }
            Place::Argument(argument) | Place::Pair { user: argument, .. } => {
                self.add_to(nic, argument, &added);
            }
        }
    }

    /// Adds parameters to the value of an argument.
    fn add_to(&mut self, nic: usize, argument: usize, added: &str) {
        let Some(found) = self.line.arguments().get(argument) else { return };
        let Some(value) = self.line.value(found) else { return };
        let value = match value.as_bytes().first() {
            Some(b'{') => keyval(&self.parameters(argument)),
            _ => value.to_owned(),
        };
        let words = vec![self.option(found), extended(value, added)];
        self.edits.push(Edit { nic, argument: Some(argument), words });
    }

    /// Returns `args` with the caller's spelling of their first option.
    fn spelled(&self, argument: usize, args: &[OsString]) -> Vec<OsString> {
        let mut words = args.to_vec();
        let found = self.line.arguments().get(argument);
        let is_netdev = |a: &&Argument| a.name.as_deref() == Some("netdev");
        if let (Some(argument), Some(first)) = (found.filter(is_netdev), words.first_mut()) {
            *first = self.option(argument);
        }
        words
    }

    fn option(&self, argument: &Argument) -> OsString {
        self.line.words().get(argument.at).cloned().unwrap_or_default()
    }

    fn parameters(&self, argument: usize) -> Parameters {
        let groups = ["netdev", "nic", "net", "device"].into_iter();
        let mut all = groups.flat_map(|group| self.settings.of_group(group));
        let found = all.find(|setting| setting.argument == Some(argument));
        found.map(|setting| unlisted(&setting.parameters)).unwrap_or_default()
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

/// Adds a card's model and MAC address to a value. `mac` is the key of the address.
fn with_card(value: OsString, parameters: &Parameters, mac: &str) -> OsString {
    let mut value = value;
    for (from, to) in [("model", "model"), ("mac", mac)] {
        if let Some(text) = parameters.get(from) {
            value.push(format!(",{to}="));
            value.push(path_value(OsStr::from_bytes(text).as_ref()));
        }
    }
    value
}

/// Adds parameters to a value, which may end in a comma that separates nothing.
fn extended(value: OsString, added: &str) -> OsString {
    let commas = value.as_bytes().iter().rev().take_while(|byte| **byte == b',').count();
    let mut value = value;
    if commas % 2 == 0 {
        value.push(",");
    }
    value.push(added);
    value
}

/// Writes parameters as `key=value,key=value`.
fn keyval(parameters: &Parameters) -> OsString {
    let mut text = Vec::new();
    for (key, value) in parameters.iter() {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(key);
        text.push(b'=');
        text.extend_from_slice(path_value(OsStr::from_bytes(value).as_ref()).as_bytes());
    }
    OsString::from_vec(text)
}
