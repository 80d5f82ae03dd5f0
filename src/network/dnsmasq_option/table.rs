//! The options of dnsmasq that a network may set, and those that it may not.
//!
//! An option that can name an interface has a [`Condition`] for its value.

use std::net::IpAddr;

use ipnet::IpNet;

/// A condition for the value of an allowed option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Any value.
    Any,
    /// No `@INTERFACE`, `@ADDRESS` or `%INTERFACE` after a server.
    NoSource,
    /// The first field is `*`, which means the network's own bridge.
    OwnInterface,
    /// No `constructor:INTERFACE`.
    NoConstructor,
    /// The fields after the first are addresses, subnets or `local`.
    Addresses,
    /// The second field is an address or a subnet.
    Range,
}

use Condition::{Addresses, Any, NoConstructor, NoSource, OwnInterface, Range};

/// The options that change only the answers of this dnsmasq. `bind-dynamic` and
/// `dhcp-authoritative` are among them, because netlaunch sets both anyway.
pub(super) const ALLOWED: &[(&str, Condition)] = &[
    ("add-cpe-id", Any),
    ("add-mac", Any),
    ("add-subnet", Any),
    ("address", Any),
    ("alias", Any),
    ("all-servers", Any),
    ("auth-ttl", Any),
    ("bind-dynamic", Any),
    ("bogus-nxdomain", Any),
    ("bogus-priv", Any),
    ("bootp-dynamic", Any),
    ("caa-record", Any),
    ("cache-rr", Any),
    ("cache-size", Any),
    ("clear-on-reload", Any),
    ("cname", Any),
    ("dhcp-authoritative", Any),
    ("dhcp-boot", Any),
    ("dhcp-broadcast", Any),
    ("dhcp-circuitid", Any),
    ("dhcp-duid", Any),
    ("dhcp-fqdn", Any),
    ("dhcp-generate-names", Any),
    ("dhcp-host", Any),
    ("dhcp-ignore", Any),
    ("dhcp-ignore-clid", Any),
    ("dhcp-ignore-names", Any),
    ("dhcp-mac", Any),
    ("dhcp-match", Any),
    ("dhcp-name-match", Any),
    ("dhcp-no-override", Any),
    ("dhcp-option", Any),
    ("dhcp-option-force", Any),
    ("dhcp-option-pxe", Any),
    ("dhcp-proxy", Any),
    ("dhcp-pxe-vendor", Any),
    ("dhcp-range", NoConstructor),
    ("dhcp-rapid-commit", Any),
    ("dhcp-remoteid", Any),
    ("dhcp-reply-delay", Any),
    ("dhcp-sequential-ip", Any),
    ("dhcp-subscrid", Any),
    ("dhcp-ttl", Any),
    ("dhcp-userclass", Any),
    ("dhcp-vendorclass", Any),
    ("dns-forward-max", Any),
    ("dns-loop-detect", Any),
    ("dns-rr", Any),
    ("dnssec", Any),
    ("dnssec-check-unsigned", Any),
    ("dnssec-debug", Any),
    ("dnssec-limits", Any),
    ("dnssec-no-timecheck", Any),
    ("do-0x20-encode", Any),
    ("domain", Addresses),
    ("domain-needed", Any),
    ("edns-packet-max", Any),
    ("enable-ra", Any),
    ("expand-hosts", Any),
    ("fast-dns-retry", Any),
    ("filter-A", Any),
    ("filter-AAAA", Any),
    ("filter-rr", Any),
    ("filterwin2k", Any),
    ("host-record", Any),
    ("ignore-address", Any),
    ("local", NoSource),
    ("local-ttl", Any),
    ("localise-queries", Any),
    ("localmx", Any),
    ("log-async", Any),
    ("log-debug", Any),
    ("log-dhcp", Any),
    ("log-queries", Any),
    ("max-cache-ttl", Any),
    ("max-port", Any),
    ("max-tcp-connections", Any),
    ("max-ttl", Any),
    ("min-cache-ttl", Any),
    ("min-port", Any),
    ("mx-host", Any),
    ("mx-target", Any),
    ("naptr-record", Any),
    ("neg-ttl", Any),
    ("no-0x20-encode", Any),
    ("no-hosts", Any),
    ("no-ident", Any),
    ("no-negcache", Any),
    ("no-ping", Any),
    ("no-poll", Any),
    ("no-resolv", Any),
    ("no-round-robin", Any),
    ("port-limit", Any),
    ("proxy-dnssec", Any),
    ("ptr-record", Any),
    ("pxe-prompt", Any),
    ("pxe-service", Any),
    ("quiet-dhcp", Any),
    ("quiet-dhcp6", Any),
    ("quiet-ra", Any),
    ("quiet-tftp", Any),
    ("ra-param", OwnInterface),
    ("rebind-domain-ok", Any),
    ("rebind-localhost-ok", Any),
    ("rev-server", NoSource),
    ("selfmx", Any),
    ("server", NoSource),
    ("srv-host", Any),
    ("stop-dns-rebind", Any),
    ("strict-order", Any),
    ("strip-mac", Any),
    ("strip-subnet", Any),
    ("synth-domain", Range),
    ("tag-if", Any),
    ("tftp-lowercase", Any),
    ("tftp-max", Any),
    ("tftp-mtu", Any),
    ("tftp-no-blocksize", Any),
    ("tftp-no-fail", Any),
    ("tftp-single-port", Any),
    ("trust-anchor", Any),
    ("txt-record", Any),
    ("use-stale-cache", Any),
];

