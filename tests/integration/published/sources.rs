//! The published ports with addresses from each real source, beside docker's and firewalld's rules:
//! a reservation, a lease of dnsmasq, a filter, the kernel's neighbour table, and a lease that
//! changes.

use super::strict::{docker, firewalld, let_published_pass};
use super::*;
use crate::common::AT_MOST;
use crate::common::dhcp_guest::{lease, lease_v6};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The bridge's addresses, with DHCP. The first guest has no reservation, and the second has.
pub(super) const ADDRESSES: &str = "<ip address='10.60.0.1' netmask='255.255.255.0'><dhcp>\
     <range start='10.60.0.100' end='10.60.0.200'/>\
     <host mac='52:54:00:00:60:07' ip='10.60.0.7'/></dhcp></ip>\
     <ip family='ipv6' address='fd00:60::1' prefix='64'><dhcp>\
     <range start='fd00:60::100' end='fd00:60::200'/>\
     <host id='00:03:00:01:52:54:00:00:60:07' ip='fd00:60::7'/></dhcp></ip>";

/// The card with the reservation.
const RESERVED: &str = "52:54:00:00:60:07";

/// The source of a guest's address.
#[derive(Debug, Clone, Copy)]
enum Source {
    Reserved,
    Leased,
    /// IPv4 by the learner of a filter, IPv6 by the neighbour table.
    Learned,
    Seen,
    /// The guest had another lease before.
    Changed,
}

/// The address that an IA_NA option (RFC 8415, 21.4) of a reply has.
fn leased_address(reply: &[u8]) -> Ipv6Addr {
    let at = reply.windows(4).position(|bytes| bytes == [0, 5, 0, 24]);
    let at = at.unwrap_or_else(|| panic!("no address: {reply:?}")) + 4;
    let bytes: [u8; 16] = reply[at..at + 16].try_into().unwrap();
    bytes.into()
}

impl Scene {
    /// Leaves the first guest without an address, with the routes that it needs later.
    fn without_address(&self, mac: &str) {
        self.guest.ip("address flush dev eth0 scope global");
        self.guest.ip(&format!("link set eth0 address {mac}"));
    }

    fn lease_both(&self, more: &[&str], duid: &[u8]) -> GuestAddress {
        let v4: Ipv4Addr = lease(&self.guest, more).parse().unwrap();
        let v6 = leased_address(&lease_v6(&self.guest, duid, 1));
        self.set_addresses(v4, v6)
    }

    fn set_addresses(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> GuestAddress {
        self.guest.ip(&format!("address replace {v4}/24 dev eth0"));
        self.guest.ip(&format!("address replace {v6}/64 dev eth0 nodad"));
        self.guest.ip("route replace default via 10.60.0.1");
        self.guest.ip("-6 route replace default via fd00:60::1");
        self.wait_for_addresses();
        GuestAddress { ipv4: Some(v4), ipv6: Some(v6) }
    }

    /// Gives the guest its address in the way of the source. Returns the address that the guest
    /// has, and the one that its filter has learned.
    fn address_from(&self, source: Source) -> (GuestAddress, Option<Ipv4Addr>) {
        let duid = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0x60, 2];
        match source {
            // No packet of the guest is needed.
            Source::Reserved => {
                self.without_address(RESERVED);
                (self.set_addresses([10, 60, 0, 7].into(), "fd00:60::7".parse().unwrap()), None)
            }
            Source::Leased => {
                self.without_address(MAC);
                (self.lease_both(&[], &duid), None)
            }
            Source::Changed => {
                self.without_address(MAC);
                let first = self.lease_both(&[], &duid);
                assert_eq!(self.found(MAC, GuestAddress::default(), None), first);
                self.publish_guest(&PublishedGuest {
                    address: first,
                    ..self.published(&PUBLISHED, 2)
                });
                assert_eq!(self.table(), expected(OUTSIDE.0, OUTSIDE.1), "before the change");
                // dnsmasq knows the leases of a client by its identifier. The second lease ends
                // later, by the clock of seconds.
                std::thread::sleep(Duration::from_millis(1100));
                self.without_address(MAC);
                let second =
                    self.lease_both(&["-x", "0x3d:0199"], &[0, 3, 0, 1, 0x52, 0x54, 0, 0, 0x60, 2]);
                assert_ne!(first.ipv4, second.ipv4);
                (second, None)
            }
            Source::Learned | Source::Seen => {
                self.without_address(MAC);
                let set =
                    self.set_addresses([10, 60, 0, 44].into(), "fd00:60::44".parse().unwrap());
                let learned = matches!(source, Source::Learned).then(|| self.learned_address());
                for (version, gateway) in [("-4", "10.60.0.1"), ("-6", "fd00:60::1")] {
                    let words = ["ping", version, "-c", "1", "-W", "20", gateway];
                    let asked = self.guest.says("busybox", &words);
                    assert!(asked.contains(" 0% packet loss"), "{asked}");
                }
                (set, learned)
            }
        }
    }

