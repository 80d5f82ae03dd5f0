//! Renders the text of dnsmasq's files (dnsmasq(8), "CONFIG FILE").
//!
//! dnsmasq reads at most 1024 bytes of a line. A value in double quotes may contain commas, and
//! quotes or backslashes after a backslash.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use super::config::{
    Client, ConfigError, DNS_PORT, DhcpDns, DhcpHost, Dns, DnsHost, Lease, Range, Rendered, Srv,
    Txt,
};
use super::lines::{Lines, path, quoted};
use crate::types::DnsName;

/// The maximum number of leases for dnsmasq. dnsmasq allocates nothing for them, but counts in an
/// int.
const MOST_LEASES: u128 = 1 << 20;
/// The number of hosts for which the maximum has room. dnsmasq reads new hosts while it runs, but
/// not a new maximum.
const HOSTS_STEP: u128 = 1024;

impl DhcpDns {
    /// Returns the text of the files.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if dnsmasq would misread a value.
    pub fn render(&self) -> Result<Rendered, ConfigError> {
        if self.interface.as_str().contains('*') {
            return Err(ConfigError::Interface(self.interface.clone()));
        }
        let mut conf = Lines::default();
        conf.line("# Written by netlaunch when the network started; changes are lost.");
        conf.value("interface", &quoted("the interface", self.interface.as_str())?);
        // dnsmasq adds the loopback interface to any interface unless it is excluded.
        conf.line("except-interface=lo");
        conf.line("bind-dynamic");
        conf.line("strict-order");
        self.dns(&mut conf)?;
        self.dhcp(&mut conf)?;
        if let Some(root) = &self.tftp_root {
            conf.line("enable-tftp");
            conf.value("tftp-root", &path(root)?);
        }
        if let Some(boot) = &self.boot {
            let file = quoted("the boot file", &boot.file)?;
            let server = boot.server.map(|server| format!(",,{server}")).unwrap_or_default();
            conf.value("dhcp-boot", &format!("{file}{server}"));
        }
        for option in &self.options {
            conf.option(option)?;
        }
        let hosts = self.dns.as_ref().map_or(&[][..], |dns| &dns.hosts);
        Ok(Rendered {
            conf: conf.text(),
            dhcp_hosts: dhcp_hosts(&self.hosts)?,
            dns_hosts: hosts.iter().map(dns_host).collect::<Result<_, _>>()?,
        })
    }

    fn dns(&self, conf: &mut Lines) -> Result<(), ConfigError> {
        if let Some(domain) = &self.domain {
            conf.value("domain", domain.name.without_dot());
            conf.line("expand-hosts");
            if domain.local_only {
                conf.value("local", &format!("/{}/", domain.name.without_dot()));
            }
        }
        let Some(dns) = &self.dns else {
            conf.line("port=0");
            return Ok(());
        };
        if !dns.forward_plain_names {
            conf.line("domain-needed");
            conf.line("local=//");
        }
        if !dns.host_servers || dns.forwarders.iter().any(|f| f.domain.is_none()) {
            conf.line("no-resolv");
        }
        for forwarder in &dns.forwarders {
            let address = forwarder.server.map(|server| match server.port() {
                DNS_PORT => server.ip().to_string(),
                port => format!("{}#{port}", server.ip()),
            });
            let domain = forwarder.domain.as_ref().map(DnsName::without_dot);
            let server = match (domain, address) {
                (Some(domain), Some(address)) => format!("/{domain}/{address}"),
                (Some(domain), None) => format!("/{domain}/#"),
                (None, Some(address)) => address,
                (None, None) => return Err(ConfigError::Forwarder),
            };
            conf.value("server", &server);
        }
        conf.value("addn-hosts", &path(&self.files.dns_hosts)?);
        self.records(dns, conf)
    }

    fn records(&self, dns: &Dns, conf: &mut Lines) -> Result<(), ConfigError> {
        for Txt { name, value } in &dns.txt {
            let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
            let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(valid);
            if name.len() > 253 || !name.split('.').all(label) {
                return Err(ConfigError::Name { what: "the TXT name", text: name.clone() });
            }
            if value.len() > 255 {
                let (what, text) = ("the TXT value", value.clone());
                return Err(ConfigError::Long { what, text, limit: 255 });
            }
            conf.value("txt-record", &format!("{name},{}", quoted("the TXT value", value)?));
        }
        for srv in &dns.srv {
            let service = label("the SRV service", &srv.service)?;
            let protocol = label("the SRV protocol", &srv.protocol)?;
            let own = self.domain.as_ref().map(|domain| &domain.name);
            let domain = srv.domain.as_ref().or(own);
            let domain = domain.map(|name| format!(".{}", name.without_dot())).unwrap_or_default();
            let Srv { port, priority, weight, .. } = srv;
            let target = srv.target.as_ref();
            let target = target.map(DnsName::without_dot);
            let target = target.map(|name| format!(",{name},{port},{priority},{weight}"));
            let target = target.unwrap_or_default();
            conf.value("srv-host", &format!("_{service}._{protocol}{domain}{target}"));
        }
        Ok(())
    }

