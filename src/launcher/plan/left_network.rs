//! Reads the part of a slirp network that passt has as well: its addresses, its names and its
//! forwards.
//!
//! One option such as `tftp` keeps a whole network on slirp. The other NICs of the guest must still
//! leave its subnet and its ports alone, and a setting of the launch may ask for nothing more than
//! its words have. So the words that are read go through the same translation as those of a network
//! that moves, without the other words.
//!
//! A word that the translation does not read, such as an address of three parts, counts as absent.

use std::net::{IpAddr, Ipv4Addr};

use super::request::{AddressChoice, Family, NicRequest};
use crate::launcher::adopt::{Left, UserNic, translate};
use crate::launcher::qemu_options::Parameters;
use crate::types::{DomainName, GuestAddresses, Mac, Publish, overlap};

const FAMILY: [&str; 2] = ["ipv4", "ipv6"];
const ADDRESSES: [&str; 4] = ["net", "ip", "host", "dhcpstart"];
const SEARCH: [&str; 2] = ["dnssearch", "domainname"];

/// A network that stays on slirp, as far as its words are read.
pub(super) struct LeftNetwork {
    pub(super) family: Family,
    /// The address of the guest; the default choice if there is no IPv4, or if it is not read.
    pub(super) address: AddressChoice,
    /// The gateway; `None` if there is no IPv4, or if the addresses are not read.
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) hostname: Option<DomainName>,
    /// The DNS server that slirp announces; `None` if it is outside of the guest's subnet.
    pub(super) dns: Option<IpAddr>,
    pub(super) search: Vec<DomainName>,
    /// The forwards; none if two of them use one port, which QEMU refuses.
    pub(super) publish: Vec<Publish>,
    /// The address of its card; `None` if QEMU chooses it.
    pub(super) mac: Option<Mac>,
}

impl LeftNetwork {
    /// Reads the network of `user_nic`.
    pub(super) fn read(user_nic: &UserNic) -> Self {
        let options = &user_nic.options;
        let read = |keys: &[&[&str]]| translated(options, keys, None);
        let family = read(&[&FAMILY]).map(|nic| nic.family).unwrap_or_default();
        let with_dns = read(&[&FAMILY, &ADDRESSES, &["dns"]]);
        let addressed = with_dns.clone().or_else(|| read(&[&FAMILY, &ADDRESSES]));
        let search = read(&[&SEARCH]).map(|nic| nic.search).unwrap_or_default();
        let publish = options.all("hostfwd").filter_map(|forward| {
            let forward = to_own_address(forward);
            let nic = translated(options, &[&FAMILY, &ADDRESSES], Some(&forward))?;
            nic.publish.into_iter().next()
        });
        let publish: Vec<Publish> = publish.collect();
        // Without a card the guest has no address of the network.
        let addressed = addressed.filter(|_| user_nic.request != Err(Left::NoCard));
        LeftNetwork {
            family,
            gateway: addressed.as_ref().and_then(|nic| nic.gateway),
            hostname: read(&[&["hostname"]]).and_then(|nic| nic.hostname),
            address: addressed.map(|nic| nic.address).unwrap_or_default(),
            dns: with_dns.as_ref().and_then(announced),
            search,
            publish: if overlap(&publish).is_none() { publish } else { Vec::new() },
            mac: user_nic.card.as_ref().and_then(|card| card.mac),
        }
    }
}

/// Returns the DNS server that slirp announces for this request.
fn announced(nic: &NicRequest) -> Option<IpAddr> {
    let AddressChoice::Fixed(address) = nic.address else { return None };
    let usual = || GuestAddresses::new(address, nic.gateway, None).ok();
    nic.dns.or_else(|| usual().map(|usual| usual.dns.into()))
}

/// Translates the options with these keys, and a forward; `None` if one of them is not read.
fn translated(
    options: &Parameters,
    keys: &[&[&str]],
    forward: Option<&[u8]>,
) -> Option<NicRequest> {
    let mut kept = Parameters::default();
    let is_kept = |key: &[u8]| keys.concat().iter().any(|kept| kept.as_bytes() == key);
    for (key, value) in options.iter().filter(|(key, _)| is_kept(key)) {
        kept.push(key, value);
    }
    forward.iter().for_each(|forward| kept.push(b"hostfwd", forward));
    translate(&kept, &[]).ok()
}

