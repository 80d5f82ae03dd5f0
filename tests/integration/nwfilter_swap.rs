//! Tests `bind --replace` and `binding-update`: a bound port gets another filter, other parameters
//! or another MAC address in one transaction, or keeps what it has.

use std::fs;
use std::time::Duration;

use crate::common::frame::{Frame, OTHER, PEER, VM, mac_text};
use crate::common::port_scene::{PortScene, Station, done};
use crate::common::{finish, have_root, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const IP: &str = "IP=10.2.3.4";

/// Returns vnet0 in the output of `binding-list`.
fn vnet0(scene: &PortScene) -> Value {
    let list = scene.list();
    let bindings = list["bindings"].as_array().unwrap();
    bindings.iter().find(|binding| binding["port"] == "vnet0").cloned().unwrap_or_default()
}

fn bind(scene: &PortScene, args: &[&str]) -> Result<(), String> {
    done(scene.nwfilter(&[&["bind", "vnet0"], args].concat()))
}

fn replace(scene: &PortScene, args: &[&str]) -> Result<(), String> {
    bind(scene, &[args, &["--replace"]].concat())
}

fn udp(port: u16) -> Frame {
    Frame::udp(VM, PEER, 1, port)
}

/// Returns a rule that drops UDP to this port.
fn drops(port: u16) -> String {
    format!("<rule action='drop' direction='out'><udp dstportstart='{port}'/></rule>")
}

#[test]
fn a_parameter_that_no_rule_uses_is_reported() {
    if !have_root("a_parameter_that_no_rule_uses_is_reported") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let mac = mac_text(VM.mac);
    let bind = |parameter: &str| {
        let args = ["bind", "vnet0", "clean-traffic", "--mac", &mac, "-p", IP, "-p", parameter];
        let bound = scene.nwfilter(&[&args[..], &["--replace"]].concat());
        assert!(bound.status.success());
        String::from_utf8(bound.stderr).unwrap()
    };
    let said = bind("Ip=10.2.3.5");
    assert!(said.contains("the binding sets Ip, which no rule of the filter clean-traffic uses"));
    assert!(said.contains("its variables are IP, MAC"), "{said}");
    assert!(!bind("CTRL_IP_LEARNING=none").contains("the binding sets"));
}

#[test]
fn a_bound_port_gets_another_filter_only_with_replace() {
    if !have_root("a_bound_port_gets_another_filter_only_with_replace") {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let scene = PortScene::new(Some(backend));
        scene.define("one", &drops(1001)).unwrap();
        scene.define("two", &drops(1002)).unwrap();
        let mac = mac_text(VM.mac);
        bind(&scene, &["one", "--mac", &mac]).unwrap();
        assert!(!scene.leaves(&udp(1001)) && scene.leaves(&udp(1002)));
        let rules = scene.ruleset();
        let said = bind(&scene, &["two"]).unwrap_err();
        assert!(said.contains("bind --replace"), "{said}");
        assert_eq!(scene.ruleset(), rules);
        let said = scene.nwfilter(&["bind", "vnet0", "two", "--replace"]);
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains(&mac) && said.contains("present binding"), "{said}");
        assert!(scene.leaves(&udp(1001)) && !scene.leaves(&udp(1002)));
        assert_eq!((vnet0(&scene)["filter"].as_str(), vnet0(&scene)["mac"].as_str()), {
            (Some("two"), Some(mac.as_str()))
        });
        // The same binding again changes nothing.
        let (rules, listed) = (scene.ruleset(), scene.list());
        replace(&scene, &["two"]).unwrap();
        assert_eq!((scene.ruleset(), scene.list()), (rules, listed));
        done(scene.nwfilter(&["unbind", "vnet0"])).unwrap();
        assert!(scene.leaves(&udp(1001)) && scene.leaves(&udp(1002)));
    }
}

