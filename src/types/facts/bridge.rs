//! The facts about bridges: the means by which this user can attach guests, and the bridge of one
//! launch.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{KernelFeature, Problem};
use crate::types::{InterfaceName, PortSettings, os_text};

/// The means by which this user can attach guests to bridges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeAccess {
    /// Whether this process may make network interfaces (CAP_NET_ADMIN).
    pub net_admin: bool,
    /// Whether this process can open /dev/net/tun.
    pub tun: bool,
    /// vhost-net, by which the kernel moves the frames of a tap without QEMU.
    #[serde(default)]
    pub vhost_net: KernelFeature,
    /// The path of QEMU's setuid bridge helper; `None` if it was not found.
    #[serde(default, with = "os_text::optional_path")]
    pub helper: Option<PathBuf>,
    /// The reason why the helper has no effect for an ordinary user; `None` if it works or was not
    /// found.
    pub helper_problem: Option<Problem>,
    /// The bridges that the helper lets users join.
    pub acl: Acl,
}

/// The helper's access control list.
///
/// The helper reads the whole list: it lets a user join a bridge if a line allows the bridge and no
/// line denies it. Before it reads the list, the helper changes back to the user and keeps only
/// CAP_NET_ADMIN. So the user must be able to read the list, and to open /dev/net/tun (both
/// measured with QEMU 10.0, built with libcap-ng as distributions do).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// The path of the list.
    #[serde(with = "os_text::path")]
    pub file: PathBuf,
    /// Whether the list could be read.
    pub state: AclState,
    /// The lines of the list; the lines of an included file are in the place of its `include` line.
    pub rules: Vec<AclRule>,
}

/// Whether an access control list could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AclState {
    /// The list does not exist, so the helper refuses every bridge.
    Missing,
    /// This user cannot read the list or a file that it includes, so the helper cannot read it
    /// either.
    #[default]
    Unreadable,
    /// The list was read.
    Read,
}

/// A line of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRule {
    /// Whether the line is `allow`; otherwise it is `deny`.
    pub allow: bool,
    /// The bridge; `None` for `all`.
    pub bridge: Option<String>,
}

impl Acl {
    /// Checks that the helper lets users join this bridge, as far as the list shows it.
    ///
    /// # Errors
    /// A [`Problem`] with the reason for the refusal and the fix for root.
    pub fn permits(&self, bridge: &InterfaceName) -> Result<(), Problem> {
        let file = self.file.display();
        let allow = format!("have root write the line \"allow {bridge}\" into {file}");
        let about = |rule: &&AclRule| rule.bridge.as_deref().is_none_or(|b| b == bridge.as_str());
        match self.state {
            AclState::Unreadable => {
                return Err(Problem::new(
                    format!("QEMU's bridge helper reads {file} as this user, to whom it is closed"),
                    format!("have root run 'chmod a+r {file}'"),
                ));
            }
            AclState::Missing => {
                let why = format!("QEMU's bridge helper allows no bridge, since {file} is missing");
                return Err(Problem::new(why, allow));
            }
            AclState::Read => {}
        }
        if let Some(rule) = self.rules.iter().filter(about).find(|rule| !rule.allow) {
            let what = rule.bridge.as_deref().unwrap_or("all");
            return Err(Problem::new(
                format!("{file} denies users the bridge {bridge}"),
                format!("have root remove the line \"deny {what}\" from {file}"),
            ));
        }
        if self.rules.iter().any(|rule| about(&rule)) {
            Ok(())
        } else {
            Err(Problem::new(format!("{file} does not allow {bridge}"), allow))
        }
    }

    /// Returns the allowed bridges in words; `None` if the list allows none.
    pub fn allowed(&self) -> Option<String> {
        let denied = |name: Option<&str>| {
            self.rules
                .iter()
                .any(|r| !r.allow && (r.bridge.is_none() || r.bridge.as_deref() == name))
        };
        let allowed = self.rules.iter().filter(|rule| rule.allow);
        let mut names: Vec<&str> = allowed
            .map(|rule| rule.bridge.as_deref())
            .filter(|name| !denied(*name))
            .map(|name| name.unwrap_or("every bridge"))
            .collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// The bridge that a guest joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetBridge {
    /// The bridge's interface.
    pub bridge: InterfaceName,
    /// The bridge's largest packet in bytes; 0 if it is not known.
    pub mtu: u32,
    /// The settings of the guest's port, from the port group of the network; the default for a
    /// bridge that netlaunch did not make.
    pub port: PortSettings,
    /// The scripts that have set the firewall rules of its network; empty for a bridge that
    /// netlaunch did not make.
    pub firewall: Vec<FirewallScript>,
}

/// The subject of a set of firewall rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RulesOf {
    /// A virtual network, whose rules were set when it was started.
    Network,
    /// A guest's port, whose filter is set before the port goes up.
    Port,
    /// The published ports of the guest together with the network's other rules, which are set when
    /// the guest's port goes up and when its address changes.
    Published,
}

/// One run of a firewall tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirewallScript {
    /// The subject of the rules.
    pub of: RulesOf,
    /// The tool's name.
    pub program: String,
    /// The tool's arguments.
    pub args: Vec<String>,
    /// The tool's standard input.
    pub input: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(state: AclState, lines: &[(bool, &str)]) -> Acl {
        let rule = |(allow, bridge): &(bool, &str)| AclRule {
            allow: *allow,
            bridge: Some((*bridge).to_owned()).filter(|bridge| bridge != "all"),
        };
        Acl { file: "/e/bridge.conf".into(), state, rules: lines.iter().map(rule).collect() }
    }

    #[test]
    fn a_bridge_needs_a_line_that_allows_it_and_no_line_that_denies_it() {
        use AclState::{Missing, Read, Unreadable};
        for (state, lines, refusal, allowed) in [
            (Read, &[(true, "br0")][..], None, Some("br0")),
            (Read, &[(true, "all")], None, Some("every bridge")),
            (Unreadable, &[], Some("to whom it is closed"), None),
            (Missing, &[], Some("since /e/bridge.conf is missing"), None),
            (Read, &[], Some("/e/bridge.conf does not allow br0"), None),
            (Read, &[(true, "br1")], Some("/e/bridge.conf does not allow br0"), Some("br1")),
            (Read, &[(true, "all"), (false, "br0")], Some("denies users"), Some("every bridge")),
            (Read, &[(false, "all"), (true, "br0")], Some("denies users"), None),
        ] {
            let acl = acl(state, lines);
            let got = acl.permits(&"br0".parse().unwrap()).err().map(|problem| problem.why);
            assert_eq!(got.is_some(), refusal.is_some(), "{lines:?}: {got:?}");
            assert!(got.is_none_or(|why| why.contains(refusal.unwrap())), "{lines:?}");
            assert_eq!(acl.allowed().as_deref(), allowed, "{lines:?}");
        }
        let missing = acl(Missing, &[]).permits(&"br0".parse().unwrap()).unwrap_err();
        assert_eq!(missing.fix, "have root write the line \"allow br0\" into /e/bridge.conf");
    }
}
