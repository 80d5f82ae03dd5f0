//! Tests of refused documents: parts that the format does not have, and parts that do not fit
//! together.

use super::tests::read;

/// Returns a document in which `part`, such as an entry of a table below, is line 2 from column 1.
fn around(part: &str) -> String {
    format!("<network><name>n</name>\n{part}</network>")
}

const IP: &str = "<ip address='10.0.0.1' prefix='24'>";
const IP6: &str = "<ip family='ipv6' address='fd00::1' prefix='64'>";

/// Parts that netlaunch does not support.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "<forward mode='private'><interface dev='a'/></forward>",
        "2:16: <forward mode='private'> is not supported by netlaunch; make a bridge",
    ),
    (
        "<forward mode='hostdev' managed='yes'/>",
        "2:16: <forward mode='hostdev'> is not supported by netlaunch; a guest gets a device",
    ),
    ("<forward managed='yes'/>", "2:10: the attribute managed of <forward> is not supported"),
    ("<forward><pf dev='a'/></forward>", "2:10: <pf> is not supported"),
    (
        "<bridge macTableManager='libvirt'/>",
        "2:26: macTableManager='libvirt' is not supported by netlaunch; write macTable",
    ),
    ("<domain name='a' register='yes'/>", "2:28: register='yes' is not supported by netlaunch"),
    ("<d:options xmlns:d='u'/>", "2:1: 'd:options' uses a namespace"),
    ("<metadata><x:a/></metadata>", "2:11: 'x' has a prefix that is not declared"),
];

/// Parts that are unknown or missing.
const UNKNOWN: &[(&str, &str)] = &[
    (
        "<bogus/>",
        "2:1: <bogus> is not known in <network>: use name, uuid, title, description, metadata, forward, bridge, mtu, mac, domain, dns, ip, route, bandwidth, vlan, port, portgroup, dnsmasq:options, or remove it",
    ),
    (
        "<bridge nmae='a'/>",
        "2:9: the attribute nmae is not known in <bridge>: use name, stp, delay, zone, macTableManager",
    ),
    ("<ip/>", "2:1: <ip> needs the attribute address"),
    ("<mtu/>", "2:1: <mtu> needs the attribute size"),
    ("<mac/>", "2:1: <mac> needs the attribute address"),
    ("<name>m</name>", "2:1: <network> has a <name> already, at 1:10"),
    ("text", "2:1: <network> has no text"),
];

/// Invalid values, without those of `<ip>`, `<dns>` and `<route>`.
const INVALID: &[(&str, &str)] = &[
    ("<uuid>x</uuid>", "2:7: <uuid>: \"x\" is not a UUID"),
    ("<bridge name='a b'/>", "2:15: name of <bridge>: \"a b\" cannot name"),
    ("<bridge name='all'/>", "2:15: name of <bridge>: \"all\" cannot name a bridge"),
    ("<bridge name='default'/>", "2:15: name of <bridge>: \"default\" cannot name a bridge"),
    ("<bridge name='lo'/>", "2:15: name of <bridge>: \"lo\" cannot name a bridge"),
    ("<bridge stp='yes'/>", "2:14: stp of <bridge>: \"yes\" is not a value of it: use on or off"),
    ("<bridge delay='-1'/>", "2:16: delay of <bridge>: \"-1\" is not a number"),
    ("<bridge zone='a b'/>", "2:15: zone of <bridge>: \"a b\" is not a zone"),
    (
        "<mac address='01:00:5e:00:00:01'/>",
        "2:15: address of <mac>: 01:00:5e:00:00:01 is a multicast",
    ),
    ("<mtu size='70000'/>", "2:12: size of <mtu>: \"70000\" is not a number that fits"),
    ("<domain name='a b'/>", "2:15: name of <domain>: \"a b\" is not a domain name"),
    ("<forward mode='nta'/>", "2:16: mode of <forward>: \"nta\" is not a mode"),
    ("<forward mode='open' dev='a'/>", "2:27: dev of <forward>: mode=\"open\" has no interface"),
    (
        "<forward dev='a'><interface dev='b'/></forward>",
        "2:18: <interface>: its interface is b, and dev of <forward>, the first one, is a",
    ),
    (
        "<forward dev='a'><interface dev='a'/><interface dev='a'/></forward>",
        "2:38: <interface>: another <interface> has a already",
    ),
    ("<title>a\nb</title>", "2:8: <title>: \"a\\nb\" is not a title"),
    (
        "<dns><forwarder addr='10.0.0.2' port='0'/></dns>",
        "2:39: port of <forwarder>: \"0\" is not a port",
    ),
    ("<dns><forwarder domain='a' port='5353'/></dns>", "2:6: <forwarder>: port is the server's"),
    ("<forward mode='route'><nat/></forward>", "2:23: <nat>: NAT works with mode='nat' only"),
    (
        "<forward><nat><port start='0' end='9'/></nat></forward>",
        "2:15: <port>: 0 to 9 are no ports",
    ),
    (
        "<forward><nat><port start='9' end='8'/></nat></forward>",
        "2:15: <port>: 9 to 8 are no ports",
    ),
    (
        "<forward><nat><port start='9' end='65536'/></nat></forward>",
        "2:36: end of <port>: \"65536\" is not",
    ),
    (
        "<forward><nat><address start='1.2.3.9' end='1.2.3.4'/></nat></forward>",
        "2:15: <address>: 1.2.3.9 to 1.2.3.4 runs",
    ),
    (
        "<forward><nat><address start='fd00::1' end='fd00::2'/></nat></forward>",
        "2:31: start of <address>: \"fd00::1\" is not an IPv4",
    ),
];

