//! Tests how many processes an operation on a network runs; the tools themselves count. The
//! firewall needs at most one nft, or one save and one restore for each IP version.

use std::fs;
use std::process::Command;

use crate::common::{As, Netns, Sandbox, finish, have_root, text};

const NAT: &str = "<network><name>lab</name><uuid>0f8dd1a4-5d5c-4f6a-9d2e-000000000092</uuid>\
    <forward mode='nat'/><bridge name='nlt0' delay='0'/><mac address='52:54:00:00:00:92'/>\
    <ip address='10.92.0.1' netmask='255.255.255.0'><dhcp><range start='10.92.0.100' \
    end='10.92.0.200'/></dhcp></ip></network>";

/// Every program that an operation can run.
const TOOLS: [&str; 6] =
    ["nft", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore", "dnsmasq"];

struct Host {
    // Dropped first, since what it ends lives in the namespace.
    sandbox: Sandbox,
    _netns: Netns,
}

impl Host {
    fn new(backend: Option<&str>) -> Self {
        let netns = Netns::routed();
        let sandbox = Sandbox::new(As::Root, Some(&netns));
        let config = sandbox.path("config");
        fs::create_dir_all(config.join("networks")).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(sandbox.path(""), open).unwrap();
        let host = Host { sandbox, _netns: netns };
        host.define("lab", NAT);
        for name in TOOLS {
            host.tool(name, &format!("exec /usr/sbin/{name} \"$@\""));
        }
        host.backend(backend);
        host
    }

    fn define(&self, name: &str, xml: &str) {
        fs::write(self.sandbox.path(&format!("config/networks/{name}.xml")), xml).unwrap();
    }

    fn backend(&self, backend: Option<&str>) {
        let line = backend.map(|b| format!("firewall_backend = \"{b}\"\n")).unwrap_or_default();
        fs::write(self.sandbox.path("config/network.conf"), line).unwrap();
    }

    /// Puts a tool of this name before the real one; it says that it was run, and then does `body`.
    fn tool(&self, name: &str, body: &str) {
        let log = self.sandbox.path("run/ran");
        self.sandbox.script(name, &format!("echo {name} >> {}\n{body}", log.display()));
    }

    fn netlaunch(&self, line: &str) -> Command {
        let mut command = self.sandbox.netlaunch(&["-v"]);
        let bin = self.sandbox.path("bin");
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        command.args(line.split(' '));
        command
    }

    /// The tools that netlaunch runs for this, in their order, and its messages.
    fn ran(&self, line: &str) -> (Vec<String>, String) {
        let log = self.sandbox.path("run/ran");
        // dnsmasq has a user of its own.
        fs::write(&log, "").unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&log, open).unwrap();
        let output = finish(self.netlaunch(line));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        let ran = fs::read_to_string(&log).unwrap_or_default();
        (ran.lines().map(str::to_owned).collect(), said)
    }

    fn count(&self, line: &str) -> Vec<String> {
        let (programs, _) = self.ran(line);
        println!("{line}: {}", programs.join(", "));
        programs
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = finish(self.sandbox.netlaunch(&["network", "destroy", "lab"]));
    }
}

#[test]
fn each_operation_runs_nft_once() {
    if !have_root("each_operation_runs_nft_once") {
        return;
    }
    for setting in [Some("nftables"), None] {
        let host = Host::new(setting);
        assert_eq!(host.count("network start lab"), ["nft", "dnsmasq"], "{setting:?}");
        assert_eq!(host.count("firewall reload"), ["nft"], "{setting:?}");
        assert_eq!(host.count("network destroy lab"), ["nft"], "{setting:?}");
        assert_eq!(host.count("network list"), [] as [&str; 0]);
    }
}

#[test]
fn each_operation_runs_one_save_and_one_restore_for_each_ip_version() {
    if !have_root("each_operation_runs_one_save_and_one_restore_for_each_ip_version") {
        return;
    }
    let host = Host::new(Some("iptables"));
    let count = |line: &str| {
        let programs = host.count(line);
        let of = |is: &dyn Fn(&str) -> bool| programs.iter().filter(|p| is(p)).count();
        (of(&|p| p.contains("tables")), of(&|p| p == "nft"), of(&|p| p == "dnsmasq"))
    };
    assert_eq!(count("network start lab"), (4, 0, 1));
    // A version whose rules are there already needs no restore.
    assert!(matches!(count("firewall reload"), (2..=4, 0, 0)));
    assert_eq!(count("network destroy lab"), (4, 0, 0));
}

