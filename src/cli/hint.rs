//! The command-line words of the library's errors.
//!
//! An error of the library names no option, no environment variable, no command of netlaunch and no
//! settings file, because other programs call the library as well. Here each error that an option,
//! a variable or a command mends gets this word. A hint is a clause that follows the text of the
//! error; it is empty if no option helps.
//!
//! The library also logs warnings, which no function here sees as errors. [`with_words`] finds the
//! advice in the text of each message, an error or a warning, and [`with_files`] the settings.

use super::launch_error;
use crate::firewall::TraceError;
use crate::launcher::LaunchError;
use crate::launcher::plan::RequestError;
use crate::network;
use crate::network::manager::ManagerError;
use crate::nwfilter::port::{BindingError, NoGuestMac};
use crate::nwfilter::{self, TreeError};
use crate::types::{Setting, error_text};

/// The hint of a lock that another command holds for too long.
pub(super) const LOCK: &str = "; --lock-timeout SECONDS sets how long to wait";

/// The hint for a file or directory of definitions.
const CONFIG_DIR: &str = "; NETLAUNCH_CONFIG_DIR names the directory of definitions";

/// The variable with the directory of the state of networks and ports.
const STATE_DIR: &str = "NETLAUNCH_STATE_DIR";

/// Returns the hint for a network definition: the directory of the definitions, or the option of a
/// launch that puts a guest on a bridge without a network.
pub(super) fn network_store(error: &network::StoreError) -> &'static str {
    match error {
        network::StoreError::Unknown(_) => "; 'netlaunch network list' shows all networks",
        network::StoreError::File(_) => CONFIG_DIR,
        network::StoreError::Document { error, .. }
            if error.to_string().contains("make the interface a port of it") =>
        {
            "; a launch also puts its guest on a bridge of the host with --bridge IFNAME"
        }
        _ => "",
    }
}

/// Returns the hint for a filter definition.
pub(super) fn filter_store(error: &nwfilter::StoreError) -> &'static str {
    match error {
        nwfilter::StoreError::Unknown(_) => "; 'netlaunch nwfilter list' shows all filters",
        nwfilter::StoreError::File(_) => CONFIG_DIR,
        _ => "",
    }
}

/// Returns the hint for a failed command about a running network.
pub(super) fn manager(error: &ManagerError) -> String {
    let hint = match error {
        ManagerError::Store(error) => network_store(error),
        ManagerError::Active(name) => return format!(" with netlaunch network destroy {name}"),
        ManagerError::Inactive(name) => return format!(" with netlaunch network start {name}"),
        ManagerError::NoVlans(_) => "; --config without --live changes the definition alone",
        ManagerError::Attached { .. } => {
            ", or use --force; the next start puts the ports of running launches back"
        }
        ManagerError::State { .. } if !error_text(error).contains(STATE_DIR) => {
            ", or set NETLAUNCH_STATE_DIR"
        }
        ManagerError::BridgeUnknown { .. } if !error_text(error).contains("--bridge") => {
            ", or name the bridge with --bridge"
        }
        _ => "",
    };
    hint.to_owned()
}

/// Returns the hint for a failed command about the filter of a port.
pub(super) fn binding(error: &BindingError) -> String {
    let hint = match error {
        BindingError::Store(error) => filter_store(error),
        BindingError::Bound(port) => {
            return format!(
                ": netlaunch nwfilter unbind {port}; netlaunch nwfilter bind --replace replaces it"
            );
        }
        BindingError::InUse { port, .. } => {
            return format!(": netlaunch nwfilter binding-delete {port}");
        }
        BindingError::AddressInUse { holder: port, .. } => {
            return format!(
                ": netlaunch nwfilter unbind {port}; or give the new binding another IP or IPV6"
            );
        }
        BindingError::Unbound(_) => {
            "; netlaunch nwfilter binding-list shows the ports that have one"
        }
        BindingError::OtherRules(_) => ": netlaunch firewall reload",
        BindingError::Watched => ": systemctl stop netlaunch-nwfilter",
        BindingError::GuardRecord { .. } => {
            ": netlaunch nwfilter watch sets it, and netlaunch nwfilter watch --stop removes it"
        }
        BindingError::StateDir { .. } | BindingError::OtherNamespace(_) => {
            "; NETLAUNCH_STATE_DIR sets the state directory"
        }
        _ => "",
    };
    hint.to_owned()
}

/// Returns the hint for a trace that cannot be followed.
pub(super) fn trace(error: &TraceError) -> &'static str {
    match error {
        TraceError::NoOwner => ": netlaunch firewall reload",
        _ => "",
    }
}

/// Returns the option for a MAC address that was not found.
pub(super) fn guest_mac(error: &NoGuestMac) -> &'static str {
    match error {
        NoGuestMac::Binding(_) => "",
        _ => " with --mac",
    }
}

/// The advice in texts of the library, and the option or command that carries it out.
const WORDS: [(&str, &str); 5] = [
    ("add the QEMU command", "-- QEMU ARGS"),
    ("reload the firewall rules", "netlaunch firewall reload"),
    ("check the firewall", "netlaunch firewall check"),
    ("set the DNS server", "--dns"),
    ("set the guest's address", "--address"),
];

/// The files of a setting that both networks and filters have.
const BOTH_FILES: &str = "network.conf, for filters in nwfilter.conf";