    fn dhcp(&self, conf: &mut Lines) -> Result<(), ConfigError> {
        if self.ranges.is_empty() {
            return Ok(());
        }
        for given in &self.ranges {
            conf.value("dhcp-range", &range(given));
        }
        conf.line("dhcp-authoritative");
        conf.line("dhcp-no-override");
        conf.value("dhcp-lease-max", &self.leases().to_string());
        conf.value("dhcp-leasefile", &path(&self.files.leases)?);
        conf.value("dhcp-hostsfile", &path(&self.files.dhcp_hosts)?);
        if !self.default_route {
            conf.line("dhcp-option=option:router");
        }
        if let Some(mtu) = self.mtu {
            conf.value("dhcp-option", &format!("option:mtu,{mtu}"));
        }
        let v6 = |range: &Range| !matches!(range, Range::V4 { .. } | Range::V4Hosts { .. });
        if self.ranges.iter().any(v6) {
            conf.line("enable-ra");
            let mtu = self.mtu.map(|mtu| format!(",mtu:{mtu}")).unwrap_or_default();
            // The interval keeps its default; a lifetime of 0 means "no default router".
            let lifetime = if self.default_route { "" } else { ",0" };
            if self.mtu.is_some() || !self.default_route {
                let interface = quoted("the interface", self.interface.as_str())?;
                conf.value("ra-param", &format!("{interface}{mtu},0{lifetime}"));
            }
        }
        Ok(())
    }

    /// Returns the number of possible leases.
    fn leases(&self) -> u128 {
        let count = |first: u128, last: u128| last.saturating_sub(first).saturating_add(1);
        let size = |range: &Range| match range {
            Range::V4 { start, end, .. } => count(u32::from(*start).into(), u32::from(*end).into()),
            Range::V6 { start, end, .. } => count((*start).into(), (*end).into()),
            _ => 0,
        };
        let ranges = self.ranges.iter().map(size).fold(0, u128::saturating_add);
        let hosts = (self.hosts.len() as u128 / HOSTS_STEP + 1) * HOSTS_STEP;
        ranges.saturating_add(hosts).min(MOST_LEASES)
    }
}

fn range(range: &Range) -> String {
    let (text, lease) = match range {
        Range::V4 { start, end, netmask, lease } => (format!("{start},{end},{netmask}"), *lease),
        Range::V4Hosts { subnet, netmask } => (format!("{subnet},static,{netmask}"), None),
        Range::V6 { start, end, prefix, lease } => (format!("{start},{end},{prefix}"), *lease),
        Range::V6Hosts { subnet, prefix } => (format!("{subnet},static,{prefix}"), None),
        Range::V6Announced { subnet, prefix } => (format!("{subnet},ra-only,{prefix}"), None),
    };
    match lease {
        Some(lease) => format!("{text},{}", time(lease)),
        None => text,
    }
}

fn time(lease: Lease) -> String {
    match lease {
        Lease::Seconds(seconds) => seconds.to_string(),
        Lease::Infinite => "infinite".to_owned(),
    }
}

/// Renders one line for each address: dnsmasq refuses a second line with the same address, but
/// accepts several MAC addresses in a line (dnsmasq(8), `--dhcp-host`).
fn dhcp_hosts(hosts: &[DhcpHost]) -> Result<String, ConfigError> {
    let mut cards: BTreeMap<IpAddr, Vec<&DhcpHost>> = BTreeMap::new();
    for host in hosts {
        if let (Client::Mac(_), Some(address)) = (&host.client, host.address) {
            cards.entry(address).or_default().push(host);
        }
    }
    let mut lines = String::new();
    for host in hosts {
        let (Client::Mac(mac), Some(address)) = (&host.client, host.address) else {
            lines.push_str(&dhcp_host(host)?);
            continue;
        };
        let Some(cards) = cards.remove(&address) else { continue };
        for card in &cards {
            if let Client::Mac(other) = &card.client
                && other != mac
            {
                // Writing to a string cannot fail.
                let _ = write!(lines, "{other},");
            }
        }
        let name = cards.iter().find_map(|card| card.name.clone());
        let lease = cards.iter().find_map(|card| card.lease);
        lines.push_str(&dhcp_host(&DhcpHost { name, lease, ..host.clone() })?);
    }
    Ok(lines)
}