    /// Runs netlaunch on the host, with the state and configuration of the network.
    fn netlaunch(&self, args: &[&str]) -> String {
        let dir = self.dir.path().display();
        let words: Vec<String> = args.iter().map(|word| format!("'{word}'")).collect();
        self.sh(&format!(
            "PATH={dir}/bin:$PATH NETLAUNCH_CONFIG_DIR={dir}/config NETLAUNCH_STATE_DIR={dir}/state \
             {} {}",
            env!("CARGO_BIN_EXE_netlaunch"),
            words.join(" "),
        ))
    }

    /// Binds a filter that learns the guest's address from its packets. Returns the address once
    /// it is learned. The filter goes then, since it lets no IPv6 pass.
    fn learned_address(&self) -> Ipv4Addr {
        let backend = format!("firewall_backend = \"{}\"\n", self.tools.backend());
        fs::write(self.dir.path().join("config/nwfilter.conf"), backend).unwrap();
        let learning = "CTRL_IP_LEARNING=any";
        self.netlaunch(&[
            "nwfilter",
            "bind",
            "port2",
            "clean-traffic",
            "--mac",
            MAC,
            "-p",
            learning,
        ]);
        let address = || {
            self.guest.says("busybox", &["ping", "-4", "-c", "1", "-W", "1", "10.60.0.1"]);
            let list = self.netlaunch(&["nwfilter", "binding-list", "--json"]);
            let list: serde_json::Value = serde_json::from_str(&list).unwrap();
            list["bindings"][0]["learning"]["address"].as_str().map(|text| text.parse().unwrap())
        };
        let mut learned = None;
        assert!(wait_until(AT_MOST, || {
            learned = address();
            learned.is_some()
        }));
        self.netlaunch(&["nwfilter", "unbind", "port2"]);
        learned.unwrap()
    }

    /// The address that the follower of a launch finds.
    fn found(&self, mac: &str, before: GuestAddress, learned: Option<Ipv4Addr>) -> GuestAddress {
        let mac = mac.parse().unwrap();
        let found =
            self.with(async |manager| manager.guest_address(&lab(), mac, before, learned).await);
        found.unwrap()
    }
}

const OUTSIDE: (&str, &str) = ("203.0.113.2", "2001:db8:f::2");

fn ports_lead_to_the_address_of_each_source(tools: Tools) {
    for source in [Source::Reserved, Source::Leased, Source::Learned, Source::Seen, Source::Changed]
    {
        let test = "ports_lead_to_the_address_of_each_source";
        let Some(scene) = Scene::new(test, tools, WITH_DHCP) else { return };
        docker(&scene);
        let_published_pass(&scene);
        firewalld(&scene);
        let (has, learned) = scene.address_from(source);
        let mac = if matches!(source, Source::Reserved) { RESERVED } else { MAC };
        if matches!(source, Source::Learned) {
            scene.sh("ip -4 neigh flush dev nlp0");
        }
        let before = scene.with(async |manager| {
            let entry = scene.published(&[], 2);
            manager.published(&lab(), &entry.tap, entry.index).unwrap()
        });
        let before = before.map(|guest| guest.address).unwrap_or_default();
        let address = scene.found(mac, before, learned);
        assert_eq!(address, has, "{tools:?} {source:?}");
        let mac = mac.parse().unwrap();
        scene.publish_guest(&PublishedGuest { mac, address, ..scene.published(&PUBLISHED, 2) });
        assert_eq!(scene.table(), expected(OUTSIDE.0, OUTSIDE.1), "{tools:?} {source:?}");
    }
}

#[test]
fn ports_lead_to_the_address_of_each_source_on_nftables() {
    ports_lead_to_the_address_of_each_source(Tools::Nftables);
}

#[test]
fn ports_lead_to_the_address_of_each_source_on_iptables() {
    ports_lead_to_the_address_of_each_source(Tools::Iptables);
}

#[test]
fn ports_lead_to_the_address_of_each_source_on_legacy_iptables() {
    ports_lead_to_the_address_of_each_source(Tools::Legacy);
}
