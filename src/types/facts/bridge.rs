//! What was found out about bridges: how this user may join them, and the one that is to be joined.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::types::InterfaceName;

/// How guests of this user can get onto a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Whether this process may make links (CAP_NET_ADMIN).
    pub net_admin: bool,
    /// Whether /dev/net/tun can be opened.
    pub tun: bool,
    /// QEMU's setuid bridge helper, where there is one.
    pub helper: Option<PathBuf>,
    /// Why that helper can do nothing for an ordinary user; absent where it can, or is not there.
    pub helper_problem: Option<Problem>,
    /// Which bridges the helper lets users join.
    pub acl: Acl,
}

/// The helper's access control list.
///
/// The helper reads all of it: a bridge is joined where some line allows it and none denies it. By
/// then it has become the user again, with CAP_NET_ADMIN alone, so that the user has to be able to
/// read it, and to open /dev/net/tun (both measured with QEMU 10.0, built with libcap-ng as
/// distributions do).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// The file.
    pub file: PathBuf,
    /// Whether it could be read.
    pub state: AclState,
    /// Its lines, those of included files in their place.
    pub rules: Vec<AclRule>,
}

/// Whether an access control list could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclState {
    /// It is not there: the helper refuses everything.
    Missing,
    /// It, or a file that it includes, is closed to this user, and so to the helper.
    #[default]
    Unreadable,
    /// It was read.
    Read,
}

/// A line of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRule {
    /// `allow`, else `deny`.
    pub allow: bool,
    /// The bridge; absent for `all`.
    pub bridge: Option<String>,
}

impl Acl {
    /// Whether the helper lets users join this bridge, as far as that can be known.
    ///
    /// # Errors
    /// It does not, and what root can do about it.
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
        match self.rules.iter().any(|rule| about(&rule)) {
            true => Ok(()),
            false => Err(Problem::new(format!("{file} does not allow {bridge}"), allow)),
        }
    }

    /// The bridges it allows, in words; `None` where it allows none.
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

/// The bridge that a guest is to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its interface.
    pub bridge: InterfaceName,
    /// Its largest packet in bytes; 0 where that is not known.
    pub mtu: u32,
    /// What has set the firewall rules of its network; nothing for a bridge of somebody else's.
    pub firewall: Vec<FirewallScript>,
}

/// One firewall tool's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirewallScript {
    /// The tool.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it reads.
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
    fn a_bridge_is_allowed_by_a_line_and_denied_by_none() {
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
