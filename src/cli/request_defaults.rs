//! The settings of netlaunch.conf that a launch takes over, and the settings that all its NICs
//! have.
//!
//! A setting of the file is ignored if an option makes it meaningless and no option could take it
//! back: the file's gateway with another `--address`, its IPv4 settings with `--ipv6-only`, its
//! stop timeout in serve mode, its passt settings with `--backend slirp`, all settings of user-mode
//! networks on a bridge, its card if the QEMU arguments bring one, and with `--net` its settings of
//! a single NIC and those that no NIC takes. Published ports stay, because a port that the file
//! publishes would be closed otherwise: with `--net` the first NIC that can have them gets them,
//! and a launch with bridges only is refused.

use std::net::IpAddr;

use super::args::LaunchArgs;
use super::config::Config;
use crate::launcher::adopt::user_nics;
use crate::launcher::plan::{AddressChoice, Attachment, Backend, Command, Family, NicRequest};
use crate::launcher::qemu_options::CommandLine;
use crate::types::PublishRequest;
use crate::types::facts::Facts;

/// Returns a NIC of `--net` with the settings that all user-mode NICs of the launch have.
pub(super) fn with_common(listed: &NicRequest, common: &NicRequest) -> NicRequest {
    if listed.attachment.is_some() {
        return NicRequest { queues: common.queues, ..listed.clone() };
    }
    let passt = listed.backend == Some(Backend::Passt);
    NicRequest {
        transport: common.transport.filter(|_| passt),
        passt_options: common.passt_options.iter().filter(|_| passt).cloned().collect(),
        interface: common.interface.clone().filter(|_| passt),
        dns: common.dns,
        search: common.search.clone(),
        mtu: common.mtu,
        family: common.family,
        host_loopback: common.host_loopback,
        ..listed.clone()
    }
}

/// Returns whether the caller's QEMU arguments have a user-mode network that takes the settings of
/// the single NIC, because netlaunch moves it or leaves it on slirp.
///
/// A `-netdev passt` is none: netlaunch adds a card of its own beside it. QEMU's default card is
/// none either, because it is not moved if the file has a card. The answer does not depend on the
/// host.
fn has_own_network(args: &LaunchArgs, command: Option<&Command>) -> bool {
    let is_kept = args.keep_nics || attachment(args).is_some();
    let Some(command) = command.filter(|_| !is_kept) else { return false };
    let line = CommandLine::parse(&command.args);
    let settings = line.settings(&[]);
    !user_nics(&line, &settings, &NicRequest::default(), &Facts::default()).is_empty()
}

/// The settings of the file without those that an option makes meaningless.
pub(super) struct Defaults {
    pub(super) config: Config,
    /// The published ports of the file if the launch has a list of NICs.
    pub(super) listed: Vec<PublishRequest>,
}

impl Defaults {
    pub(super) fn of(args: &LaunchArgs, config: &Config, command: Option<&Command>) -> Self {
        let (mut config, mut listed) = (config.clone(), Vec::new());
        if command.is_none() {
            // The caller starts and ends QEMU.
            config.stop_timeout = None;
        }
        let has_own = has_own_network(args, command);
        if has_own {
            // That network has a card.
            config.device = None;
        }
        if !args.net.is_empty() {
            listed = config.publish.take().unwrap_or_default();
            let Config { dns, .. } = config;
            // These settings are for a single NIC.
            config = Config {
                dns: dns.filter(|_| config.address.is_none()),
                device: None,
                address: None,
                gateway: None,
                hostname: None,
                ..config
            };
            if !has_own {
                // Each NIC of the list names its backend.
                config.backend = None;
            }
            if !has_own && !args.net.iter().any(|nic| nic.backend == Some(Backend::Passt)) {
                config.transport = None;
                config.interface = None;
            }
            if !has_own && args.net.iter().all(|nic| nic.attachment.is_some()) {
                config = without_user_mode(config);
            }
        }
        if args.address.is_some() {
            // These settings belong to the address of the file.
            config.gateway = None;
            if let Some(AddressChoice::Fixed(guest)) = config.address {
                let subnet = guest.subnet();
                let inside = |dns: &IpAddr| matches!(dns, IpAddr::V4(dns) if subnet.contains(dns));
                config.dns = config.dns.filter(|dns| !inside(dns));
            }
        }
        match family(args) {
            Some(Family::V6) => {
                config.address = None;
                config.gateway = None;
                config.dns = config.dns.filter(IpAddr::is_ipv6);
            }
            Some(Family::V4) => config.dns = config.dns.filter(IpAddr::is_ipv4),
            _ => {}
        }
        match args.backend.and_then(|backend| backend.named()) {
            Some(Backend::Slirp) => {
                config.transport = None;
                config.interface = None;
            }
            named if named == Some(Backend::Bridge) || attachment(args).is_some() => {
                config = without_user_mode(config);
            }
            _ => {}
        }
        Defaults { config, listed }
    }
}

/// Publishes these ports of the file on the first NIC of the list that is not on a bridge without a
/// network, or on the first one. Published ports in the list replace those of the file.
pub(super) fn publish_on_first(nics: &mut [NicRequest], ports: Vec<PublishRequest>) {
    if nics.iter().any(|nic| !nic.publish.is_empty() || !nic.free_ports.is_empty()) {
        return;
    }
    let is_able = |nic: &NicRequest| !matches!(nic.attachment, Some(Attachment::Bridge(_)));
    let at = nics.iter().position(is_able).unwrap_or(0);
    if let Some(nic) = nics.get_mut(at) {
        ports.into_iter().for_each(|ports| nic.publish(ports));
    }
}

/// Returns the settings that a guest without a user-mode network has.
fn without_user_mode(config: Config) -> Config {
    let Config { passt, qemu, device, publish, stop_timeout, log_format, source, .. } = config;
    Config { passt, qemu, device, publish, stop_timeout, log_format, source, ..Config::default() }
}

/// Returns the network or bridge that the guest joins.
pub(super) fn attachment(args: &LaunchArgs) -> Option<Attachment> {
    let network = args.network.as_ref().map(|choice| Attachment::Network(choice.name.clone()));
    network.or_else(|| args.bridge.clone().map(Attachment::Bridge))
}

pub(super) fn family(args: &LaunchArgs) -> Option<Family> {
    match (args.ipv4_only, args.ipv6_only) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    }
}
