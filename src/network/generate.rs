//! Random networks for tests. The parts of such a network need not fit together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use proptest::option::of;
use proptest::prelude::*;

use super::generate_port::{metadata, option, port_groups, properties};
use super::*;
use crate::types::{DnsName, HostName, InterfaceName, Mac, PortRange, Protocol};

/// The MAC address of a network that needs one.
const MAC: &str = "52:54:00:00:00:09";

/// Generates values of `T` from the texts of a pattern.
pub(super) fn text<T>(pattern: &'static str) -> impl Strategy<Value = T>
where
    T: std::str::FromStr + std::fmt::Debug,
{
    pattern.prop_filter_map("another one", |text| text.parse().ok())
}

fn domain() -> impl Strategy<Value = DnsName> {
    text("[a-z0-9]([a-z0-9-]{0,5}[a-z])?(\\.[a-z]{1,3}){0,2}")
}

/// Generates a guest's name for DHCP. libvirt's schema allows an underscore there, but not in DNS.
fn host_name() -> impl Strategy<Value = HostName> {
    text("[a-z0-9]([a-z0-9_-]{0,5}[a-z])?(\\.[a-z]{1,3}){0,2}")
}

fn device() -> impl Strategy<Value = InterfaceName> {
    text("[A-Za-z0-9._-]{1,15}")
}

/// Generates different interfaces in any order.
fn devices() -> impl Strategy<Value = Vec<InterfaceName>> {
    let set = prop::collection::btree_set(device(), 0..4);
    set.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle()
}

fn mac() -> impl Strategy<Value = Mac> {
    text("[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).into()),
        any::<u128>().prop_map(|ip| Ipv6Addr::from(ip).into()),
        any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).to_ipv6_mapped().into()),
        (any::<u16>(), any::<u8>())
            .prop_map(|(a, b)| Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, b.into()).into()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (ip(), 0u8..=128).prop_map(|(ip, prefix)| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, prefix.min(most)).unwrap()
    })
}

fn lease() -> impl Strategy<Value = Option<Lease>> {
    of(prop_oneof![Just(Lease::Infinite), (120..u32::MAX).prop_map(Lease::Seconds)])
}

fn forward() -> impl Strategy<Value = Forward> {
    let addresses = (any::<u32>(), any::<u32>())
        .prop_filter_map("backwards", |(a, b)| AddressRange::new(a.into(), b.into()));
    let ports = (any::<u16>(), any::<u16>()).prop_filter_map("none", |(a, b)| PortRange::new(a, b));
    let nat = (devices(), any::<bool>(), of(addresses), of(ports)).prop_map(
        |(devs, ipv6, addresses, ports)| Forward::Nat(Nat { devs, ipv6, addresses, ports }),
    );
    let route = devices().prop_map(|devs| Forward::Route { devs });
    prop_oneof![Just(Forward::Isolated), Just(Forward::Open), Just(Forward::Bridge), nat, route]
}

fn bridge() -> impl Strategy<Value = Bridge> {
    (device(), any::<bool>(), 0u32..100, of(text("[a-z_-]{1,17}")), any::<bool>()).prop_map(
        |(name, stp, delay, zone, kernel_mac_table)| Bridge {
            name,
            stp,
            delay,
            zone,
            kernel_mac_table,
        },
    )
}

fn dns() -> impl Strategy<Value = Dns> {
    let port = || of((1u16..).prop_map(|port| port.try_into().unwrap()));
    let server = || (ip(), port()).prop_map(|(address, port)| DnsServer { address, port });
    let forwarder = prop_oneof![
        server().prop_map(Forwarder::All),
        (domain(), server()).prop_map(|(domain, server)| Forwarder::Domain(domain, server)),
        domain().prop_map(Forwarder::Host),
    ];
    let host =
        (ip(), prop::collection::vec(domain(), 1..3)).prop_map(|(ip, names)| DnsHost { ip, names });
    let target = (of(domain()), of(any::<u16>()), of(any::<u16>()), of(any::<u16>()))
        .prop_map(|(host, port, priority, weight)| SrvTarget { host, port, priority, weight });
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let srv = (text("[a-z_-]{1,9}"), protocol, of(domain()), of(target))
        .prop_map(|(service, protocol, domain, target)| Srv { service, protocol, domain, target });
    let txt = (domain(), text("[ -~äß€]{0,20}")).prop_map(|(name, value)| Txt { name, value });
    let list = |size| 0..size;
    (
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(forwarder, list(3)),
        prop::collection::vec(host, list(3)),
        prop::collection::vec(srv, list(3)),
        prop::collection::vec(txt, list(3)),
    )
        .prop_map(|(enable, forward_plain_names, forwarders, hosts, services, texts)| Dns {
            enable,
            forward_plain_names,
            forwarders,
            hosts,
            services,
            texts,
        })
}

