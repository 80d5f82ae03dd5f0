//! Tests the texts for the firewall tools, and their effect with the real tools: a transaction
//! leaves nothing behind and does not change the rules of others.

mod failures;

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{As, Netns, Sandbox, have_root};
use netlaunch::firewall::conflicts::{self, Guests, Listings};
use netlaunch::firewall::rules::{
    AddressRange, Mode, NetworkRules, Packets, Rule, Ruleset, Verdict, Version, for_network,
};
use netlaunch::firewall::{
    ApplyError, FirewallBackend, RemovalRecord, Tools, Transaction, choose, scripts, transact,
    usable,
};
use netlaunch::sys::program::Lookup;

const CASES: [&str; 6] =
    ["nat", "nat-everything", "nat-ipv6-addresses", "route", "isolated", "open"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/firewall").join(name)
}

/// The network that a fixture describes.
fn network(case: &str) -> NetworkRules {
    let file = fs::read_to_string(fixture(&format!("{case}.toml"))).unwrap();
    let file: toml::Table = file.parse().unwrap();
    let word = |key: &str| file.get(key).map(|value| value.as_str().unwrap().to_owned());
    let words = |key: &str| -> Vec<String> {
        let list = file[key].as_array().unwrap();
        list.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let is = |key: &str| file.get(key).is_some_and(|value| value.as_bool().unwrap());
    let devs = word("dev").iter().map(|dev| dev.parse().unwrap()).collect();
    let addresses = word("addresses").map(|range| {
        let (first, last) = range.split_once('-').unwrap();
        match (first.parse().unwrap(), last.parse().unwrap()) {
            (std::net::IpAddr::V4(first), std::net::IpAddr::V4(last)) => {
                AddressRange::V4(first, last)
            }
            (std::net::IpAddr::V6(first), std::net::IpAddr::V6(last)) => {
                AddressRange::V6(first, last)
            }
            _ => panic!("{range}"),
        }
    });
    let port = |value: &toml::Value| u16::try_from(value.as_integer().unwrap()).unwrap();
    let ports = file.get("ports").map(|ports| port(&ports[0])..=port(&ports[1]));
    let serves = words("serves");
    let serves = |what: &str| serves.iter().any(|s| s == what);
    NetworkRules {
        bridge: "virbr0".parse().unwrap(),
        mode: match word("mode").unwrap().as_str() {
            "isolated" => Mode::Isolated,
            "nat" => Mode::Nat { devs, addresses, ports, ipv6: is("ipv6") },
            "route" => Mode::Route { devs },
            _ => Mode::Open,
        },
        subnets: words("subnets").iter().map(|subnet| subnet.parse().unwrap()).collect(),
        ipv6_between_guests: is("ipv6_between_guests"),
        dhcp: serves("dhcp"),
        dns: serves("dns"),
        tftp: serves("tftp"),
    }
}

/// The case's network, and another on `virbr1` with other subnets.
fn two_networks(case: &str) -> [Vec<Ruleset>; 2] {
    let other = NetworkRules {
        bridge: "virbr1".parse().unwrap(),
        subnets: vec!["192.168.99.1/24".parse().unwrap(), "fd00:99::1/64".parse().unwrap()],
        ..network("nat")
    };
    [for_network(&network(case)).unwrap(), for_network(&other).unwrap()]
}

#[test]
fn rules_give_these_texts() {
    for case in CASES {
        let rulesets = for_network(&network(case)).unwrap();
        let mut golden = String::new();
        for backend in FirewallBackend::ORDER {
            for script in scripts(backend, &rulesets) {
                let head = [&[script.program], script.args].concat().join(" ");
                golden.push_str(&format!("== {head}\n{}", script.input));
            }
            let recorded = RemovalRecord::new(backend, &rulesets);
            let removal = match &recorded {
                RemovalRecord::Nftables { own, tables } => format!("{own}-- or\n{tables}"),
                RemovalRecord::Iptables { .. } => {
                    serde_json::to_string_pretty(&recorded).unwrap() + "\n"
                }
            };
            golden.push_str(&format!("== removal by {backend}\n{removal}"));
            let json = serde_json::to_string(&recorded).unwrap();
            assert_eq!(serde_json::from_str::<RemovalRecord>(&json).unwrap(), recorded);
        }
        let file = fixture(&format!("{case}.txt"));
        if std::env::var_os("NETLAUNCH_TEST_BLESS").is_some() {
            fs::write(&file, &golden).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(golden, expected, "{case} (NETLAUNCH_TEST_BLESS=1 writes {})", file.display());
    }
}

/// A host with rules of others, in a namespace of its own.
struct Host {
    netns: Netns,
    tools: Tools,
}

impl Host {
    fn new() -> Self {
        let host = Host { netns: Netns::bare(), tools: Tools::find(&[]) };
        for tool in ["iptables", "ip6tables"] {
            for args in [
                "-P FORWARD DROP",
                "-N DOCKER-USER",
                "-A FORWARD -j DOCKER-USER",
                "-A INPUT -p tcp --dport 22 -j ACCEPT",
                "-A OUTPUT -o eth7 -j DROP",
                "-t nat -A POSTROUTING -o eth7 -j MASQUERADE",
            ] {
                host.sh(&format!("{tool} {args}"));
            }
        }
        host.sh("nft add table inet filter");
        host.sh(
            "nft add chain inet filter input '{ type filter hook input priority 0; policy drop; }'",
        );
        host.sh("nft add rule inet filter input ct state established,related accept");
        host
    }

    fn sh(&self, script: &str) -> String {
        self.netns.sh(script)
    }

    /// All rules of all tools.
    fn state(&self) -> String {
        let shown = self.sh("nft list ruleset; iptables-save; ip6tables-save");
        // Times of day.
        shown.lines().filter(|line| !line.starts_with('#')).map(|l| format!("{l}\n")).collect()
    }

    fn run<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.netns.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work)
        })
    }

    fn transact(
        &self,
        backend: FirewallBackend,
        remove: &[RemovalRecord],
        add: &[Vec<Ruleset>],
        others: bool,
    ) -> Result<Vec<RemovalRecord>, ApplyError> {
        self.run(transact(&self.tools, backend, &Transaction { remove, add, others }))
    }
}

