//! Checks the caller's own options for passt.
//!
//! netlaunch must know how passt starts, where its socket is and which addresses the guest gets.
//! So it refuses each option that it writes itself, each one that moves passt or its output to
//! another place, and those that make passt print something and exit. The help of the passt that
//! serves decides about all others.

use super::request::NicRequest;
use super::request_error::RequestError;
use crate::types::facts::{Passt, Problem};
use crate::types::{PasstOption, Setting};

/// The options that netlaunch writes, or that would take passt away from it, each with the setting
/// that does the same.
const OWNED: [(&str, Option<Setting>); 35] = [
    ("address", Some(Setting::Address)),
    ("daemon", None),
    ("dns", Some(Setting::Dns)),
    ("dns-forward", Some(Setting::Dns)),
    ("dns-host", Some(Setting::Dns)),
    ("fd", Some(Setting::Transport)),
    ("foreground", None),
    ("gateway", Some(Setting::Gateway)),
    ("help", None),
    ("hostname", Some(Setting::Hostname)),
    ("interface", Some(Setting::Interface)),
    ("ipv4-only", Some(Setting::Ipv4Only)),
    ("ipv6-only", Some(Setting::Ipv6Only)),
    ("log-file", None),
    ("log-size", None),
    ("mac-addr", None),
    ("map-host-loopback", Some(Setting::HostLoopback)),
    ("mtu", Some(Setting::Mtu)),
    ("netmask", Some(Setting::Address)),
    ("no-map-gw", Some(Setting::HostLoopback)),
    ("one-off", None),
    ("pcap", Some(Setting::Pcap)),
    ("pid", None),
    ("print-capabilities", None),
    ("runas", None),
    ("search", Some(Setting::Search)),
    ("socket", None),
    ("socket-path", None),
    ("stderr", None),
    ("tcp-ns", None),
    ("tcp-ports", Some(Setting::Publish)),
    ("udp-ns", None),
    ("udp-ports", Some(Setting::Publish)),
    ("version", None),
    ("vhost-user", Some(Setting::Transport)),
];

impl NicRequest {
    /// Checks that the caller's options for passt are not netlaunch's.
    pub(super) fn check_passt_options(&self) -> Result<(), RequestError> {
        let owned = |option: &PasstOption| OWNED.iter().find(|(name, _)| *name == option.name());
        match self.passt_options.iter().find_map(owned) {
            Some((name, instead)) => Err(RequestError::PasstOption { name, instead: *instead }),
            None => Ok(()),
        }
    }
}

/// Checks that this passt has the caller's options for it, each with a value or without one as its
/// help shows.
pub(super) fn known(nic: &NicRequest, passt: &Passt) -> Result<(), Problem> {
    nic.passt_options.iter().try_for_each(|option| {
        let name = option.name();
        let (why, fix) = if !passt.has(name) {
            let fix = "install a newer passt, or drop the passt option";
            (format!("this passt has no --{name}"), fix.to_owned())
        } else {
            match (passt.takes_value.get(name), option.has_value()) {
                (Some(true), false) => {
                    (format!("passt's --{name} needs a value"), format!("write {name}=VALUE"))
                }
                (Some(false), true) => {
                    (format!("passt's --{name} takes no value"), format!("write {name} alone"))
                }
                _ => return Ok(()),
            }
        };
        Err(Problem::new(why, fix).about(&[Setting::PasstOption]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_netlaunch_writes_is_refused_with_the_setting_for_it() {
        let checked = |text: &str| {
            let passt_options = vec![text.parse().unwrap()];
            NicRequest { passt_options, ..NicRequest::default() }.check_passt_options()
        };
        assert!(OWNED.is_sorted_by_key(|(name, _)| *name));
        for (name, instead) in OWNED {
            let refused = Err(RequestError::PasstOption { name, instead });
            assert_eq!(checked(&format!("{name}=x")), refused);
        }
        for free in ["no-ndp", "outbound-if4=eth0", "freebind", "no-icmp", "map-guest-addr=1"] {
            assert_eq!(checked(free), Ok(()), "{free}");
        }
    }

    #[test]
    fn an_option_has_a_value_exactly_if_the_help_of_passt_shows_one() {
        let takes_value = [("outbound-if4", true), ("no-ndp", false)];
        let takes_value = takes_value.map(|(name, takes)| (name.to_owned(), takes));
        let options = ["outbound-if4", "no-ndp", "unread"].map(str::to_owned);
        let passt =
            Passt { options: options.into(), takes_value: takes_value.into(), ..Passt::default() };
        for (text, expected) in [
            ("outbound-if4=eth0", None),
            ("outbound-if4=", None),
            ("no-ndp", None),
            ("unread", None),
            ("unread=1", None),
            (
                "outbound-if4",
                Some("passt's --outbound-if4 needs a value: write outbound-if4=VALUE"),
            ),
            ("no-ndp=1", Some("passt's --no-ndp takes no value: write no-ndp alone")),
            (
                "no-tcp",
                Some("this passt has no --no-tcp: install a newer passt, or drop the passt option"),
            ),
        ] {
            let passt_options = vec![text.parse().unwrap()];
            let nic = NicRequest { passt_options, ..NicRequest::default() };
            let refused = known(&nic, &passt).err();
            let said = refused.map(|problem| format!("{}: {}", problem.why, problem.fix));
            assert_eq!(said.as_deref(), expected, "{text}");
        }
    }
}