fn dhcp() -> impl Strategy<Value = Dhcp> {
    let range =
        (ip(), ip(), lease()).prop_map(|(first, last, lease)| DhcpRange { first, last, lease });
    let duid = prop_oneof![
        "00:01:00:0[1-9](:[0-9a-f]{2}){10,12}",
        "00:02(:[0-9a-f]{2}){5,30}",
        "00:03:00:0[a-f](:[0-9a-f]{2}){6,8}",
        "00:04(:[0-9a-f]{2}){16}",
    ]
    .prop_map(|text| text.parse().unwrap());
    let client = prop_oneof![
        (mac(), of(host_name())).prop_map(|(mac, name)| Client::Mac(mac, name)),
        (duid, of(host_name())).prop_map(|(duid, name)| Client::Duid(duid, name)),
        host_name().prop_map(Client::Name),
    ];
    let host =
        (client, ip(), lease()).prop_map(|(client, ip, lease)| DhcpHost { client, ip, lease });
    let bootp =
        (text("[ -~]{1,20}"), of(domain())).prop_map(|(file, server)| Bootp { file, server });
    (prop::collection::vec(range, 0..3), prop::collection::vec(host, 0..3), of(bootp))
        .prop_map(|(ranges, hosts, bootp)| Dhcp { ranges, hosts, bootp })
}

/// Generates a network that can be written and read.
pub(super) fn network() -> impl Strategy<Value = Network> {
    let ip = (net(), any::<bool>(), of(text("/[ -~]{0,20}")), of(dhcp()))
        .prop_map(|(net, local_ptr, tftp, dhcp)| Ip { net, local_ptr, tftp, dhcp });
    let metric = of((1..u32::MAX).prop_map(|metric| metric.try_into().unwrap()));
    let route = (net(), self::ip(), metric).prop_map(|(net, gateway, metric)| Route {
        net,
        gateway,
        metric,
    });
    let domain =
        of((domain(), any::<bool>()).prop_map(|(name, local_only)| Domain { name, local_only }));
    let uuid = "[0-9a-f]{32}".prop_map(|text| text.parse().unwrap());
    let people = (of(text("[ -~äß€]{1,20}")), of("[ -~\n\tä€]{1,30}"), of(metadata()));
    (
        (text("[a-z0-9_][a-z+._-]{0,20}"), uuid, any::<bool>(), forward(), bridge(), of(mac())),
        (of(any::<u16>()), domain, dns(), people),
        prop::collection::vec(ip, 0..3),
        prop::collection::vec(route, 0..3),
        (properties(), port_groups(), prop::collection::vec(option(), 0..3)),
    )
        .prop_map(
            |(
                (name, uuid, ipv6, forward, bridge, mac),
                (mtu, domain, dns, (title, description, metadata)),
                ips,
                routes,
                (port, port_groups, dnsmasq_options),
            )| {
                // Only a document of an existing bridge can be without a MAC address.
                let required = (forward != Forward::Bridge).then(|| Mac::from_str(MAC).unwrap());
                let mac = mac.or(required);
                Network {
                    name,
                    uuid,
                    title,
                    description,
                    metadata,
                    ipv6,
                    forward,
                    bridge,
                    mac,
                    mtu,
                    domain,
                    dns,
                    ips,
                    routes,
                    port,
                    port_groups,
                    dnsmasq_options,
                }
            },
        )
}
