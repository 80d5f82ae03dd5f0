//! The hubs of a command line: the networks and cards that share one, and the numbers in use.
//!
//! slirp gives an address to each station of a hub. passt has one address for all of them, so a
//! network may leave slirp only if its hub has exactly one card and nothing else.

use std::collections::BTreeSet;

use super::super::qemu_options::{Setting, Settings};
use super::card::Card;

/// The hub of a user-mode network.
pub(super) struct Hub {
    /// The other members, each with the caller's spelling.
    others: Vec<(String, Member)>,
}

/// A member of a hub.
enum Member {
    Card(Card),
    /// A port to which the arguments attach no card, or several ones.
    Port,
    Network,
}

impl Hub {
    /// Returns the hub of the network `user`; `None` if the network faces its card itself.
    pub(super) fn of(settings: &Settings, user: &Setting) -> Option<Self> {
        let others = others(settings, user)?;
        let named = |other: &Setting| (other.written.clone(), member(settings, other));
        Some(Hub { others: others.into_iter().map(named).collect() })
    }

    /// Returns whether no card and no other network is a member.
    pub(super) fn is_empty(&self) -> bool {
        self.others.iter().all(|(_, member)| matches!(member, Member::Port))
    }

    /// Returns the card that is the only other member.
    pub(super) fn card(&self) -> Option<&Card> {
        match &self.others[..] {
            [(_, Member::Card(card))] => Some(card),
            _ => None,
        }
    }

    /// Returns the other members in the caller's spelling.
    pub(super) fn written(&self) -> String {
        let written: Vec<&str> = self.others.iter().map(|(written, _)| written.as_str()).collect();
        written.join(" ")
    }
}

/// Returns the members of the hub of `user` besides its own port.
pub(super) fn others<'a>(settings: &'a Settings, user: &Setting) -> Option<Vec<&'a Setting>> {
    let (own, hub) = match user.group.as_str() {
        "net" => (user, 0),
        "netdev" => {
            let id = user.parameters.get("id")?;
            let serves = |port: &&Setting| port.parameters.get("netdev") == Some(id);
            let port = ports(settings).find(serves)?;
            (port, number(port)?)
        }
        _ => return None,
    };
    Some(members(settings, hub).filter(|member| *member != own).collect())
}

/// Returns the members of a hub. Hub 0 joins all `-net` options (QEMU's manual, `-net`).
///
/// A `-net nic` with `netdev=` is no member, and `hubport` makes a netdev or a card a member.
pub(super) fn members(settings: &Settings, hub: u32) -> impl Iterator<Item = &Setting> {
    let net = settings.of_group("net").filter(move |setting| {
        let parameters = &setting.parameters;
        let on_netdev = parameters.is("type", "nic") && parameters.get("netdev").is_some();
        hub == 0 && !on_netdev && !parameters.is("type", "none")
    });
    net.chain(ports(settings).filter(move |port| number(port) == Some(hub)))
}

/// Returns the numbers of the hubs that the arguments name.
pub(super) fn numbers(settings: &Settings) -> BTreeSet<u32> {
    let ports = ["netdev", "nic", "net"].into_iter().flat_map(|group| settings.of_group(group));
    ports.filter_map(number).collect()
}

fn ports(settings: &Settings) -> impl Iterator<Item = &Setting> {
    let all = settings.of_group("netdev").chain(settings.of_group("nic"));
    all.filter(|setting| setting.parameters.is("type", "hubport"))
}

fn number(port: &Setting) -> Option<u32> {
    std::str::from_utf8(port.parameters.get("hubid")?).ok()?.parse().ok()
}

fn member(settings: &Settings, setting: &Setting) -> Member {
    let parameters = &setting.parameters;
    let card = match setting.group.as_str() {
        "net" if parameters.is("type", "nic") => Card::read(parameters, "model", "macaddr"),
        "net" => return Member::Network,
        _ if parameters.get("netdev").is_some() => return Member::Network,
        "nic" => Card::read(parameters, "model", "mac"),
        _ => {
            let id = parameters.get("id").map(String::from_utf8_lossy);
            let card = id.and_then(|id| Card::on(settings, &id));
            return card.map_or(Member::Port, Member::Card);
        }
    };
    Member::Card(card)
}