/// The settings that texts of the library name, and the file that sets each.
const SETTINGS: [(&str, &str); 9] = [
    ("use firewall_backend = \"iptables\"", "nwfilter.conf"),
    ("use firewall_backend = \"nftables\"", "nwfilter.conf"),
    ("set firewall_backend = \"nftables\"", "nwfilter.conf"),
    ("remove firewall_backend = \"iptables\"", "nwfilter.conf"),
    ("set enable_trace = true", "nwfilter.conf"),
    ("set enable_counters = true", "nwfilter.conf"),
    ("set firewall_backend to nftables", BOTH_FILES),
    ("set firewall_backend to the other backend", BOTH_FILES),
    ("firewall_backend is iptables", "network.conf"),
];

/// Adds the files of the settings that a text names.
pub(super) fn with_files(mut text: String) -> String {
    for (setting, file) in SETTINGS {
        if text.contains(setting) && !text.contains(&format!("{setting} in ")) {
            text = text.replace(setting, &format!("{setting} in {file}"));
        }
    }
    text
}

/// Adds the options, commands and files for the advice in a message.
pub(super) fn with_words(message: String) -> String {
    let mut message = with_files(message);
    for (advice, word) in WORDS {
        if message.contains(advice) && !message.contains(word) {
            message.push_str(&format!(" ({word})"));
        }
    }
    message
}

/// Returns the options that give a filter its missing variables.
pub(super) fn variables(error: &TreeError) -> String {
    let TreeError::Variables { missing, .. } = error else { return String::new() };
    let mut names: Vec<&str> = missing.iter().map(|used| used.name.as_str()).collect();
    names.dedup();
    let options: Vec<String> = names.iter().map(|name| format!(" -p {name}=...")).collect();
    if options.is_empty() { String::new() } else { format!(",{}", options.concat()) }
}

/// Returns the text of a launch's error, with the options for the settings that it names.
pub(super) fn launch(error: &LaunchError) -> String {
    match error {
        LaunchError::Plan(plan) => with_options(plan.to_string(), &plan.settings()),
        other => launch_error::text(other),
    }
}

/// Returns the text of a request's error, with the options for the settings that it names.
pub(super) fn request(error: &RequestError) -> String {
    with_options(error.to_string(), &error.settings())
}

/// Adds the options for settings to a text that names the settings in words.
pub(super) fn with_options(text: String, settings: &[Setting]) -> String {
    let mut options: Vec<&str> = Vec::new();
    for option in settings.iter().map(|setting| option(*setting)) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    if options.is_empty() { text } else { format!("{text} ({})", options.join(", ")) }
}

/// Returns the option or the variable for a setting.
fn option(setting: Setting) -> &'static str {
    match setting {
        Setting::Backend => "--backend",
        Setting::Transport => "--transport",
        Setting::Network => "--network",
        Setting::Bridge => "--bridge",
        Setting::Filter => "--filter",
        Setting::Bandwidth => "--bandwidth",
        Setting::Qemu => "--qemu",
        Setting::Id => "--id",
        Setting::Device => "--device",
        Setting::Mac => "--mac",
        Setting::Nics => "--net",
        Setting::KeepNics => "--keep-nics",
        Setting::Publish => "--publish",
        Setting::HostLoopback => "--no-host-loopback or host_loopback in netlaunch.conf",
        Setting::Address => "--address",
        Setting::Gateway => "--gateway",
        Setting::Dns => "--dns",
        Setting::Search => "--search",
        Setting::Hostname => "--hostname",
        Setting::Mtu => "--mtu",
        Setting::Interface => "--interface",
        Setting::Pcap => "--pcap",
        Setting::Queues => "--queues",
        Setting::PasstOption => "--passt-option",
        Setting::Vmm => "--vmm",
        Setting::Listen => "--listen",
        Setting::ListenFd => "--listen-fd",
        Setting::Ipv4Only => "--ipv4-only",
        Setting::Ipv6Only => "--ipv6-only",
        Setting::User => "--user",
        Setting::StopTimeout => "--stop-timeout",
        Setting::Command => "-- QEMU ARGS",
        Setting::StateDir => STATE_DIR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_advice_gets_its_word_once() {
        for (message, expected) in [
            ("set the DNS server to another one", "set the DNS server to another one (--dns)"),
            (
                "then reload the firewall rules",
                "then reload the firewall rules (netlaunch firewall reload)",
            ),
            (
                "reload the firewall rules: netlaunch firewall reload",
                "reload the firewall rules: netlaunch firewall reload",
            ),
            (
                "use firewall_backend = \"iptables\", or name the addresses",
                "use firewall_backend = \"iptables\" in nwfilter.conf, or name the addresses",
            ),
            (
                "set firewall_backend to the other backend",
                "set firewall_backend to the other backend in network.conf, for filters in nwfilter.conf",
            ),
            (
                "add the QEMU command and run as root",
                "add the QEMU command and run as root (-- QEMU ARGS)",
            ),
            ("passt is missing", "passt is missing"),
        ] {
            assert_eq!(with_words(expected.to_owned()), expected, "with its word");
            assert_eq!(with_words(message.to_owned()), expected);
        }
    }

    #[test]
    fn a_command_names_the_network_or_the_port_of_the_error() {
        let network = "lab".parse().unwrap();
        assert_eq!(manager(&ManagerError::Active(network)), " with netlaunch network destroy lab");
        let port = "vnet0".parse().unwrap();
        let hint = binding(&BindingError::Bound(port));
        assert!(hint.starts_with(": netlaunch nwfilter unbind vnet0;"), "{hint}");
    }
}
