//! The hubs of a command line: which networks and cards of `-net` share one, and which ids and
//! numbers are free.

use std::collections::BTreeSet;

use super::super::qemu_options::{Setting, Settings};

/// Returns the members of hub 0, which joins all `-net` options (QEMU's manual, `-net`).
///
/// A `-net nic` with `netdev=` is no member, and `hubport` makes a netdev or a card a member.
pub(super) fn members(settings: &Settings) -> impl Iterator<Item = &Setting> {
    let net = settings.of_group("net").filter(|setting| {
        let parameters = &setting.parameters;
        let on_netdev = parameters.is("type", "nic") && parameters.get("netdev").is_some();
        !on_netdev && !parameters.is("type", "none")
    });
    let hubport = |setting: &&Setting| {
        let parameters = &setting.parameters;
        let number = parameters.get("hubid").is_some_and(|number| number == b"0");
        parameters.is("type", "hubport") && number
    };
    let ports = settings.of_group("netdev").chain(settings.of_group("nic")).filter(hubport);
    net.chain(ports)
}

/// Returns the numbers of the hubs that the arguments name.
pub(super) fn numbers(settings: &Settings) -> BTreeSet<u32> {
    let ports = ["netdev", "nic", "net"].into_iter().flat_map(|group| settings.of_group(group));
    let number = |setting: &Setting| {
        let text = std::str::from_utf8(setting.parameters.get("hubid")?).ok()?;
        text.parse().ok()
    };
    ports.filter_map(number).collect()
}
