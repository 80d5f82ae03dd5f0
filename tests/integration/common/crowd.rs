//! Other ports on the host that fill the first table of nftables, so that the next port comes into
//! a further one.

use std::fs;

use netlaunch::firewall::port_nft::MOST_PORTS;
use serde_json::Value;

use super::{Netns, Sandbox, finish, run, text};

/// The filter of these ports.
const FILTER: &str =
    "<filter name='crowd'><rule action='drop' direction='out'><arp/></rule></filter>";

/// The name of the table of the next port.
pub const TABLE: &str = "netlaunch_nwfilter_2";

/// Makes these ports, z0 and so on, on a bridge of their own, and binds their filters. Only the
/// first one is bound by a command of its own: the others get a copy of its status file, and a
/// reload sets all rules.
pub fn fill_first_table(netns: &Netns, sandbox: &Sandbox) {
    let good = |args: &[&str]| {
        let output = finish(sandbox.netlaunch(args));
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    };
    let names: Vec<String> = (0..MOST_PORTS).map(|number| format!("z{number}")).collect();
    let mut lines = vec!["link add brz type bridge".to_owned()];
    for name in &names {
        lines.push(format!("tuntap add {name} mode tap"));
        lines.push(format!("link set {name} master brz"));
    }
    let file = sandbox.path("crowd");
    fs::write(&file, lines.join("\n")).unwrap();
    netns.ip(&format!("-batch {}", file.display()));
    fs::write(&file, FILTER).unwrap();
    good(&["nwfilter", "define", file.to_str().unwrap()]);
    good(&["nwfilter", "bind", "z0", "crowd", "--mac", "52:54:00:0c:0c:0c"]);
    let shown = run("ip", &["-n", &netns.name, "-o", "link", "show"]);
    let shown = text(&shown.stdout);
    let index = |name: &str| -> u64 {
        let is_it = |line: &&str| line.split(": ").nth(1) == Some(name);
        let line = shown.lines().find(is_it).unwrap();
        line.split(": ").next().unwrap().parse().unwrap()
    };
    let dir = sandbox.path("state/nwfilter/bindings");
    let first = index("z0");
    let status = fs::read_to_string(dir.join("z0.json")).unwrap();
    for name in names.iter().skip(1) {
        let own = index(name);
        let copy = status
            .replace(&format!("\"p{first}-"), &format!("\"p{own}-"))
            .replace("'z0'", &format!("'{name}'"))
            .replace("\"z0\"", &format!("\"{name}\""));
        let mut copy: Value = serde_json::from_str(&copy).unwrap();
        copy["index"] = own.into();
        copy["recorded"][0]["index"] = own.into();
        // As a version that had one table of the family netdev wrote it.
        copy["recorded"][0]["ingress"].as_object_mut().unwrap().remove("table");
        fs::write(dir.join(format!("{name}.json")), copy.to_string()).unwrap();
    }
    good(&["firewall", "reload"]);
}

/// Deletes these ports.
pub fn remove(netns: &Netns, sandbox: &Sandbox) {
    let lines: Vec<_> = (0..MOST_PORTS).map(|number| format!("link delete z{number}")).collect();
    let file = sandbox.path("crowd");
    fs::write(&file, lines.join("\n")).unwrap();
    netns.ip(&format!("-batch {}", file.display()));
}
