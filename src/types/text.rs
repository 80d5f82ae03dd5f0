//! Names of domains, network interfaces, users and launches.

use super::checked_text::checked_text;

/// The reason why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The text is not a host or domain name (RFC 1123: labels of letters, digits and inner
    /// hyphens; at most 63 characters in a label and 253 in all).
    #[error(
        "{0:?} is not a domain name: use labels of letters, digits and hyphens, such as example.org"
    )]
    Domain(String),
    /// The text is not a name in the DNS of a network (labels of letters, digits, underscores and
    /// inner hyphens, and perhaps a dot at the end).
    #[error(
        "{0:?} is not a domain name: use labels of letters, digits, hyphens and underscores, such as example.org"
    )]
    Dns(String),
    /// The text is not the name of a network interface (Linux: 1 to 15 bytes, no `/`, no white
    /// space, not `.` or `..`; a colon is refused too).
    #[error("{0:?} is not a network interface name: 1 to 15 characters, no spaces, '/' or ':'")]
    Interface(String),
    /// The text is not the name of a user (useradd(8): at most 32 characters, no leading `-`).
    #[error("{0:?} cannot be a user's name: use 1 to 32 letters, digits, '-', '.' or '_'")]
    User(String),
    /// The text is not a name for a launch.
    #[error("{0:?} cannot name a launch: use 1 to 64 letters, digits, '-', '.' or '_'")]
    Launch(String),
}

checked_text!(
    /// A host or domain name that DHCP can give to a guest.
    DomainName, TextError::Domain, is_domain
);
checked_text!(
    /// The name of a guest in the DHCP and DNS of a virtual network.
    ///
    /// It is a [`DomainName`] that may also have inner underscores. RFC 1123 does not allow
    /// underscores, but guests use them, and dnsmasq and libvirt accept them.
    HostName, TextError::Domain, |text| is_domain(&text.replace('_', "-"))
);

checked_text!(
    /// A name in the DNS of a virtual network.
    ///
    /// It is a [`DomainName`] that may have underscores in every place and a dot at the end, as
    /// `_acme-challenge.example.org.` has. dnsmasq 2.90 answers for such names in host, TXT and SRV
    /// records and in the domains of forwarders.
    DnsName, TextError::Dns, |text| is_domain(&without_dot(text).replace('_', "x"))
);

impl DnsName {
    /// Returns the name without the dot at its end, which means the same name.
    pub fn without_dot(&self) -> &str {
        without_dot(&self.0)
    }
}

fn without_dot(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}

checked_text!(
    /// The name of one of the host's network interfaces.
    InterfaceName, TextError::Interface, is_interface
);
checked_text!(
    /// The name of one of the host's users.
    UserName, TextError::User, is_user
);
checked_text!(
    /// The name of a launch, as `netlaunch ps` shows it.
    LaunchName, TextError::Launch, is_launch
);

fn is_domain(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_interface(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    (1..=15).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

fn is_user(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (1..=32).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-')
}

fn is_launch(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_name_follows_rfc_1123() {
        for good in ["a", "example.org", "x-1.example", &"a".repeat(63)] {
            assert!(good.parse::<DomainName>().is_ok(), "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a", "a-", "a_b", "a b", "a,b", &"a".repeat(64), &"a.".repeat(127)]
        {
            assert_eq!(bad.parse::<DomainName>(), Err(TextError::Domain(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn a_host_name_may_have_inner_underscores() {
        for good in ["a", "example.org", "my_vm", "my_vm.lab_1"] {
            assert!(good.parse::<HostName>().is_ok(), "{good}");
        }
        for bad in ["", "_a", "a_", "a._b", "a b", "a,b", "a..b"] {
            assert_eq!(bad.parse::<HostName>(), Err(TextError::Domain(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn a_name_in_dns_may_have_underscores_and_a_dot_at_the_end() {
        for good in ["a", "_acme-challenge.x", "_dmarc.lab.", "a_b.c", "lab.", "x_._y"] {
            assert_eq!(good.parse::<DnsName>().unwrap().as_str(), good);
        }
        assert_eq!("lab.".parse::<DnsName>().unwrap().without_dot(), "lab");
        for bad in ["", ".", "..", "lab..", "-a", "a-", "a b", "a,b", "a/b", "a..b"] {
            assert_eq!(bad.parse::<DnsName>(), Err(TextError::Dns(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn an_interface_name_has_1_to_15_bytes_and_no_separators() {
        for good in ["eth0", "br-1", "enp0s31f6", "a.100"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "eth0:1", "sixteen-letters-", "é"] {
            assert_eq!(
                bad.parse::<InterfaceName>(),
                Err(TextError::Interface(bad.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_user_name_has_at_most_32_characters_and_no_leading_hyphen() {
        for good in ["nobody", "_apt", "jane.doe", "u-1"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "a:b", "a/b", &"a".repeat(33)] {
            assert_eq!(bad.parse::<UserName>(), Err(TextError::User(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn a_launch_name_has_at_most_64_characters_and_no_slash_or_space() {
        assert_eq!("web-1".parse::<LaunchName>().unwrap().as_str(), "web-1");
        for bad in ["", "a/b", "a b", &"a".repeat(65)] {
            assert_eq!(bad.parse::<LaunchName>(), Err(TextError::Launch(bad.to_owned())), "{bad}");
        }
    }
}