#[test]
fn a_change_of_backend_runs_nft_once() {
    if !have_root("a_change_of_backend_runs_nft_once") {
        return;
    }
    let host = Host::new(Some("iptables"));
    host.count("network start lab");
    for backend in ["nftables", "iptables"] {
        host.backend(Some(backend));
        let programs = host.count("firewall reload");
        assert_eq!(programs.iter().filter(|p| *p == "nft").count(), 1, "{programs:?}");
        assert_eq!(programs.len(), 5, "{programs:?}");
    }
}

#[test]
fn a_backend_that_does_not_work_is_tried_once_and_not_beside_a_network() {
    if !have_root("a_backend_that_does_not_work_is_tried_once_and_not_beside_a_network") {
        return;
    }
    let host = Host::new(None);
    let xml = NAT.replace("lab", "two").replace("10.92", "10.93").replace("nlt0", "nlt1");
    host.define("two", &xml.replace("000092", "000093").replace(":92'", ":93'"));
    host.tool(
        "nft",
        "echo 'Error: cache initialization failed: Protocol not supported' >&2; exit 1",
    );
    let (programs, said) = host.ran("network start lab");
    assert_eq!(programs.iter().filter(|p| *p == "nft").count(), 1, "{programs:?}");
    let why = "iptables is used, since nftables does not work: nft failed: cache initialization failed: Protocol not supported";
    assert!(said.contains(why), "{said}");
    let status = fs::read_to_string(host.sandbox.state().join("networks/lab/status.json")).unwrap();
    assert!(status.contains("\"backend\": \"iptables\""), "{status}");
    let (programs, _) = host.ran("network start two");
    assert!(!programs.contains(&"nft".to_owned()), "{programs:?}");
    for name in ["two", "lab"] {
        let (programs, _) = host.ran(&format!("network destroy {name}"));
        assert!(!programs.contains(&"nft".to_owned()), "{programs:?}");
    }
}

#[test]
fn a_named_backend_is_never_replaced() {
    if !have_root("a_named_backend_is_never_replaced") {
        return;
    }
    let host = Host::new(Some("nftables"));
    host.tool("nft", "echo 'Error: Protocol not supported' >&2; exit 1");
    let output = finish(host.netlaunch("network start lab"));
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert_eq!(plain_lines(&said), 1, "{said}");
    assert!(said.contains("nft failed: Protocol not supported"), "{said}");
    assert!(!host.sandbox.state().join("networks/lab").exists());
    // Without a name both say why they cannot.
    host.backend(None);
    host.tool("iptables-save", "echo 'modprobe: no ip_tables' >&2; exit 3");
    let output = finish(host.netlaunch("network start lab"));
    let said = text(&output.stderr);
    assert!(said.contains("no firewall backend can set the rules: nftables: nft failed"), "{said}");
    assert!(said.contains("iptables: iptables-save failed: modprobe: no ip_tables"), "{said}");
    assert_eq!(plain_lines(&said), 1, "{said}");
}

/// The number of lines that do not come from -v.
fn plain_lines(said: &str) -> usize {
    said.lines().filter(|line| !line.starts_with("netlaunch: debug: ")).count()
}

/// A guest can send and receive from the moment at which the bridge is turned on until it is off.
#[test]
fn the_rules_are_in_force_as_long_as_the_bridge_is_on() {
    if !have_root("the_rules_are_in_force_as_long_as_the_bridge_is_on") {
        return;
    }
    let host = Host::new(Some("nftables"));
    let log = host.sandbox.path("run/links");
    let look = format!("ip -o link show dev nlt0 >> {} 2>&1", log.display());
    // nft itself changes the rules between the two looks.
    host.tool("nft", &format!("{look}\n/usr/sbin/nft \"$@\"\nended=$?\n{look}\nexit $ended"));
    for verb in ["start", "destroy"] {
        let output = finish(host.netlaunch(&format!("network {verb} lab")));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let looks = fs::read_to_string(&log).unwrap();
        assert_eq!(looks.lines().count(), 2, "{verb}: {looks}");
        assert!(!looks.contains("UP"), "{verb}: {looks}");
        fs::remove_file(&log).unwrap();
    }
}