/// Invalid values of `<ip>`, `<dns>` and `<route>`.
const INVALID_SERVICES: &[(&str, &str)] = &[
    ("<ip address='240.0.0.1'/>", "2:1: <ip>: its subnet is missing"),
    ("<route address='10.0.0.0' gateway='10.0.0.2'/>", "2:1: <route>: its subnet is missing"),
    ("<ip address='10.0.0.1' prefix='33'/>", "2:32: prefix of <ip>: 33 is too long"),
    (
        "<ip address='10.0.0.1' netmask='255.0.255.0'/>",
        "2:33: netmask of <ip>: 255.0.255.0 has gaps",
    ),
    (
        "<ip address='10.0.0.1' netmask='255.0.0.0' prefix='8'/>",
        "2:1: <ip>: prefix and netmask both set the subnet",
    ),
    (
        "<ip address='10.0.0.300' prefix='8'/>",
        "2:14: address of <ip>: \"10.0.0.300\" is not an IP address",
    ),
    (
        "<ip address='fd00::1' prefix='64'/>",
        "2:14: address of <ip>: fd00::1 is an IPv6 address: add family='ipv6'",
    ),
    (
        "<ip family='ipv6' address='10.0.0.1' prefix='8'/>",
        "2:28: address of <ip>: 10.0.0.1 is an IPv4 address: remove",
    ),
    ("IP<tftp root='srv'/></ip>", "2:48: root of <tftp>: \"srv\" is not a directory to serve"),
    ("IP<dhcp><host ip='10.0.0.2'/></dhcp></ip>", "2:42: <host>: the client is missing"),
    (
        "IP<dhcp><range start='10.0.0.2' end='10.0.0.3'><lease expiry='1'/></range></dhcp></ip>",
        "2:81: <lease>: the lease time is too short",
    ),
    (
        "IP<dhcp><bootp file='a,b'/></dhcp></ip>",
        "2:55: file of <bootp>: \"a,b\" is not a boot file",
    ),
    ("<dns><forwarder/></dns>", "2:6: <forwarder>: addr and domain are missing"),
    ("<dns><host ip='10.0.0.2'/></dns>", "2:6: <host> needs a <hostname>"),
    (
        "<dns><txt name='a' value='a&#10;b'/></dns>",
        "2:27: value of <txt>: \"a\\nb\" cannot be a TXT record",
    ),
    (
        "<dns><srv service='a' protocol='tcp' port='1'/></dns>",
        "2:6: <srv>: port, priority and weight",
    ),
    ("<dns><srv service='a' protocol='sctp'/></dns>", "2:33: protocol of <srv>: \"sctp\""),
    (
        "<route address='10.1.0.0' prefix='16' gateway='10.0.0.2' metric='0'/>",
        "2:66: metric of <route>: a metric is at least 1",
    ),
];

/// Asserts that the document with each part is refused with an error that starts with this text.
pub(super) fn are_refused<T: AsRef<str>>(parts: &[(T, &str)]) {
    for (part, error) in parts {
        let part = part.as_ref();
        let found = read(&around(part)).unwrap_err().to_string();
        assert!(found.starts_with(error), "{part}: {found}");
        assert_eq!(found.lines().count(), 1);
    }
}

#[test]
fn each_unsupported_unknown_or_invalid_part_is_refused_at_its_place() {
    // The columns in the tables count the text after IP and IP6 are replaced.
    let with = |text: &str| text.replace("IP6", IP6).replace("IP", IP);
    for table in [UNSUPPORTED, UNKNOWN, INVALID, INVALID_SERVICES] {
        let parts: Vec<_> = table.iter().map(|(part, error)| (with(part), *error)).collect();
        are_refused(&parts);
    }
}

fn dhcp(inner: &str) -> String {
    format!("{IP}<dhcp>\n{inner}</dhcp></ip>")
}

fn dhcp6(inner: &str) -> String {
    format!("{IP6}<dhcp>\n{inner}</dhcp></ip>")
}

