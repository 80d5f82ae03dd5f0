//! Tests that the options in `<dnsmasq:options>` and the ports of forwarders reach the network's
//! real dnsmasq, and that options which touch more than its answers are refused.

use std::process::{Child, Command, Stdio};

use crate::common::definitions::Host;
use crate::common::network_host::NetworkHost;
use crate::common::{AT_MOST, Netns, have_root, wait_until};

const LAB: &str = "<network xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
    <name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-0000000000d0</uuid><forward mode='nat'/>\
    <bridge name='nlt0'/><mac address='52:54:00:00:00:d0'/>\
    <dns><forwarder domain='far.example' addr='127.0.0.1' port='5355'/></dns>\
    <ip address='10.99.0.1' prefix='24'><dhcp><range start='10.99.0.100' end='10.99.0.200'/>\
    </dhcp></ip><d:options><d:option value='address=/apps.lab.example/10.99.0.77'/>\
    <d:option value='txt-record=note.lab.example,\"two, strings\"'/>\
    <d:option value='dhcp-option=option:ntp-server,10.99.0.5'/>\
    <d:option value='dhcp-authoritative'/><d:option value='bind-dynamic'/></d:options></network>";

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn options_and_ports_of_forwarders_reach_dnsmasq() {
    if !have_root("options_and_ports_of_forwarders_reach_dnsmasq") {
        return;
    }
    let host = NetworkHost::new(LAB);
    let far = ["netns", "exec", &host.netns.name, "dnsmasq", "--keep-in-foreground", "--port=5355"];
    let mut command = Command::new("ip");
    let far = command
        .args(far)
        .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--conf-file=/dev/null"])
        .args(["--no-resolv", "--no-hosts", "--pid-file=", "--address=/far.example/192.0.2.99"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _far = Ended(far.spawn().unwrap());
    host.good("network start lab");
    let guest = Netns::bare();
    host.netns.ip(&format!("link add port0 type veth peer name eth0 netns {}", guest.name));
    host.netns.ip("link set port0 master nlt0 up");
    guest.ip("link set eth0 up");
    guest.ip("address add 10.99.0.9/24 dev eth0");
    let ask = |kind: &str, name: &str| {
        let kind = format!("-type={kind}");
        guest.says("busybox", &["nslookup", &kind, name, "10.99.0.1"])
    };
    let answers = |kind: &str, name: &str, answer: &str| {
        let mut said = String::new();
        let found = wait_until(AT_MOST, || {
            said = ask(kind, name);
            said.contains(answer)
        });
        assert!(found, "{kind} {name}: {said}");
    };
    answers("a", "x.apps.lab.example", "10.99.0.77");
    answers("txt", "note.lab.example", "two, strings");
    answers("a", "www.far.example", "192.0.2.99");
    let script = host.sandbox.path("udhcpc.script");
    // The shell writes the file, so that no child of this test can hold it open for writing.
    host.sh(&format!("printf '#!/bin/sh\\nset\\n' > {0}; chmod 755 {0}", script.display()));
    let client = format!("udhcpc -f -q -n -i eth0 -t 5 -T 1 -O ntpsrv -s {}", script.display());
    let lease = guest.says("busybox", &client.split(' ').collect::<Vec<_>>());
    assert!(lease.contains("ntpsrv='10.99.0.5'"), "{lease}");

    // A start that dnsmasq refuses leaves nothing.
    host.sh("ip link delete port0");
    host.good("network destroy lab");
    let before = host.state();
    let bad = LAB.replace("txt-record=note.lab.example", "dhcp-option=option:nosuch");
    std::fs::write(host.sandbox.path("config/networks/lab.xml"), bad).unwrap();
    let said = host.bad("network start lab", 125);
    assert!(said.contains("dnsmasq"), "{said}");
    assert_eq!(host.state(), before);
}

/// Options that are refused, and words of the reason and the fix.
const REFUSED: &[(&str, &str)] = &[
    ("conf-file=/tmp/a", "the option conf-file is refused, because it makes dnsmasq read or write"),
    ("dhcp-script=/tmp/a", "it makes dnsmasq run a program"),
    ("user=root", "it changes the user that dnsmasq runs as"),
    ("interface=eth0", "it changes the interfaces, addresses or ports"),
    ("bind-interfaces", "it changes the interfaces, addresses or ports"),
    ("dhcp-lease-max=9", "is set already, from the ranges in <dhcp>"),
    ("listen-address=0.0.0.0", "it changes the interfaces, addresses or ports"),
    (" tftp-root = /etc", "write &lt;tftp"),
    ("addn-hosts=/etc/hosts", "write <host> in <dns>"),
    ("log-facility=/etc/cron.d/x", "writes a file of the host"),
    ("server=8.8.8.8@eth0", "the value of server names an interface of the host: remove '@'"),
    ("server=/x/fe80::1%eth0", "the value of server names an interface of the host: remove '@' or"),
    ("ra-param=eth0,60", "the value of ra-param names an interface of the host: write '*'"),
    ("dhcp-range=::1,constructor:eth0", "write the addresses in place of 'constructor:'"),
    ("domain=lab.example,eth0", "write an address, a subnet or 'local' after the domain"),
    ("no-such-option=1", "is not an option that is known to be safe"),
    ("", "is not an option that is known to be safe"),
    ("address=/a/1.2.3.4&#10;user=root", "an option is one line"),
];

#[test]
fn options_that_touch_more_than_the_answers_are_refused_by_name() {
    let host = Host::of("network");
    for (option, reason) in REFUSED {
        let text = format!(
            "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
             <name>n</name><ip address='10.77.1.1' prefix='24'/><dnsmasq:options>\n\
             <dnsmasq:option value='{option}'/></dnsmasq:options></network>"
        );
        let said = host.bad(&format!("define {}", host.file("n.xml", &text)), 2);
        let reason = reason.replace("&lt;", "<");
        assert!(said.contains(&reason) && said.contains("n.xml:2:"), "{option}: {said}");
        assert!(said.contains("value of <dnsmasq:option>"), "{option}: {said}");
    }
    for (body, reason) in [
        ("", "the network has no DNS, DHCP or TFTP server that could have options"),
        ("<forward mode='bridge'/><bridge name='br0'/>", "<dnsmasq:options> has no effect"),
    ] {
        let text = format!(
            "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
             <name>n</name>{body}<dnsmasq:options><dnsmasq:option value='no-hosts'/>\
             </dnsmasq:options></network>"
        );
        let said = host.bad(&format!("define {}", host.file("n.xml", &text)), 2);
        assert!(said.contains(reason), "{body}: {said}");
    }
    let range = "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
                 <name>n</name><ip address='10.77.1.1' prefix='24'/><dnsmasq:options>\
                 <dnsmasq:option value='dhcp-range=10.77.1.9,10.77.1.20'/></dnsmasq:options>\
                 </network>";
    let said = host.bad(&format!("define {}", host.file("n.xml", range)), 2);
    assert!(said.contains("dhcp-range needs a DHCP server"), "{said}");
}
