//! Tests `netlaunch nwfilter explain` and `check`: `explain` gives the measured verdicts of the
//! conformance cases, if they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{finish, skipped, text};
use netlaunch::nwfilter::explain::{Dependency, EvalPath, Judge, Verdict};
use netlaunch::nwfilter::{Binding, Filters, compile, flatten, parse, stock, stock_names};
use serde_json::Value;

/// The measured cases: NETLAUNCH_CONFORMANCE, or beside the sources.
fn cases() -> Option<PathBuf> {
    let dir = std::env::var_os("NETLAUNCH_CONFORMANCE")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance"));
    let given = dir.join("given");
    if given.is_dir() {
        return Some(given);
    }
    let reason = format_args!("no conformance cases in {} (NETLAUNCH_CONFORMANCE)", dir.display());
    skipped("explain_gives_the_measured_verdicts", reason);
    None
}

pub fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Numbers in a frame at a place.
fn short(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Returns whether a frame belongs to the class of an exception: frames on which the reference
/// does not show what the documentation means.
fn excused(class: &str, frame: &[u8]) -> bool {
    match class {
        "arp-hardware" => short(frame, 12) == 0x0806 && [12, 18].contains(&short(frame, 14)),
        "stp-type" => short(frame, 12) < 0x600 && frame[14..16] == [0x42; 2] && frame[20] > 0,
        "ah-ipv6" => short(frame, 12) == 0x86dd && frame[20] == 51,
        other => panic!("no rule for the exceptions of the class {other}"),
    }
}

/// Whether no bridge forwards the frame, whatever a filter says: its source is a group or nobody,
/// or its destination is one of the addresses that are for the bridge itself (IEEE 802.1Q, 8.6.3),
/// the bridge group's own aside.
fn stays_at_bridge(frame: &[u8]) -> bool {
    let reserved = frame[..5] == [0x01, 0x80, 0xc2, 0, 0] && (1..16).contains(&frame[5]);
    reserved || frame[6] & 1 == 1 || frame[6..12] == [0; 6]
}

/// Exceptions of a case: whether a frame's verdict is the opposite, or not compared.
struct Exceptions {
    turned: BTreeSet<u64>,
    excused: BTreeSet<u64>,
    classes: Vec<String>,
}

impl Exceptions {
    fn of(all: &Value, name: &str) -> Self {
        let mut own = Exceptions { turned: [].into(), excused: [].into(), classes: vec![] };
        for entry in all.as_array().unwrap() {
            let pattern = entry["filter"].as_str().unwrap();
            let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
            let matches = if pattern.contains('*') {
                name.contains(start.trim_end_matches('*'))
                    && (end.is_empty() || name.contains(end.trim_matches('*')))
            } else {
                pattern == name
            };
            if !matches {
                continue;
            }
            let numbers =
                |key: &str| entry[key].as_array().into_iter().flatten().filter_map(Value::as_u64);
            own.turned.extend(numbers("frames"));
            own.excused.extend(numbers("undone_by_another"));
            if entry.get("frame").is_some() {
                own.classes.push(entry["class"].as_str().unwrap().to_owned());
            }
        }
        own
    }
}

#[test]
fn explain_gives_the_measured_verdicts() {
    let Some(given) = cases() else { return };
    let exceptions: Value =
        serde_json::from_slice(&fs::read(given.join("exceptions.json")).unwrap()).unwrap();
    let mut names: Vec<_> = fs::read_dir(&given).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let (mut total, mut same, mut undecided) = (0, 0, 0);
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in names.iter().filter(|path| !path.ends_with("exceptions.json")) {
        let case: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let name = case["name"].as_str().unwrap();
        if case.get("expect_error").is_some() {
            continue;
        }
        let exceptions = Exceptions::of(&exceptions, name);
        let mut filters: Filters =
            stock_names().map(|name| (name.clone(), stock(&name).unwrap().unwrap())).collect();
        let extra = case["extra_filters"].as_array().unwrap();
        for xml in extra.iter().chain([&case["filter_xml"]]) {
            let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().unwrap();
            let filter = parse(xml.as_str().unwrap().as_bytes(), Some(uuid)).unwrap();
            filters.insert(filter.name.clone(), filter);
        }
        let binding = Binding::parse(case["binding_xml"].as_str().unwrap().as_bytes()).unwrap();
        let parts = flatten(&filters[&binding.filter], &filters, &binding.variables()).unwrap();
        let (rules, _) = compile(&parts).unwrap();
        let mut judge = Judge::new(&rules);
        // After a frame that depends on the number of connections, the tracked ones are unknown.
        let mut unknown = false;
        let frames = case["frames"].as_array().unwrap();
        for (number, (frame, verdict)) in
            frames.iter().zip(case["verdicts"].as_array().unwrap()).enumerate()
        {
            let raw = bytes(frame["hex"].as_str().unwrap());
            let way = if frame["dir"] == "in" { EvalPath::In } else { EvalPath::Out };
            let explained = judge.judge(way, &raw, raw.len()).unwrap();
            let Some(verdict) = verdict.as_u64() else { continue };
            // Nor does the host take packets from nobody (RFC 1122, 3.2.1.3), and who listened
            // there when this was measured did not hear the reserved protocol.
            let unheard = || short(&raw, 12) == 0x0800 && (raw[26..30] == [0; 4] || raw[23] == 255);
            if stays_at_bridge(&raw)
                || (frame["dir"] == "host" && unheard())
                || exceptions.excused.contains(&(number as u64))
                || exceptions.classes.iter().any(|class| excused(class, &raw))
            {
                continue;
            }
            let depends = explained.stages.iter().flat_map(|stage| &stage.depends);
            unknown |= depends.into_iter().any(|(on, _)| matches!(on, Dependency::Connections(_)));
            if unknown || explained.verdict == Verdict::Undecided {
                undecided += 1;
                continue;
            }
            let expected = (verdict == 1) != exceptions.turned.contains(&(number as u64));
            total += 1;
            if (explained.verdict == Verdict::Pass) == expected {
                same += 1;
                continue;
            }
            let text = format!("#{number} {} {}: {explained}", frame["dir"], frame["desc"]);
            wrong.entry(name.to_owned()).or_default().push(text);
        }
    }
    eprintln!("{same} of {total} frames as measured, {undecided} undecided");
    for (name, wrong) in &wrong {
        eprintln!("{name}: {} differ", wrong.len());
        wrong.iter().take(4).for_each(|line| eprintln!("    {line}"));
    }
    assert!(total > 10_000);
    assert!(wrong.is_empty());
}

/// A DHCP request of the guest 52:54:00:11:22:33, up to its ports.
pub const DHCP: &str = "ffffffffffff5254001122330800450000300000000040110000000000\
                    00ffffffff00440043001c0000000000000000000000000000000000000000000000";

/// The program's standard output, standard error and exit status.
pub fn run_netlaunch(config: &Path, args: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netlaunch"));
    command
        .arg("nwfilter")
        .args(args)
        .env_clear()
        .env("NETLAUNCH_CONFIG_DIR", config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = finish(command);
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn one_line_says_what_decides() {
    let dir = tempfile::tempdir().unwrap();
    let guest = ["--mac", "52:54:00:11:22:33", "-p", "IP=192.0.2.7"];
    let explain = |args: &[&str]| {
        run_netlaunch(dir.path(), &[&["explain", "clean-traffic"], guest.as_slice(), args].concat())
    };
    let (out, error, status) = explain(&["--frame", DHCP]);
    assert_eq!((error.as_str(), status), ("", Some(0)));
    let [line] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(line.starts_with("1 out pass: filter "), "{line}");
    let (out, ..) = explain(&["-v", "--direction", "in", "--frame", DHCP]);
    assert!(out.starts_with("1 in ") && out.lines().count() > 2, "{out}");
    assert!(out.lines().skip(1).all(|line| line.starts_with("    chain ")), "{out}");
    let foreign = DHCP.replace("525400112233", "525400112234");
    let (out, ..) = explain(&["--direction", "out", "--frame", &foreign]);
    assert!(out.starts_with("1 out drop: filter no-mac-spoofing line "), "{out}");
}

#[test]
fn captures_are_explained_frame_by_frame_and_json_is_as_its_schema_says() {
    let dir = tempfile::tempdir().unwrap();
    let frame = bytes(DHCP);
    let mut pcap = bytes("d4c3b2a1020004000000000000000000ffff000001000000");
    for kept in [frame.len(), 20] {
        pcap.extend([0; 8]);
        pcap.extend((kept as u32).to_le_bytes());
        pcap.extend((frame.len() as u32).to_le_bytes());
        pcap.extend(&frame[..kept]);
    }
    let file = dir.path().join("frames.pcap");
    fs::write(&file, pcap).unwrap();
    let args = ["explain", "clean-traffic", "-p", "IP=192.0.2.7", "-p", "MAC=52:54:00:11:22:33"];
    let args = [&args[..], &["--pcap", file.to_str().unwrap(), "--json"]].concat();
    let (out, error, status) = run_netlaunch(dir.path(), &args);
    assert_eq!(status, Some(0), "{error}");
    assert!(error.contains("frame 2 was captured in part, 20 of"), "{error}");
    let object: Value = serde_json::from_str(&out).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/schema/nwfilter-explain.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let faults: Vec<_> = validator.iter_errors(&object).map(|fault| fault.to_string()).collect();
    assert_eq!(faults, [] as [String; 0], "{object:#}");
    let verdict = |number: usize| object["frames"][number]["verdict"].as_str().unwrap();
    assert_eq!((verdict(0), verdict(1)), ("pass", "drop"));
    let rule = &object["frames"][0]["stages"][0]["rule"];
    assert_eq!(rule["action"], "accept", "{object:#}");
}

/// The line of a text, counted from 1.
fn line_of(text: &str, number: u64) -> &str {
    text.lines().nth(number as usize - 1).unwrap().trim()
}

#[test]
fn a_cited_line_is_one_that_the_user_can_print() {
    let dir = tempfile::tempdir().unwrap();
    let printed = |name: &str| run_netlaunch(dir.path(), &["dumpxml", name]).0;
    let guest = ["-p", "MAC=52:54:00:11:22:33", "-p", "IP=192.0.2.7", "-p", "IPV6=2001:db8::7"];
    let others = ["-p", "DHCPSERVER=192.0.2.1", "-p", "GATEWAY_MAC=52:54:00:11:22:99"];
    let end = ["--frame", DHCP, "--direction", "out", "--json"];
    let mut cited = 0;
    for name in stock_names().filter(|name| name.as_str() != "allow-dhcpv6-server") {
        let args = [&["explain", name.as_str()], &guest[..], &others, &end].concat();
        let (out, error, status) = run_netlaunch(dir.path(), &args);
        assert_eq!(status, Some(0), "{name}: {error}");
        let object: Value = serde_json::from_str(&out).unwrap();
        let stages = object["frames"][0]["stages"].as_array().unwrap();
        let tried = stages.iter().flat_map(|stage| stage["tried"].as_array().unwrap());
        for rule in tried.filter_map(|tried| tried.get("rule")) {
            let text = printed(rule["filter"].as_str().unwrap());
            let start = format!("<rule action='{}' ", rule["action"].as_str().unwrap());
            assert!(line_of(&text, rule["line"].as_u64().unwrap()).starts_with(&start), "{rule}");
            cited += 1;
        }
    }
    assert!(cited > 20, "{cited} rules were tried");

    // A definition that was not written by netlaunch, and the same document as a file.
    let document = "<!-- mine -->\n\n<filter name='own'>\n<uuid>5c7ef1f4-6a0e-4d0e-9be1-0d5a3f6b7c21</uuid>\n\n\n<rule action='drop' direction='out'/>\n<rule action='drop' direction='out'><arp/></rule></filter>\n";
    fs::create_dir_all(dir.path().join("nwfilter")).unwrap();
    fs::write(dir.path().join("nwfilter/own.xml"), document).unwrap();
    let file = dir.path().join("elsewhere.xml");
    fs::write(&file, document).unwrap();
    let (out, ..) = run_netlaunch(dir.path(), &[&["explain", "own"], &end[..4]].concat());
    assert!(out.starts_with("1 out drop: filter own line 3 "), "{out}");
    assert!(line_of(&printed("own"), 3).starts_with("<rule action='drop' "), "{}", printed("own"));
    let (_, error, _) = run_netlaunch(dir.path(), &["check", "own"]);
    assert!(error.contains("filter own:4: no frame from the guest"), "{error}");
    assert!(error.contains("the rule in line 3 of the filter own decides"), "{error}");
    let (_, error, _) = run_netlaunch(dir.path(), &["check", file.to_str().unwrap()]);
    assert!(error.contains("elsewhere.xml:8: no frame from the guest"), "{error}");
    assert!(error.contains("the rule in line 7 of the filter own decides"), "{error}");
}

#[test]
fn what_cannot_be_explained_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.pcap");
    let fifo = dir.path().join("fifo.pcap");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = fifo.to_str().unwrap();
    let from_fifo = format!("read it as standard input: --pcap - < {fifo}");
    let mac = ["--mac", "52:54:00:11:22:33"];
    for (args, expected) in [
        (vec!["clean-traffic", "--frame", DHCP], "add a parameter for each, -p MAC=... -p IP=..."),
        (vec!["allow-arp", "--frame", DHCP], "the direction of the frames is not known"),
        (vec!["allow-arp", "--frame", "ffff", mac[0], mac[1]], "frame 1: 2 bytes are no"),
        (vec!["allow-arp", "--frame", "fff"], "this is not a frame"),
        (vec!["allow-arp"], "explain NAME --frame HEX, or --pcap FILE"),
        (
            vec!["allow-arp", "--pcap", missing.to_str().unwrap(), mac[0], mac[1]],
            "none.pcap: No such",
        ),
        (vec!["allow-arp", "--pcap", "/dev/null", mac[0], mac[1]], "neither pcap nor pcapng"),
        (vec!["allow-arp", "--frame", DHCP, "-p", "IP"], "gives no variable a value"),
        (vec!["nobodys", "--frame", DHCP], "nobodys"),
        (vec!["allow-arp", "--pcap", fifo, mac[0], mac[1]], &from_fifo),
        (vec!["allow-arp", "--pcap", "-", "--count", "0"], "not a number of frames: write 1 or"),
        (vec!["allow-arp", "--pcap", "-", "--count", "-1"], "not a number of frames: write 1 or"),
        (vec!["allow-arp", "--pcap", "-", "--count", &"9".repeat(30)], "write 1 or more"),
    ] {
        let (out, error, status) =
            run_netlaunch(dir.path(), &[&["explain"], args.as_slice()].concat());
        assert_eq!((out.as_str(), status), ("", Some(2)), "{args:?}: {error}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{args:?}: {error}");
    }
}

#[test]
fn check_warns_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("filter.xml");
    let rules = "<filter name='f'>
        <rule action='drop' direction='out'/>
        <rule action='accept' direction='out'><mac srcmacaddr='$MAC'/></rule>
        <rule action='reject' direction='in'><tcp dstportstart='$PORTS[1]'/></rule>
        <rule action='drop' direction='in'><all ipset='$SET' ipsetflags='src'/></rule>
        <rule action='accept' direction='inout'><icmp type='8'/></rule>
        <rule action='drop' direction='in'><stp port='1'/></rule>
        <rule action='drop' direction='in'><vlan vlanid='4095'/></rule>
    </filter>";
    fs::write(&file, rules).unwrap();
    let (out, error, status) = run_netlaunch(dir.path(), &["check", file.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{error}");
    assert!(out.contains("variables: $MAC, $PORTS[1], $SET"), "{out}");
    let lines: Vec<&str> = error.lines().collect();
    for (number, word) in [
        (3, "reaches this rule"),
        (4, "without an answer"),
        (5, "nftables"),
        (5, "with iptables it does not hold for packets that the host sends"),
        (6, "does nothing"),
        (7, "ebtables"),
        (8, "ebtables"),
    ] {
        let place = format!("{}:{number}: ", file.display());
        let found = lines.iter().any(|line| line.contains(&place) && line.contains(word));
        assert!(found, "{number} {word}:\n{error}");
    }
    assert_eq!(lines.len(), 6, "{error}");
}

/// The filters that close what a filter of forged addresses leaves open, a line each.
const CLOSERS: &[&str] =
    &["no-other-l2-traffic", "netlaunch-no-rogue-server", "netlaunch-dhcp-client"];

/// The findings of `check` for each stock filter that leaves something open.
fn closers(stock: &str) -> &'static [&'static str] {
    match stock {
        "clean-traffic" | "clean-traffic-dual" => &CLOSERS[1..],
        "no-mac-spoofing"
        | "no-ip-spoofing"
        | "no-ipv6-spoofing"
        | "no-ipv6-ip-spoofing"
        | "no-arp-spoofing"
        | "no-arp-ip-spoofing"
        | "no-arp-mac-spoofing" => CLOSERS,
        "netlaunch-dhcp-client"
        | "netlaunch-no-rogue-server"
        | "no-ra"
        | "no-dhcpv6-server"
        | "no-ipv6-multicast" => &CLOSERS[..1],
        _ => &[],
    }
}

#[test]
fn check_names_the_filter_that_closes_what_a_stock_filter_leaves_open() {
    let dir = tempfile::tempdir().unwrap();
    for name in netlaunch::nwfilter::stock_names() {
        let (_, error, status) = run_netlaunch(dir.path(), &["check", name.as_str()]);
        let expected = closers(name.as_str());
        let names = |(line, closer): (&str, &&str)| {
            line.contains(&format!("stock filter {name}: "))
                && line.contains(&format!("add the filter {closer}"))
        };
        let fits =
            error.lines().count() == expected.len() && error.lines().zip(expected).all(names);
        assert!(fits && status == Some(0), "{name} {expected:?}:\n{error}");
    }
}
