//! Tests `netlaunch firewall check` against the rules that docker, ufw and administrators make: it
//! names the rules that drop the packets, the commands that it prints let the packets through, and
//! it changes nothing itself.

mod bridge_rules;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Output;
use std::time::Duration;

use crate::common::{As, Netns, Sandbox, finish, have_root, run, skipped, text, wait_until};
use serde_json::Value;

/// docker's chains, as its daemon makes them, with either iptables.
const DOCKER: &str = "
IPT -P FORWARD DROP
IPT -N DOCKER; IPT -N DOCKER-USER; IPT -N DOCKER-ISOLATION-STAGE-1; IPT -N DOCKER-ISOLATION-STAGE-2
IPT -A FORWARD -j DOCKER-USER
IPT -A FORWARD -j DOCKER-ISOLATION-STAGE-1
IPT -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
IPT -A FORWARD -o docker0 -j DOCKER
IPT -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
IPT -A FORWARD -i docker0 -o docker0 -j ACCEPT
IPT -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
IPT -A DOCKER-ISOLATION-STAGE-1 -j RETURN
IPT -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
IPT -A DOCKER-ISOLATION-STAGE-2 -j RETURN
IPT -A DOCKER-USER -j RETURN
IPT -t nat -N DOCKER
IPT -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
";

/// ufw's chains after `ufw enable`, as far as packets go through them (before.rules, after.rules).
const UFW: &str = "
IPT -P INPUT DROP; IPT -P FORWARD DROP
for c in before-logging-input before-input after-input after-logging-input reject-input \
         before-forward after-forward reject-forward user-input user-forward not-local \
         skip-to-policy-input skip-to-policy-forward logging-deny; do IPT -N ufw-$c; done
for c in before-logging-input before-input after-input after-logging-input reject-input; do
    IPT -A INPUT -j ufw-$c; done
for c in before-forward after-forward reject-forward; do IPT -A FORWARD -j ufw-$c; done
IPT -A ufw-before-input -i lo -j ACCEPT
IPT -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
IPT -A ufw-before-input -m conntrack --ctstate INVALID -j DROP
IPT -A ufw-before-input -p icmp --icmp-type echo-request -j ACCEPT
IPT -A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
IPT -A ufw-before-input -j ufw-not-local
IPT -A ufw-before-input -d 224.0.0.251 -p udp --dport 5353 -j ACCEPT
IPT -A ufw-before-input -j ufw-user-input
IPT -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
IPT -A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
IPT -A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN
IPT -A ufw-not-local -m limit --limit 3/min -j ufw-logging-deny
IPT -A ufw-not-local -j DROP
IPT -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
IPT -A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
IPT -A ufw-before-forward -j ufw-user-forward
for p in 137 138 67 68; do IPT -A ufw-after-input -p udp --dport $p -j ufw-skip-to-policy-input; done
IPT -A ufw-skip-to-policy-input -j DROP
";

/// A stand-in for ufw with the two kinds of command that netlaunch prints: ufw-framework(8).
const UFW_COMMAND: &str = r#"
chain=ufw-user-input; ports=
if [ "$1" = route ]; then chain=ufw-user-forward; shift; fi
case $3 in in) dir=-i;; out) dir=-o;; esac
[ "$1 $2" = "allow $2" ] && case $2 in in) dir=-i;; out) dir=-o;; esac
dev=$4; port=${8:-}; proto=${10:-}
case $port in
'') iptables -A $chain $dir $dev -j ACCEPT;;
*) for p in ${proto:-tcp udp}; do iptables -A $chain $dir $dev -p $p --dport $port -j ACCEPT; done;;
esac"#;

/// A default-drop table as in nftables' own examples, and one as firewalld's: both hooks, a jump to
/// another chain, a verdict map, a refusal at the end.
const DEFAULT_DROP: &str = "
nft -f - <<'END'
table inet guard {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname lo accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    tcp dport 22 accept
  }
  chain forward { type filter hook forward priority 10; policy accept;
    ct state { established, related } accept
    jump others
    reject with icmpx type admin-prohibited
  }
  chain others { iifname \"other0\" oifname \"up0\" accept; }
}
END
";

struct Host {
    netns: Netns,
    guest: Netns,
    outside: Netns,
    sandbox: Sandbox,
}