#[test]
fn a_swap_moves_the_port_to_the_backend_of_the_settings() {
    if !have_root("a_swap_moves_the_port_to_the_backend_of_the_settings") {
        return;
    }
    let scene = PortScene::new(Some("iptables"));
    scene.foreign_rules();
    let before = scene.ruleset();
    scene.define("one", &drops(1001)).unwrap();
    bind(&scene, &["one", "--mac", &mac_text(VM.mac)]).unwrap();
    scene.settings("firewall_backend = \"nftables\"\n");
    replace(&scene, &["clean-traffic", "-p", IP]).unwrap();
    assert_eq!(scene.backend_of(Station::Vnet0), "nftables");
    assert!(!scene.ruleset().contains("nl-"), "{}", scene.ruleset());
    scene.settings("firewall_backend = \"iptables\"\n");
    replace(&scene, &["one"]).unwrap();
    assert_eq!(scene.backend_of(Station::Vnet0), "iptables");
    assert!(!scene.leaves(&udp(1001)) && scene.leaves(&udp(1002)));
    scene.unbind(Station::Vnet0);
    assert_eq!(scene.ruleset(), before);
}

#[test]
fn a_swap_that_fails_leaves_the_rules_and_the_status_as_they_were() {
    if !have_root("a_swap_that_fails_leaves_the_rules_and_the_status_as_they_were") {
        return;
    }
    for (backend, tool) in [("nftables", "nft"), ("iptables", "iptables-restore")] {
        let scene = PortScene::new(Some(backend));
        scene.define("one", &drops(1001)).unwrap();
        scene.define("two", &drops(1002)).unwrap();
        bind(&scene, &["one", "--mac", &mac_text(VM.mac)]).unwrap();
        let file = scene.sandbox.path("state/nwfilter/bindings/vnet0.json");
        let before = (scene.ruleset(), fs::read_to_string(&file).unwrap());
        scene.sandbox.script(tool, "echo broken >&2; exit 1");
        let args = ["bind", "vnet0", "two", "--replace"];
        let failed = scene.nwfilter_with_path(&scene.sandbox.path("bin"), &args);
        let said = done(failed).unwrap_err();
        assert!(said.contains("broken"), "{said}");
        let marker = scene.sandbox.path("state/nwfilter/bindings/.unsettled");
        assert!(!marker.exists(), "{backend}");
        // A mistake is found before anything changes.
        for (args, words) in [
            (["nosuch", "-p", IP], "no filter is called nosuch"),
            (["clean-traffic-gateway", "-p", IP], "GATEWAY_MAC"),
        ] {
            let said = replace(&scene, &args).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        assert_eq!((scene.ruleset(), fs::read_to_string(&file).unwrap()), before, "{backend}");
    }
}

#[test]
fn the_learner_and_the_address_survive_a_swap_that_permits_them() {
    if !have_root("the_learner_and_the_address_survive_a_swap_that_permits_them") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let mac = mac_text(VM.mac);
    let learned = || {
        scene.leaves(&Frame::arp(VM, PEER, 1));
        vnet0(&scene)["learning"]["address"] == json!(VM.v4)
    };
    bind(&scene, &["clean-traffic", "--mac", &mac]).unwrap();
    assert!(wait_until(LIMIT, learned), "{}", vnet0(&scene));
    let pid = vnet0(&scene)["learning"]["pid"].clone();
    assert!(pid.is_u64());
    // The same guest and method: learner and address stay.
    replace(&scene, &["clean-traffic-strict"]).unwrap();
    assert_eq!(vnet0(&scene)["learning"]["pid"], pid);
    assert_eq!(vnet0(&scene)["learning"]["address"], json!(VM.v4));
    assert!(scene.leaves(&udp(1)) && !scene.leaves(&Frame::udp(OTHER, PEER, 1, 2)));
    // With --wait, the address that is known is printed.
    let args = ["bind", "vnet0", "clean-traffic", "--replace", "--wait"];
    let output = scene.nwfilter(&args);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", VM.v4));
    // DHCP alone does not accept an address from ARP: another learner begins.
    replace(&scene, &["clean-traffic", "-p", "CTRL_IP_LEARNING=dhcp"]).unwrap();
    assert_eq!(vnet0(&scene)["learning"]["address"], Value::Null);
    let other = vnet0(&scene)["learning"]["pid"].clone();
    assert!(other.is_u64() && other != pid, "{}", vnet0(&scene));
    assert!(!scene.leaves(&udp(1)));
    // A filter that needs no address ends the learner, and one that needs it starts another.
    replace(&scene, &["no-mac-spoofing"]).unwrap();
    assert_eq!(vnet0(&scene)["learning"], Value::Null);
    assert!(scene.leaves(&udp(1)));
    replace(&scene, &["clean-traffic"]).unwrap();
    assert!(!scene.leaves(&Frame::udp6(VM, PEER, 1, 2)));
    assert!(wait_until(LIMIT, learned), "{}", vnet0(&scene));
    // Another MAC address is another guest.
    replace(&scene, &["clean-traffic", "--mac", &mac_text(OTHER.mac)]).unwrap();
    assert_eq!(vnet0(&scene)["learning"]["address"], Value::Null);
    assert!(!scene.leaves(&udp(1)));
    // A fixed address needs no learner.
    replace(&scene, &["clean-traffic", "-p", IP, "--mac", &mac]).unwrap();
    assert_eq!(vnet0(&scene)["learning"], Value::Null);
    assert!(scene.leaves(&udp(1)));
    scene.unbind(Station::Vnet0);
}

#[test]
fn a_swap_turns_on_a_port_that_was_off() {
    if !have_root("a_swap_turns_on_a_port_that_was_off") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.sandbox.script("nft", "echo broken >&2; exit 1");
    let binding = scene.binding(Station::Vnet0, "clean-traffic", &[]);
    let bin = scene.sandbox.path("bin");
    let failed = scene.nwfilter_with_path(&bin, &["binding-create", &binding]);
    assert!(done(failed).unwrap_err().contains("turned off"));
    let is_up = || scene.netns.says("ip", &["-o", "link", "show", "dev", "vnet0"]).contains(",UP");
    assert!(!is_up());
    replace(&scene, &["clean-traffic", "-p", IP]).unwrap();
    assert!(is_up() && scene.leaves(&udp(1)));
    assert_eq!(vnet0(&scene)["state"], "in-force");
    scene.unbind(Station::Vnet0);
}

#[test]
fn binding_update_is_the_swap_by_document_and_needs_a_bound_port() {
    if !have_root("binding_update_is_the_swap_by_document_and_needs_a_bound_port") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("two", &drops(1002)).unwrap();
    let update = || {
        let binding = scene.binding(Station::Vnet0, "two", &[]);
        done(scene.nwfilter(&["binding-update", &binding]))
    };
    let said = update().unwrap_err();
    assert!(said.contains("the port vnet0 has no filter"), "{said}");
    scene.bind(Station::Vnet0, "clean-traffic", &[("IP", "10.2.3.4")]).unwrap();
    update().unwrap();
    assert!(!scene.leaves(&udp(1002)) && scene.leaves(&udp(1001)));
    scene.unbind(Station::Vnet0);
}

#[test]
fn the_guest_s_address_comes_from_the_bridge_or_the_other_end_and_is_never_guessed() {
    if !have_root("the_guest_s_address_comes_from_the_bridge_or_the_other_end_and_is_never_guessed")
    {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let said = bind(&scene, &["no-mac-spoofing"]).unwrap_err();
    assert!(said.contains("learned none") && said.contains("--mac"), "{said}");
    // The bridge of the scene learns nothing itself.
    let learns =
        |mac| scene.sh(&format!("bridge fdb add {} dev vnet0 master static", mac_text(mac)));
    learns(VM.mac);
    let output = scene.nwfilter(&["bind", "vnet0", "no-mac-spoofing"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&mac_text(VM.mac)) && said.contains("br0 has learned it"), "{said}");
    assert_eq!(vnet0(&scene)["mac"], mac_text(VM.mac));
    assert_eq!(vnet0(&scene)["owner"], "vnet0");
    scene.unbind(Station::Vnet0);
    learns(OTHER.mac);
    let said = bind(&scene, &["no-mac-spoofing"]).unwrap_err();
    assert!(said.contains(&mac_text(VM.mac)) && said.contains(&mac_text(OTHER.mac)), "{said}");
    scene.netns.ip("link add veth0 type veth peer name inside0 address 52:54:00:00:77:01");
    scene.netns.ip("link set veth0 master br0");
    done(scene.nwfilter(&["bind", "veth0", "no-mac-spoofing"])).unwrap();
    assert!(scene.list().to_string().contains("52:54:00:00:77:01"));
}

#[test]
fn a_bind_that_waits_begins_when_the_port_is_on_a_bridge() {
    if !have_root("a_bind_that_waits_begins_when_the_port_is_on_a_bridge") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    let mac = mac_text(VM.mac);
    let args = ["nwfilter", "bind", "late0", "no-mac-spoofing", "--mac", &mac, "--wait"];
    let mut waits = crate::common::start(scene.sandbox.netlaunch(&args));
    let dir = scene.sandbox.path("state/nwfilter/bindings");
    scene.netns.ip("link add late0 type veth peer name inside0");
    assert!(waits.0.try_wait().unwrap().is_none() && !dir.join("late0.json").exists());
    scene.netns.ip("link set late0 master br0");
    let output = waits.output(LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dir.join("late0.json").exists());
    // An interface that cannot join a bridge is refused at once.
    let args = ["nwfilter", "bind", "lo", "no-mac-spoofing", "--mac", &mac, "--wait"];
    let said = done(finish(scene.sandbox.netlaunch(&args))).unwrap_err();
    assert!(said.contains("loopback"), "{said}");
}

#[test]
fn beside_other_ports_nft_fetches_one_chain_or_runs_again_without_the_list() {
    if !have_root("beside_other_ports_nft_fetches_one_chain_or_runs_again_without_the_list") {
        return;
    }
    let scene = PortScene::new(Some("nftables"));
    scene.define("one", &drops(1001)).unwrap();
    scene.define("two", &drops(1002)).unwrap();
    let (bin, input) = (scene.sandbox.path("bin"), scene.sandbox.path("run/input"));
    let nft = |refuses: &str| {
        let body = format!(
            "tee -a {0} > {0}.last\n{refuses}\nexec /usr/sbin/nft \"$@\" < {0}.last",
            input.display()
        );
        scene.sandbox.script("nft", &body);
    };
    let ends_with_list = || {
        let text = fs::read_to_string(&input).unwrap();
        fs::remove_file(&input).unwrap();
        let lists = text.lines().filter(|line| line.starts_with("list ")).count();
        let lists_least = "list chain bridge netlaunch_nwfilter guard-from\n\
                           list set bridge netlaunch_nwfilter empty\n";
        (lists, text.ends_with(lists_least))
    };
    let mac = mac_text(VM.mac);
    let bound = |args: &[&str]| {
        let args = [&["bind", "vnet0"], args, &["--mac", mac.as_str()]].concat();
        done(scene.nwfilter_with_path(&bin, &args)).unwrap();
    };
    nft("");
    bound(&["one"]);
    assert_eq!(ends_with_list(), (0, false), "the first port of the table");
    scene.bind(Station::Vnet1, "one", &[]).unwrap();
    bound(&["two", "--replace"]);
    assert_eq!(ends_with_list(), (2, true));
    assert!(scene.leaves(&udp(1001)) && !scene.leaves(&udp(1002)));
    let list = format!("grep -q ^list {}.last", input.display());
    nft(&format!("if {list}; then echo '/dev/stdin:1:1-4: Error: syntax error' >&2; exit 1; fi"));
    bound(&["one", "--replace"]);
    assert_eq!(ends_with_list(), (2, false), "nft ran again without the list");
    assert!(!scene.leaves(&udp(1001)) && scene.leaves(&udp(1002)));
}
