//! The command-line words of the library's errors.
//!
//! An error of the library names no option and no environment variable, because other programs
//! call the library as well. Here each error that an option or a variable mends gets this word. A
//! hint is a clause that follows the text of the error; it is empty if no option helps.

use super::launch_error;
use crate::launcher::LaunchError;
use crate::launcher::plan::RequestError;
use crate::network;
use crate::network::manager::ManagerError;
use crate::nwfilter::port::BindingError;
use crate::nwfilter::{self, TreeError};
use crate::types::Setting;

/// The hint of a lock that another command holds for too long.
pub(super) const LOCK: &str = "; --lock-timeout SECONDS sets how long to wait";

/// The hint for a file or directory of definitions.
const CONFIG_DIR: &str = "; NETLAUNCH_CONFIG_DIR names the directory of definitions";

/// The variable with the directory of the state of networks and ports.
const STATE_DIR: &str = "NETLAUNCH_STATE_DIR";

/// Returns the hint for a network definition: the directory of the definitions, or the option of a
/// launch that does what libvirt does with `<forward mode='bridge'>`.
pub(super) fn network_store(error: &network::StoreError) -> &'static str {
    match error {
        network::StoreError::File(_) => CONFIG_DIR,
        network::StoreError::Document { error, .. }
            if error.to_string().contains(": <forward mode='bridge'> is not supported") =>
        {
            "; a launch puts its guest on a bridge of the host with --bridge IFNAME"
        }
        _ => "",
    }
}

/// Returns the hint for a filter definition.
pub(super) fn filter_store(error: &nwfilter::StoreError) -> &'static str {
    match error {
        nwfilter::StoreError::File(_) => CONFIG_DIR,
        _ => "",
    }
}

/// Returns the hint for a failed command about a running network.
pub(super) fn manager(error: &ManagerError) -> &'static str {
    match error {
        ManagerError::Attached { .. } => {
            ", or use --force; the next start puts the ports of running launches back"
        }
        ManagerError::State { .. } if !error.to_string().contains(STATE_DIR) => {
            ", or set NETLAUNCH_STATE_DIR"
        }
        ManagerError::BridgeUnknown { .. } if !error.to_string().contains("--bridge") => {
            ", or name the bridge with --bridge"
        }
        _ => "",
    }
}

/// Returns the hint for a failed command about the filter of a port.
pub(super) fn binding(error: &BindingError) -> &'static str {
    match error {
        BindingError::StateDir { .. } | BindingError::OtherNamespace(_) => {
            "; NETLAUNCH_STATE_DIR sets the state directory"
        }
        _ => "",
    }
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
        Setting::Qemu => "--qemu",
        Setting::Id => "--id",
        Setting::Device => "--device",
        Setting::Mac => "--mac",
        Setting::Nics => "--net",
        Setting::KeepNics => "--keep-nics",
        Setting::Publish => "--publish",
        Setting::HostLoopback => "--no-host-loopback",
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
        Setting::Command => "-- QEMU ARGS",
        Setting::StateDir => STATE_DIR,
    }
}