const FILE: &str = "makes dnsmasq read or write a file of the host: remove it";
const PROGRAM: &str = "makes dnsmasq run a program or talk to one: remove it";
const LISTEN: &str = "changes the interfaces, addresses or ports that dnsmasq listens on, which netlaunch sets: remove it";
const USER: &str = "changes the user that dnsmasq runs as, which netlaunch sets: remove it";
const FIREWALL: &str = "makes dnsmasq change the host's firewall: remove it";
const PROCESS: &str = "changes how dnsmasq runs, which netlaunch sets: remove it";

/// The other options of dnsmasq, with the reason and the fix.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("addn-hosts", "reads a file of the host: write <host> in <dns>, or host-record=..."),
    ("auth-peer", "makes dnsmasq answer to other networks: remove it"),
    ("auth-sec-servers", "makes dnsmasq answer to other networks: remove it"),
    ("auth-server", "makes dnsmasq answer to other networks: remove it"),
    ("auth-soa", "makes dnsmasq answer to other networks: remove it"),
    ("auth-zone", "makes dnsmasq answer to other networks: write address=/NAME/ADDRESS"),
    ("bind-interfaces", LISTEN),
    ("bridge-interface", LISTEN),
    ("conf-dir", FILE),
    ("conf-file", FILE),
    ("conf-opts", FILE),
    ("conf-script", PROGRAM),
    ("conntrack", FIREWALL),
    ("connmark-allowlist", FIREWALL),
    ("connmark-allowlist-enable", FIREWALL),
    ("dhcp-alternate-port", LISTEN),
    ("dhcp-client-update", "lets guests change names in DNS: remove it"),
    ("dhcp-hostsdir", FILE),
    ("dhcp-hostsfile", "reads a file of the host: write <host> in <dhcp>"),
    ("dhcp-lease-max", "is set already, from the ranges in <dhcp>: remove it"),
    ("dhcp-leasefile", "writes a file of the host; the leases have one already: remove it"),
    ("dhcp-luascript", PROGRAM),
    ("dhcp-optsdir", FILE),
    ("dhcp-optsfile", "reads a file of the host: write dhcp-option=..."),
    ("dhcp-relay", "sends requests of guests to another network: remove it"),
    ("dhcp-script", PROGRAM),
    ("dhcp-scriptuser", USER),
    ("dhcp-split-relay", "sends requests of guests to another network: remove it"),
    ("dnssec-timestamp", FILE),
    ("dumpfile", FILE),
    ("dumpmask", FILE),
    ("dynamic-host", "takes addresses from an interface of the host: write host-record=..."),
    ("enable-dbus", PROGRAM),
    ("enable-tftp", "can serve files of the host: write <tftp root='...'/> in <ip>"),
    ("enable-ubus", PROGRAM),
    ("except-interface", LISTEN),
    ("group", USER),
    ("help", PROCESS),
    ("hostsdir", FILE),
    ("interface", LISTEN),
    ("interface-name", "takes addresses from an interface of the host: write host-record=..."),
    ("ipset", FIREWALL),
    ("keep-in-foreground", PROCESS),
    ("leasefile-ro", PROGRAM),
    ("leasequery", "makes dnsmasq answer to other networks: remove it"),
    ("listen-address", LISTEN),
    ("local-service", LISTEN),
    ("log-facility", "writes a file of the host; dnsmasq writes to the system log: remove it"),
    ("nftset", FIREWALL),
    ("no-daemon", PROCESS),
    ("no-dhcp-interface", LISTEN),
    ("no-dhcpv4-interface", LISTEN),
    ("no-dhcpv6-interface", LISTEN),
    ("pid-file", "writes a file of the host: remove it"),
    ("port", "changes the port that dnsmasq listens on: write <dns enable='no'/> for no DNS"),
    ("query-port", "opens a fixed port on the host: remove it"),
    ("read-ethers", "reads a file of the host: write <host> in <dhcp>"),
    ("resolv-file", "reads a file of the host: write <forwarder addr='...'/> in <dns>"),
    ("script-arp", PROGRAM),
    ("script-on-renewal", PROGRAM),
    ("servers-file", "reads a file of the host: write server=..."),
    ("shared-network", LISTEN),
    ("test", PROCESS),
    ("tftp-port-range", LISTEN),
    ("tftp-root", "serves files of the host: write <tftp root='...'/> in <ip>"),
    ("tftp-secure", "depends on the user that dnsmasq runs as: remove it"),
    ("tftp-unique-root", "serves other files of the host: remove it"),
    ("umbrella", "sends an identifier of the host to a company: remove it"),
    ("user", USER),
    ("version", PROCESS),
];

impl Condition {
    /// Checks a value; the error is the value that works.
    pub(super) fn check(self, value: &str) -> Result<(), &'static str> {
        let fields: Vec<&str> = value.split(',').map(|field| field.trim_matches(' ')).collect();
        match self {
            Any => Ok(()),
            NoSource if !value.contains(['@', '%']) => Ok(()),
            NoSource => Err("remove '@' or '%' and the name or address after it"),
            OwnInterface if fields.first() == Some(&"*") => Ok(()),
            OwnInterface => Err("write '*', which means the bridge of this network"),
            NoConstructor if !value.contains("constructor:") => Ok(()),
            NoConstructor => Err("write the addresses in place of 'constructor:'"),
            Addresses
                if fields.iter().skip(1).all(|field| *field == "local" || is_network(field)) =>
            {
                Ok(())
            }
            Addresses => Err("write an address, a subnet or 'local' after the domain"),
            Range if fields.get(1).is_some_and(|field| is_network(field)) => Ok(()),
            Range => Err("write an address or a subnet after the domain"),
        }
    }
}

fn is_network(field: &str) -> bool {
    field.parse::<IpAddr>().is_ok() || field.parse::<IpNet>().is_ok()
}