fn dhcp_host(host: &DhcpHost) -> Result<String, ConfigError> {
    let mut parts = Vec::new();
    match &host.client {
        Client::Mac(mac) => parts.push(mac.to_string()),
        Client::Duid(id) => {
            let pair = |p: &str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
            // A DUID has a type and at most 128 bytes (RFC 8415, 11.1).
            if !id.split(':').all(pair) || !(3..=130).contains(&id.split(':').count()) {
                return Err(ConfigError::Duid(id.clone()));
            }
            parts.push(format!("id:{id}"));
        }
        Client::Name(name) => parts.push(name.to_string()),
    }
    match host.address {
        Some(std::net::IpAddr::V4(address)) => parts.push(address.to_string()),
        Some(std::net::IpAddr::V6(address)) => parts.push(format!("[{address}]")),
        None => {}
    }
    match (&host.client, &host.name) {
        (Client::Name(_), _) | (_, None) => {}
        (_, Some(name)) => parts.push(name.to_string()),
    }
    parts.extend(host.lease.map(time));
    Ok(format!("{}\n", parts.join(",")))
}

/// Renders one line for each name, since the length of a line is limited.
fn dns_host(host: &DnsHost) -> Result<String, ConfigError> {
    if host.names.is_empty() {
        return Err(ConfigError::Nameless(host.address));
    }
    Ok(host
        .names
        .iter()
        .map(|name| format!("{}\t{}\n", host.address, name.without_dot()))
        .collect())
}

/// Checks one label of an SRV name. dnsmasq accepts underscores in it.
fn label<'a>(what: &'static str, text: &'a str) -> Result<&'a str, ConfigError> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if (1..=62).contains(&text.len()) && text.bytes().all(valid) {
        Ok(text)
    } else {
        Err(ConfigError::Name { what, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cards_of_one_guest_have_one_line() {
        let host = |mac: &str, address: &str| DhcpHost {
            client: Client::Mac(mac.parse().unwrap()),
            address: Some(address.parse().unwrap()),
            name: Some("web".parse().unwrap()),
            lease: None,
        };
        let hosts = [
            host("52:54:00:00:00:01", "10.0.0.9"),
            host("52:54:00:00:00:02", "10.0.0.8"),
            host("52:54:00:00:00:03", "10.0.0.9"),
        ];
        assert_eq!(
            dhcp_hosts(&hosts).unwrap(),
            "52:54:00:00:00:03,52:54:00:00:00:01,10.0.0.9,web\n52:54:00:00:00:02,10.0.0.8,web\n"
        );
    }

    #[test]
    fn cards_without_a_name_or_lease_share_those_of_another() {
        let host = |mac: &str, name: Option<&str>, lease| DhcpHost {
            client: Client::Mac(mac.parse().unwrap()),
            address: Some("10.0.0.9".parse().unwrap()),
            name: name.map(|name| name.parse().unwrap()),
            lease,
        };
        let hosts = [
            host("52:54:00:00:00:01", None, Some(Lease::Seconds(600))),
            host("52:54:00:00:00:02", Some("web"), None),
        ];
        assert_eq!(
            dhcp_hosts(&hosts).unwrap(),
            "52:54:00:00:00:02,52:54:00:00:00:01,10.0.0.9,web,600\n"
        );
    }

    #[test]
    fn hosts_by_address_identifier_and_name() {
        let host = |client, address: &str, name: Option<&str>, lease| DhcpHost {
            client,
            address: Some(address.parse().unwrap()),
            name: name.map(|name| name.parse().unwrap()),
            lease,
        };
        let mac = Client::Mac("52:54:00:00:00:01".parse().unwrap());
        let duid = "00:03:00:01:52:54:00:00:00:01".to_owned();
        for (host, line) in [
            (
                host(mac, "10.0.0.9", Some("web"), Some(Lease::Infinite)),
                "52:54:00:00:00:01,10.0.0.9,web,infinite\n",
            ),
            (
                host(Client::Duid(duid.clone()), "fd00::9", Some("web"), None),
                "id:00:03:00:01:52:54:00:00:00:01,[fd00::9],web\n",
            ),
            (
                host(
                    Client::Name("db".parse().unwrap()),
                    "10.0.0.8",
                    None,
                    Some(Lease::Seconds(300)),
                ),
                "db,10.0.0.8,300\n",
            ),
        ] {
            assert_eq!(dhcp_host(&host).unwrap(), line);
        }
        for bad in ["", "00", "00:03:0", "00:03:zz", "00:03:00\n"] {
            let host = host(Client::Duid(bad.to_owned()), "fd00::9", None, None);
            assert_eq!(dhcp_host(&host), Err(ConfigError::Duid(bad.to_owned())));
        }
    }
}