#[test]
fn removal_leaves_the_host_as_it_was() {
    if !have_root("removal_leaves_the_host_as_it_was") {
        return;
    }
    let host = Host::new();
    let before = host.state();
    for case in CASES {
        for backend in FirewallBackend::ORDER {
            let [one, two] = two_networks(case);
            let first = host.transact(backend, &[], &[one], false).unwrap();
            let with_first = host.state();
            assert_eq!(with_first == before, case == "open", "{case}: {backend} adds something");
            let second = host.transact(backend, &[], &[two], true).unwrap();
            host.transact(backend, &second, &[], true).unwrap();
            if case != "open" && case != "isolated" && backend == FirewallBackend::Iptables {
                assert_eq!(host.state(), with_first, "{case}: {backend} leaves the other network");
            }
            host.transact(backend, &first, &[], false).unwrap();
            assert_eq!(host.state(), before, "{case}: {backend} leaves nothing");
            // Once more, where nothing is left to remove.
            host.transact(backend, &first, &[], false).unwrap();
            assert_eq!(host.state(), before, "{case}: {backend} removes nothing twice");
        }
    }
}

#[test]
fn applying_again_changes_nothing() {
    if !have_root("applying_again_changes_nothing") {
        return;
    }
    for backend in FirewallBackend::ORDER {
        let host = Host::new();
        let before = host.state();
        let both = two_networks("nat-everything");
        let recorded = host.transact(backend, &[], &both, false).unwrap();
        let applied = host.state();
        for remove in [&[][..], &recorded[..], &recorded[..1]] {
            assert_eq!(host.transact(backend, remove, &both, false).unwrap(), recorded);
            assert_eq!(sorted(&host.state()), sorted(&applied), "{backend}");
        }
        // Others' rules that come later at the head of a chain stay, behind ours.
        if backend == FirewallBackend::Iptables {
            host.sh("iptables -I FORWARD -i eth9 -j DROP");
            host.transact(backend, &recorded, &both, false).unwrap();
            let forward = host.sh("iptables -S FORWARD");
            let rules: Vec<_> = forward.lines().skip(1).collect();
            assert_eq!(rules[..2], ["-A FORWARD -j NETLAUNCH_FWD", "-A FORWARD -i eth9 -j DROP"]);
            host.sh("iptables -D FORWARD -i eth9 -j DROP");
        }
        host.transact(backend, &recorded, &[], false).unwrap();
        assert_eq!(host.state(), before, "{backend}");
    }
}

