//! Tests that network documents which libvirt accepts are accepted, and give dnsmasq what they ask
//! for.

use crate::common::definitions::Host;

#[test]
fn documents_that_libvirt_accepts_are_defined() {
    let host = Host::of("network");
    for (body, kept) in [
        ("<uuid/><ip address='10.77.1.1' prefix='24'/>", "<uuid>"),
        ("<uuid> </uuid><ip address='10.77.1.1' prefix='24'/>", "<uuid>"),
        ("<ip address='10.77.1.1'/>", "netmask='255.0.0.0'"),
        ("<ip address='172.30.1.1'/>", "netmask='255.255.0.0'"),
        ("<ip address='192.168.77.1'/>", "netmask='255.255.255.0'"),
        ("<ip family='ipv6' address='fd00:77::1'/>", "prefix='64'"),
        ("<domain name=''/>", "<name>n</name>"),
        (
            "<ip address='10.77.1.1' prefix='24'><dhcp><range start='10.77.1.1' end='10.77.1.9'/></dhcp></ip>",
            "<range start='10.77.1.1' end='10.77.1.9'/>",
        ),
        (
            "<ip address='10.77.1.1' prefix='24'><dhcp><host mac='52:54:00:00:00:02' name='my_vm' ip='10.77.1.2'/></dhcp></ip>",
            "name='my_vm'",
        ),
        (
            "<dns><host ip='10.77.1.2'><hostname>my_vm</hostname></host></dns>",
            "<hostname>my_vm</hostname>",
        ),
        (
            "<ip address='10.77.1.1' prefix='24'><dhcp><host mac='52:54:00:00:00:02' name='a' ip='10.77.1.2'/><host mac='52:54:00:00:00:03' name='a' ip='10.77.1.2'/></dhcp></ip>",
            "52:54:00:00:00:03",
        ),
        (
            "<ip address='10.77.1.1' prefix='24'><dhcp><host mac='52:54:00:00:00:02' ip='10.77.1.2'/><host mac='52:54:00:00:00:03' name='a' ip='10.77.1.2'/></dhcp></ip>",
            "52:54:00:00:00:03",
        ),
        (
            "<ip address='10.77.1.1' prefix='24'/><route address='0.0.0.0' gateway='10.77.1.2'/>",
            "<route address='0.0.0.0' netmask='0.0.0.0'",
        ),
    ] {
        let text = format!(
            "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>n</name>{body}</network>"
        );
        host.good(&format!("define {}", host.file("n.xml", &text)));
        let dumped = host.good("dumpxml n");
        assert!(dumped.contains(kept), "{body}: {dumped}");
        assert!(!dumped.contains("<domain"), "{dumped}");
        host.good(&format!("define {}", host.file("n.xml", &dumped)));
        assert_eq!(host.good("dumpxml n"), dumped);
        host.good("undefine n");
    }
}

#[test]
fn a_network_name_may_have_a_space() {
    let host = Host::of("network");
    let text = "<network><name>my lab</name><ip address='10.77.9.1' prefix='24'/></network>";
    host.good(&format!("define {}", host.file("n.xml", text)));
    assert!(host.path("config/networks/my lab.xml").exists());
    assert!(host.good("list").contains("my lab"));
    let output = host.command("dumpxml").arg("my lab").output().unwrap();
    assert!(output.status.success());
}