impl Host {
    /// A running network, a guest on its bridge and a server outside.
    fn new(xml: &str, backend: &str) -> Self {
        let [netns, guest, outside] = [(); 3].map(|()| Netns::bare());
        netns.ip(&format!("link add up0 type veth peer name eth0 netns {}", outside.name));
        netns.ip("link set up0 up");
        netns.ip("address add 203.0.113.1/24 dev up0");
        netns.ip("-6 address add 2001:db8:f::1/64 dev up0 nodad");
        netns.ip("route add default via 203.0.113.2");
        outside.ip("link set eth0 up");
        outside.ip("address add 203.0.113.2/24 dev eth0");
        outside.ip("-6 address add 2001:db8:f::2/64 dev eth0 nodad");
        outside.ip("-6 route add default via 2001:db8:f::1");
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let config = sandbox.path("config");
        fs::create_dir_all(config.join("networks")).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(sandbox.path(""), open).unwrap();
        fs::write(config.join("networks/lab.xml"), xml).unwrap();
        fs::write(config.join("network.conf"), format!("firewall_backend = \"{backend}\"\n"))
            .unwrap();
        let host = Host { netns, guest, outside, sandbox };
        host.good("network start lab");
        host.netns
            .ip(&format!("link add port0 type veth peer name eth0 netns {}", host.guest.name));
        host.netns.ip("link set port0 master nlt0 up");
        host.guest.ip("link set eth0 up");
        host.guest.ip("address add 10.91.0.9/24 dev eth0");
        host.guest.ip("route add default via 10.91.0.1");
        host
    }

    fn netlaunch(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split(' ').collect();
        finish(self.sandbox.netlaunch(&words))
    }

    fn good(&self, line: &str) -> String {
        let output = self.netlaunch(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn sh(&self, script: &str) -> String {
        let path = format!("PATH={}:$PATH; ", self.sandbox.path("bin").display());
        let script = format!("{path}{script}");
        self.netns.sh(&script)
    }

    /// All rules of all tools, handles and all, without times.
    fn rules(&self) -> String {
        let listings = "nft -a list ruleset; iptables-save; ip6tables-save; \
                        iptables-legacy-save; cat /proc/net/ip_tables_names";
        self.sh(listings).lines().filter(|l| !l.starts_with('#')).fold(String::new(), |all, l| {
            all + l.split(" packets ").next().unwrap_or(l).split(" [").next().unwrap_or(l) + "\n"
        })
    }

    /// Returns the findings. The status fits them, and the rules are the same before and after.
    fn check(&self) -> Vec<Value> {
        let before = self.rules();
        let output = self.netlaunch("firewall check --json");
        assert_eq!(self.rules(), before);
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        crate::common::schema::valid("firewall-check", &value);
        let bridge = &value["bridges"][0];
        assert_eq!((&bridge["network"], &bridge["bridge"]), (&"lab".into(), &"nlt0".into()));
        let findings = bridge["findings"].as_array().unwrap().clone();
        assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())));
        findings
    }

    /// Whether packets go beyond the host and back.
    fn reaches_outside(&self) -> bool {
        reaches(&self.guest, &self.outside, "203.0.113.2:8080")
    }

    /// Whether dnsmasq gives a lease within this number of requests. A client that gets one ends at
    /// once.
    fn has_lease(&self, requests: u32) -> bool {
        let argv = format!(
            "netns exec {} busybox udhcpc -i eth0 -n -q -f -t {requests} -T 1 -s /bin/true",
            self.guest.name
        );
        let output = run("ip", &argv.split(' ').collect::<Vec<_>>());
        (text(&output.stdout) + &text(&output.stderr)).contains("lease of 10.91.0.")
    }

    /// Whether dnsmasq answers a question.
    fn has_dns(&self) -> bool {
        self.guest.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03gw1\x03lab\x00\x00\x01\x00\x01";
            (0..3).any(|_| {
                socket.send_to(question, "10.91.0.1:53").is_ok()
                    && socket.recv(&mut [0; 512]).is_ok()
            })
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.netlaunch("network destroy lab");
    }
}

fn reaches(from: &Netns, to: &Netns, address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    let _server = to.inside(|| TcpListener::bind(address).unwrap());
    from.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
}

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000091</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0' stp='off'/><mac address='52:54:00:00:00:91'/>\
    <domain name='lab' localOnly='yes'/><ip address='10.91.0.1' netmask='255.255.255.0'><dhcp>\
    <range start='10.91.0.100' end='10.91.0.200'/></dhcp></ip></network>";

fn places(findings: &[Value]) -> Vec<String> {
    let word = |f: &Value, key: &str| f[key].as_str().unwrap().to_owned();
    findings.iter().map(|f| format!("{}, {}", word(f, "table"), word(f, "chain"))).collect()
}

/// Runs the printed commands, word for word, in a shell.
fn apply(host: &Host, findings: &[Value]) {
    for finding in findings {
        host.sh(finding["fix"].as_str().unwrap());
    }
}

/// Applies the fix of what the host itself refuses, then that of what it does not forward: each
/// lets through what it is about, and nothing is found after both.
fn input_then_forward(host: &Host, findings: &[Value]) {
    apply(host, &findings[..1]);
    assert!(host.has_lease(60) && host.has_dns() && !host.reaches_outside());
    apply(host, &findings[1..]);
    assert!(host.reaches_outside());
    assert_eq!(places(&host.check()), [] as [&str; 0]);
}