fn range(first: &str, last: &str) -> String {
    format!("<range start='{first}' end='{last}'/>")
}

fn host(client: &str, ip: &str) -> String {
    format!("<host {client} ip='{ip}'/>")
}

fn route(net: &str, gateway: &str) -> String {
    let (address, prefix) = net.split_once('/').unwrap();
    format!("{IP}</ip>\n<route address='{address}' prefix='{prefix}' gateway='{gateway}'/>")
}

fn nat(first: &str, last: &str) -> String {
    format!("<forward><nat>\n<address start='{first}' end='{last}'/></nat></forward>{IP}</ip>")
}

#[test]
fn settings_that_do_not_fit_the_network_are_refused() {
    are_refused(&[
        ("<mtu size='67'/>".to_owned(), "2:1: an mtu of 67 is too small for IPv4: use 68 to 65535"),
        (
            format!("<mtu size='1279'/>{IP6}</ip>"),
            "2:1: an mtu of 1279 is too small for IPv6: use 1280",
        ),
        ("<bridge delay='31'/>".into(), "2:1: a delay of 31 seconds"),
        ("<forward mode='nat'/>".into(), "2:1: mode='nat' needs an address"),
        ("<forward mode='route'/>".into(), "2:1: mode='route' needs an address"),
        (nat("127.0.0.1", "127.0.0.2"), "3:1: 127.0.0.1 cannot be a source address"),
        (
            nat("10.0.0.9", "10.0.0.9"),
            "3:1: the addresses 10.0.0.9-10.0.0.9 are of the guests' own subnet 10.0.0.0/24",
        ),
        (nat("9.0.0.0", "11.0.0.0"), "3:1: the addresses 9.0.0.0-11.0.0.0 are of the guests'"),
    ]);
}

#[test]
fn addresses_of_the_bridge_that_do_not_fit_are_refused() {
    are_refused(&[
        ("<ip address='10.0.0.0' prefix='24'/>".into(), "2:1: 10.0.0.0 is the network address"),
        (
            "<ip address='10.0.0.255' prefix='24'/>".into(),
            "2:1: 10.0.0.255 is the broadcast address",
        ),
        ("<ip address='127.0.0.1' prefix='8'/>".into(), "2:1: 127.0.0.1 is a loopback address"),
        ("<ip address='10.0.0.1' prefix='31'/>".into(), "2:1: a subnet of /31 has no room"),
        (
            "<ip family='ipv6' address='fe80::1' prefix='64'/>".into(),
            "2:1: fe80::1 is a link-local address",
        ),
        (
            "<ip family='ipv6' address='ff02::1' prefix='64'/>".into(),
            "2:1: ff02::1 is a multicast address",
        ),
        (
            "<ip family='ipv6' address='fd00::1' prefix='127'/>".into(),
            "2:1: a subnet of /127 has no room",
        ),
        (
            "<ip address='10.0.0.1' prefix='20' localPtr='yes'/>".into(),
            "2:1: localPtr works with prefix lengths that 8 divides",
        ),
        (
            format!("{IP}</ip>\n<ip address='10.0.0.2' prefix='8'/>"),
            "3:1: the subnet 10.0.0.0/8 overlaps 10.0.0.0/24, which",
        ),
        (format!("{IP6}\n<tftp root='/srv'/></ip>"), "3:1: <tftp> is for IPv4"),
        (
            format!("{IP}<dhcp/></ip><ip address='10.1.0.1' prefix='24'>\n<dhcp/></ip>"),
            "3:1: a network has one <dhcp> for IPv4",
        ),
        (
            format!(
                "{IP}<tftp root='/a'/></ip><ip address='10.1.0.1' prefix='24'>\n<tftp root='/a'/></ip>"
            ),
            "3:1: a network has one <tftp>",
        ),
        (dhcp6("<bootp file='a'/>"), "3:1: <bootp> is for IPv4"),
        (
            "<ip family='ipv6' address='fd00::1' prefix='56'>\n<dhcp/></ip>".into(),
            "3:1: DHCP needs an IPv6 prefix length of 64 or more",
        ),
    ]);
}

