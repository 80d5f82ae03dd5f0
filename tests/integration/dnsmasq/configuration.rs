//! The configuration that netlaunch writes for dnsmasq.

use super::*;

#[test]
fn the_default_network_gives_this_configuration() {
    let text = default(Files::in_dir(Path::new("/run/n"))).render().unwrap();
    assert_eq!(
        text.conf,
        "\
# Written by netlaunch when the network started; changes are lost.
interface=virbr0
except-interface=lo
bind-dynamic
strict-order
domain-needed
local=//
addn-hosts=/run/n/dnsmasq.dns-hosts
dhcp-range=192.168.122.2,192.168.122.254,255.255.255.0
dhcp-authoritative
dhcp-no-override
dhcp-lease-max=1277
dhcp-leasefile=/run/n/leases/dnsmasq.leases
dhcp-hostsfile=/run/n/dnsmasq.dhcp-hosts
"
    );
    assert_eq!((text.dhcp_hosts.as_str(), text.dns_hosts.as_str()), ("", ""));
}

#[test]
fn every_element_gives_this_configuration() {
    let text = everything(Files::in_dir(Path::new("/run/n")), Path::new("/srv/a,b")).render();
    let text = text.unwrap();
    assert_eq!(
        text.conf,
        r#"# Written by netlaunch when the network started; changes are lost.
interface=virbr0
except-interface=lo
bind-dynamic
strict-order
domain=guests.example
expand-hosts
local=/guests.example/
domain-needed
local=//
no-resolv
server=192.0.2.53
server=/corp.example/2001:db8::53#5353
server=/own_1.example/#
addn-hosts=/run/n/dnsmasq.dns-hosts
txt-record=motd.guests.example,"a, \"b\" \\ #c"
txt-record=_acme-challenge.guests.example,v
srv-host=_ldap._tcp.guests.example,gate.guests.example,389,1,2
srv-host=__a_b._tcp.lab_1,x_.lab_1,1,0,0
dhcp-range=192.168.122.100,192.168.122.199,255.255.255.0,600
dhcp-range=192.168.128.0,static,255.255.255.0
dhcp-range=fd00:1::1000,fd00:1::1fff,64,infinite
dhcp-range=fd00:2::,static,64
dhcp-range=fd00:3::,ra-only,64
dhcp-authoritative
dhcp-no-override
dhcp-lease-max=5220
dhcp-leasefile=/run/n/leases/dnsmasq.leases
dhcp-hostsfile=/run/n/dnsmasq.dhcp-hosts
dhcp-option=option:router
dhcp-option=option:mtu,1400
enable-ra
ra-param=virbr0,mtu:1400,0,0
enable-tftp
tftp-root="/srv/a,b"
dhcp-boot="pxe linux.0",,192.168.122.9
"#
    );
    assert_eq!(
        text.dhcp_hosts,
        "52:54:00:00:00:07,192.168.122.77,seven\neight,192.168.122.78\n\
         id:00:03:00:01:52:54:00:00:00:07,[fd00:1::77],seven,infinite\n"
    );
    assert_eq!(
        text.dns_hosts,
        "192.168.122.1\tgate\n192.168.122.1\t_gate.other.example\nfd00:1::1\tgate\n"
    );
}

#[test]
fn dnsmasq_accepts_the_configuration() {
    let dir = state();
    let files = Files::in_dir(dir.path());
    let longest =
        Txt { name: [63, 63, 63, 61].map(|n| "x".repeat(n)).join("."), value: "y".repeat(255) };
    let mut long = default(files.clone());
    long.dns.as_mut().unwrap().txt.push(longest);
    let mut closed = default(files.clone());
    closed.dns = None;
    for config in [default(files.clone()), everything(files.clone(), dir.path()), long, closed] {
        let text = config.render().unwrap();
        assert!(text.conf.lines().all(|line| line.len() < 1000), "dnsmasq reads no more");
        fs::write(&files.conf, &text.conf).unwrap();
        fs::write(&files.dhcp_hosts, &text.dhcp_hosts).unwrap();
        fs::write(&files.dns_hosts, &text.dns_hosts).unwrap();
        let output = Command::new(DNSMASQ).arg("--test").arg("-C").arg(&files.conf).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}\n{}", text.conf, crate::common::text(&output.stderr));
    }
}