fn docker(tool: &str, label: &str) {
    if !have_root("docker") {
        return;
    }
    let host = Host::new(NAT, "nftables");
    assert_eq!(places(&host.check()), [] as [&str; 0]);
    assert!(host.reaches_outside() && host.has_lease(60));
    host.sh(&DOCKER.replace("IPT", tool));
    assert!(!host.reaches_outside(), "docker's policy drops");
    let found = host.check();
    assert_eq!(places(&found), [format!("{label} filter, FORWARD")]);
    let why = found[0]["why"].as_str().unwrap();
    assert!(why.starts_with("docker's: the chain has the policy drop and so stops"), "{why}");
    // The rule that it names is the rule that drops.
    host.sh(&format!("{tool} -P FORWARD ACCEPT"));
    assert!(host.reaches_outside());
    host.sh(&format!("{tool} -P FORWARD DROP"));
    apply(&host, &found);
    assert!(host.sh(&format!("{tool} -S DOCKER-USER")).contains("-i nlt0 -j ACCEPT"));
    assert!(host.reaches_outside() && host.has_lease(60));
    assert_eq!(places(&host.check()), [] as [&str; 0]);
}

#[test]
fn check_names_the_rules_of_docker_in_iptables_nft() {
    docker("iptables", "iptables");
}

#[test]
fn check_names_the_rules_of_docker_in_legacy_iptables() {
    docker("iptables-legacy", "iptables-legacy");
}

#[test]
fn check_names_no_rule_of_docker_behind_those_of_netlaunch() {
    if !have_root("check_names_no_rule_of_docker_behind_those_of_netlaunch") {
        return;
    }
    let host = Host::new(NAT, "iptables");
    host.sh(&DOCKER.replace("IPT", "iptables"));
    assert!(host.reaches_outside());
    assert_eq!(places(&host.check()), [] as [&str; 0]);
    // A refusal that comes before ours does.
    host.sh("iptables -I FORWARD -i nlt0 -j DROP");
    assert!(!host.reaches_outside());
    let found = host.check();
    assert_eq!(places(&found), ["iptables filter, FORWARD"]);
    apply(&host, &found);
    assert!(host.reaches_outside());
    assert_eq!(places(&host.check()), [] as [&str; 0]);
}

#[test]
fn check_names_the_rules_of_ufw_with_a_fix_that_works() {
    if !have_root("check_names_the_rules_of_ufw_with_a_fix_that_works") {
        return;
    }
    let host = Host::new(NAT, "nftables");
    host.sandbox.script("ufw", UFW_COMMAND);
    host.sh(&UFW.replace("IPT", "iptables"));
    assert!(!host.reaches_outside() && !host.has_lease(4) && !host.has_dns());
    let found = host.check();
    assert_eq!(places(&found), ["iptables filter, INPUT", "iptables filter, FORWARD"]);
    let why = found[0]["why"].as_str().unwrap();
    assert!(why.contains("ufw-skip-to-policy-input") && why.contains("DNS"), "{why}");
    input_then_forward(&host, &found);
}

#[test]
fn check_names_a_table_that_drops_by_default_with_a_fix_that_works() {
    if !have_root("check_names_a_table_that_drops_by_default_with_a_fix_that_works") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let host = Host::new(NAT, backend);
        host.sh(DEFAULT_DROP);
        assert!(!host.reaches_outside() && !host.has_lease(4) && !host.has_dns(), "{backend}");
        let found = host.check();
        assert_eq!(places(&found), ["inet guard, input", "inet guard, forward"]);
        input_then_forward(&host, &found);
    }
}

/// nft 1.0.6 prints the flags of a table from freed memory: with a set behind them, the listing of
/// a dormant table is no JSON.
#[test]
fn check_reads_the_other_tables_beside_dormant_ones() {
    if !have_root("check_reads_the_other_tables_beside_dormant_ones") {
        return;
    }
    let host = Host::new(NAT, "nftables");
    host.sh(
        "nft 'add table ip a { flags dormant; }; add set ip a s { type mark; flags timeout; }; \
         add element ip a s { 1 }; \
         add chain ip a f { type filter hook forward priority 0; policy drop; }'",
    );
    assert_eq!(host.check(), [Value::Null; 0]);
    host.sh(DEFAULT_DROP);
    host.sh("nft 'add table ip netlaunch_network { flags dormant; }'");
    let found = host.check();
    let places = places(&found);
    assert!(places.contains(&"inet guard, forward".to_owned()), "{found:#?}");
    let kinds: Vec<&str> = found.iter().filter_map(|finding| finding["kind"].as_str()).collect();
    assert!(kinds.contains(&"rules missing"), "{kinds:?}");
}