#[test]
fn dhcp_ranges_that_do_not_fit_the_subnet_are_refused() {
    are_refused(&[
        (
            dhcp(&range("10.0.0.9", "10.0.0.8")),
            "3:1: the range 10.0.0.9 to 10.0.0.8 runs backwards",
        ),
        (
            dhcp(&range("10.0.0.1", "10.0.0.1")),
            "3:1: the range has 10.0.0.1 only, the bridge's own address",
        ),
        (dhcp(&range("10.0.0.2", "10.0.1.8")), "3:1: 10.0.1.8 is outside the subnet 10.0.0.0/24"),
        (dhcp(&range("9.0.0.2", "9.0.0.8")), "3:1: 9.0.0.2 is outside"),
        (dhcp(&range("fd00::2", "fd00::3")), "3:1: fd00::2 is outside"),
        (
            dhcp(&range("10.0.0.2", "10.0.0.255")),
            "3:1: 10.0.0.255 is the broadcast address of 10.0.0.0/24",
        ),
        (
            dhcp(&format!("{}\n{}", range("10.0.0.2", "10.0.0.8"), range("10.0.0.8", "10.0.0.9"))),
            "4:1: the range 10.0.0.8 to 10.0.0.9 overlaps 10.0.0.2 to",
        ),
        (
            dhcp6(&range("fd00::", "fd00:0:0:1::")),
            "3:1: fd00:: is the network address of fd00::/64",
        ),
    ]);
}

#[test]
fn dhcp_hosts_that_do_not_fit_the_subnet_are_refused() {
    are_refused(&[
        (
            dhcp6(&host("mac='52:54:00:00:00:02'", "fd00::2")),
            "3:1: mac identifies no guest in DHCP for IPv6: use id",
        ),
        (
            dhcp(&host("id='0:4:1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:0'", "10.0.0.2")),
            "3:1: id identifies no guest in DHCP for IPv4: use mac",
        ),
        (
            dhcp(&host("mac='52:54:00:00:00:01'", "10.0.0.2")),
            "3:1: 52:54:00:00:00:01 is the bridge's own MAC",
        ),
        (dhcp(&host("name='a'", "10.0.0.1")), "3:1: 10.0.0.1 is the bridge's own address"),
        (dhcp(&host("name='a'", "10.0.0.0")), "3:1: 10.0.0.0 is the network address"),
        (dhcp(&host("name='a'", "10.0.9.2")), "3:1: 10.0.9.2 is outside"),
        (
            dhcp(&format!("{}\n{}", host("name='a'", "10.0.0.2"), host("name='b'", "10.0.0.2"))),
            "4:1: another <host> has 10.0.0.2 already",
        ),
        (
            dhcp(&format!(
                "{}\n{}",
                host("mac='52:54:0:0:0:2' name='a'", "10.0.0.2"),
                host("mac='52:54:0:0:0:3' name='b'", "10.0.0.2")
            )),
            "4:1: another <host> has 10.0.0.2 with another name",
        ),
        (
            dhcp(&format!(
                "{}\n{}\n{}",
                host("mac='52:54:0:0:0:2'", "10.0.0.2"),
                host("mac='52:54:0:0:0:3' name='a'", "10.0.0.2"),
                host("mac='52:54:0:0:0:4' name='b'", "10.0.0.2")
            )),
            "5:1: another <host> has 10.0.0.2 with another name",
        ),
        (
            dhcp(&format!("{}\n{}", host("name='a'", "10.0.0.2"), host("name='A'", "10.0.0.3"))),
            "4:1: another <host> has name='a' already",
        ),
        (
            dhcp(&format!(
                "{}\n{}",
                host("mac='52:54:00:00:00:02'", "10.0.0.2"),
                host("mac='52:54:0:0:0:2'", "10.0.0.3")
            )),
            "4:1: another <host> has mac='52:54:00:00:00:02'",
        ),
    ]);
}

#[test]
fn routes_that_do_not_lead_through_a_guest_are_refused() {
    are_refused(&[
        (
            route("10.9.0.1/16", "10.0.0.2"),
            "3:1: 10.9.0.1/16 has host bits: write address='10.9.0.0'",
        ),
        (route("10.9.0.0/16", "10.8.0.2"), "3:1: the gateway 10.8.0.2 is in no subnet"),
        (route("10.9.0.0/16", "10.0.0.1"), "3:1: 10.0.0.1 is the bridge's own address"),
        (route("10.9.0.0/16", "fd00::2"), "3:1: the gateway fd00::2 cannot lead to 10.9.0.0/16"),
        (route("10.0.0.0/25", "10.0.0.2"), "3:1: 10.0.0.0/25 is in this network's own subnet"),
        (
            route("10.9.0.0/16", "10.0.0.2")
                + "\n<route address='10.9.0.0' prefix='16' gateway='10.0.0.3' metric='1'/>",
            "4:1: another <route> leads to 10.9.0.0/16",
        ),
    ]);
}

#[test]
fn parts_that_fit_together_are_accepted() {
    for good in [
        dhcp(&format!("{}{}", range("10.0.0.2", "10.0.0.2"), host("name='a'", "10.0.0.2"))),
        format!("{IP}</ip>{IP6}</ip>"),
        "<ip family='ipv6' address='fd00::' prefix='64'/>".to_owned(),
        route("0.0.0.0/0", "10.0.0.2"),
        "<forward mode='open'/>".to_owned(),
    ] {
        read(&around(&good)).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
}