/// Returns a forward with the guest's own address instead of another one: the port of the host is
/// the same.
fn to_own_address(forward: &[u8]) -> Vec<u8> {
    let inside = forward.iter().position(|byte| *byte == b'-').map(|at| at + 1);
    let port = forward.iter().rposition(|byte| *byte == b':');
    match (inside, port) {
        (Some(inside), Some(port)) if inside < port => {
            [&forward[..inside], &forward[port..]].concat()
        }
        _ => forward.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::launcher::adopt::user_nics;
    use crate::launcher::qemu_options::CommandLine;
    use crate::types::facts::Facts;

    fn read(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let line = CommandLine::parse(&words);
        let settings = line.settings(&[]);
        let nics = user_nics(&line, &settings, &NicRequest::default(), &Facts::default());
        let [nic] = &nics[..] else { panic!("{nics:?}") };
        assert!(nic.request.is_err(), "{nic:?}");
        let LeftNetwork { family, address, dns, search, publish, mac, .. } = LeftNetwork::read(nic);
        let address = match address {
            AddressChoice::Fixed(address) => address.to_string(),
            other => format!("{other:?}"),
        };
        let mut text = format!("{address} {family:?}");
        dns.iter().for_each(|dns| text.push_str(&format!(" dns={dns}")));
        search.iter().for_each(|search| text.push_str(&format!(" search={search}")));
        publish.iter().for_each(|publish| text.push_str(&format!(" {publish}")));
        mac.iter().for_each(|mac| text.push_str(&format!(" mac={mac}")));
        text
    }

    #[test]
    fn the_words_beside_the_one_that_only_slirp_has_are_read() {
        for (line, expected) in [
            ("-nic user,tftp=/t", "10.0.2.15/24 Both dns=10.0.2.3"),
            (
                "-nic user,restrict=on,mac=52:54:00:00:00:07",
                "10.0.2.15/24 Both dns=10.0.2.3 mac=52:54:00:00:00:07",
            ),
            ("-nic user,tftp=/t,net=10.9.0.0/16", "10.9.2.15/16 Both dns=10.9.2.3"),
            ("-nic user,tftp=/t,dhcpstart=10.0.2.9,host=10.0.2.1", "10.0.2.9/24 Both dns=10.0.2.3"),
            ("-nic user,tftp=/t,dns=10.0.2.53", "10.0.2.15/24 Both dns=10.0.2.53"),
            ("-nic user,dns=1.1.1.1", "10.0.2.15/24 Both"),
            ("-nic user,net=10.0.2", "Default Both"),
            ("-nic user,tftp=/t,ipv6=off", "10.0.2.15/24 V4 dns=10.0.2.3"),
            ("-nic user,tftp=/t,ipv4=off", "Default V6"),
            (
                "-nic user,tftp=/t,domainname=lan,dnssearch=a",
                "10.0.2.15/24 Both dns=10.0.2.3 search=a search=lan",
            ),
            (
                "-nic user,tftp=/t,hostfwd=tcp::22-:22,hostfwd=udp::53-10.0.2.99:5353,hostfwd=x",
                "10.0.2.15/24 Both dns=10.0.2.3 0.0.0.0:22:22/tcp 0.0.0.0:53:5353/udp",
            ),
            ("-nic user,hostfwd=::22-:22,hostfwd=::22-:23", "10.0.2.15/24 Both dns=10.0.2.3"),
            // Without a card.
            ("-netdev user,id=a,hostfwd=::22-:22", "Default Both dns=10.0.2.3 0.0.0.0:22:22/tcp"),
            (
                r#"-netdev {"type":"user","id":"a","tftp":"/t","hostfwd":[{"str":"::22-:22"}]} -device e1000,netdev=a"#,
                "10.0.2.15/24 Both dns=10.0.2.3 0.0.0.0:22:22/tcp",
            ),
            ("-net nic -net user,smb=/a,,b,net=10.7.0.0/24", "10.7.0.15/24 Both dns=10.7.0.3"),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }
}
