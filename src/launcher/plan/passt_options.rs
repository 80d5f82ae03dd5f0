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

/// Checks that this passt has the caller's options for it.
pub(super) fn known(nic: &NicRequest, passt: &Passt) -> Result<(), Problem> {
    match nic.passt_options.iter().find(|option| !passt.has(option.name())) {
        Some(option) => Err(Problem::new(
            format!("this passt has no --{}", option.name()),
            "install a newer passt, or drop the passt option",
        )
        .about(&[Setting::PasstOption])),
        None => Ok(()),
    }
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
}