/// The lines in alphabetical order: nft lists chains and elements in the order they were made in.
fn sorted(state: &str) -> Vec<&str> {
    let bare = |line| {
        let line = str::trim(line).trim_start_matches("elements = { ");
        line.trim_end_matches([',', '}', ' '])
    };
    let mut lines: Vec<_> = state.lines().map(bare).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn removal_and_reapply_work_after_a_flush() {
    if !have_root("removal_and_reapply_work_after_a_flush") {
        return;
    }
    for backend in FirewallBackend::ORDER {
        let host = Host::new();
        let both = two_networks("nat-everything");
        let recorded = host.transact(backend, &[], &both, false).unwrap();
        let applied = host.state();
        let ours = |state: &str| -> Vec<String> {
            let words = ["netlaunch", "NETLAUNCH", "nl-"];
            let of_ours = |line: &&str| words.iter().any(|word| line.contains(word));
            sorted(state).into_iter().filter(of_ours).map(str::to_owned).collect()
        };
        for add in [&both[..], &both[..1], &[]] {
            host.sh("nft flush ruleset");
            let again = host.transact(backend, &recorded, add, false).unwrap();
            assert_eq!(again, recorded[..add.len()]);
            match add.len() {
                2 => assert_eq!(ours(&host.state()), ours(&applied), "{backend}"),
                0 => assert_eq!(ours(&host.state()), [] as [String; 0], "{backend}"),
                _ => assert!(!host.state().contains("virbr1"), "{backend}"),
            }
        }
        // One of two, when neither is there.
        host.sh("nft flush ruleset");
        host.transact(backend, &recorded[..1], &[], true).unwrap();
        host.transact(backend, &[], &both, false).unwrap();
        assert_eq!(ours(&host.state()), ours(&applied), "{backend}");
    }
}

#[test]
fn rules_of_others_that_stop_guests_are_named() {
    let guests = Guests {
        bridge: "virbr0".parse().unwrap(),
        subnets: vec!["192.168.122.1/24".parse().unwrap()],
        forwarded: true,
        guarded: true,
        filtered_within: Vec::new(),
        dhcp: true,
        dns: true,
        tftp: false,
        published: Vec::new(),
        uplinks: vec!["eth0".to_owned()],
    };
    let mut golden = String::new();
    for host in
        ["docker", "docker-allowed", "ufw", "firewalld", "default-drop", "default-drop-allowed"]
    {
        let read =
            |kind: &str| fs::read_to_string(fixture(&format!("conflict-{host}.{kind}"))).unwrap();
        let (nft, saved) = (read("json"), read("txt"));
        let listings = Listings { nft: Some(&nft), iptables: Some(&saved), ..Listings::default() };
        golden.push_str(&format!("== {host}\n"));
        for f in conflicts::find(&listings, &guests).unwrap() {
            golden.push_str(&format!(
                "{}, {}: {}\n  {}\n  {}\n",
                f.table,
                f.chain,
                f.why,
                f.fix(),
                f.note
            ));
        }
    }
    let file = fixture("conflicts.txt");
    if std::env::var_os("NETLAUNCH_TEST_BLESS").is_some() {
        fs::write(&file, &golden).unwrap();
    }
    assert_eq!(golden, fs::read_to_string(&file).unwrap_or_default());
    let rubbish = Listings { nft: Some("nft: nonsense"), ..Listings::default() };
    assert!(conflicts::find(&rubbish, &guests).is_err());
}

#[test]
fn every_entry_leads_to_a_chain() {
    for case in CASES {
        for ruleset in for_network(&network(case)).unwrap() {
            for entry in &ruleset.entries {
                assert!(ruleset.chains.iter().any(|chain| chain.name == entry.chain));
                if let Packets::LeavingWithSource(subnet) = &entry.packets {
                    assert_eq!(Version::of(subnet), ruleset.version);
                }
            }
        }
    }
}
