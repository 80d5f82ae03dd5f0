//! Tests the commands of `netlaunch nwfilter`: definitions of filters, their list, the editor,
//! checks, and the messages about mistakes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::common::definitions::{Host, complaint, err};
use serde_json::Value;

const WEB: &str = "<filter name='web'>\n  <filterref filter='clean-traffic'/>\n  <rule action='accept' direction='in'>\n    <tcp dstportstart='$PORT'/>\n  </rule>\n</filter>\n";

#[test]
fn a_filter_can_be_defined_dumped_defined_again_and_undefined() {
    let host = Host::of("nwfilter");
    let file = host.file("web.xml", WEB);
    let said = err(&host.run(&format!("define {file}")));
    assert!(said.contains("the filter web is defined in"), "{said}");
    let first = host.good("dumpxml web");
    assert!(first.starts_with("<filter name='web' chain='root'>\n  <uuid>"), "{first}");
    assert!(first.contains("<rule action='accept' direction='in' priority='500'>"), "{first}");
    let said = err(&host.run(&format!("define {file}")));
    assert!(said.contains("was not changed"), "{said}");
    assert_eq!(host.good("dumpxml web"), first);
    // A dumped document defines the same filter; - is standard input.
    let mut command = host.command("define -");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(first.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(host.good("dumpxml web"), first);

    host.good("undefine web");
    for verb in ["dumpxml", "undefine", "edit", "check"] {
        let line = host.bad(&format!("{verb} web"), 2);
        assert!(line.contains("no filter is called web"), "{verb}: {line}");
    }
    assert!(host.bad("undefine clean-traffic", 2).contains("is compiled into netlaunch"));
    assert!(host.good("dumpxml clean-traffic").contains("chain='root'"));
}

#[test]
fn mistakes_have_file_line_and_column() {
    let host = Host::of("nwfilter");
    for (text, place) in [
        ("<filter name='web'>\n  <nonsense/>\n</filter>", "2:3: <nonsense> is not known"),
        (&WEB.replace("dstportstart", "dstport"), "4:10: the attribute dstport is not known"),
        (&WEB.replace("$PORT", "70000"), "4:24: dstportstart of <tcp>: \"70000\" is not"),
        ("", "1:1"),
    ] {
        let file = host.file("bad.xml", text);
        for verb in ["define", "check"] {
            let line = host.bad(&format!("{verb} {file}"), 2);
            assert!(line.starts_with(&format!("{file}:{place}")), "{line}");
        }
    }
    let line = host.bad("define /nowhere.xml", 2);
    assert!(line.starts_with("/nowhere.xml: No such file"), "{line}");
    assert!(!host.path("config/nwfilter").exists(), "nothing is made for a mistake");
}

#[test]
fn filters_are_listed_for_people_and_for_programs() {
    let host = Host::of("nwfilter");
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    host.file("config/nwfilter/broken.xml", "<filter>");
    let all: Value = serde_json::from_str(&host.good("list --json")).unwrap();
    assert_eq!(all["version"], 1);
    let filters = all["filters"].as_array().unwrap();
    assert_eq!(filters.len(), 38);
    let find = |name: &str| filters.iter().find(|filter| filter["name"] == name).unwrap();
    assert_eq!((&find("web")["origin"], &find("web")["chain"]), (&"user".into(), &"root".into()));
    assert_eq!(
        Path::new(find("web")["file"].as_str().unwrap()),
        host.path("config/nwfilter/web.xml")
    );
    let stock = find("no-ip-spoofing");
    assert_eq!((&stock["origin"], &stock["priority"]), (&"stock".into(), &(-710).into()));
    assert_eq!((&stock["file"], &stock["error"]), (&Value::Null, &Value::Null));
    assert!(find("broken")["error"].as_str().unwrap().contains("broken.xml:1:1: "));

    let output = host.run("list");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let rows: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "FROM", "CHAIN", "UUID"]);
    assert!(rows.iter().any(|row| row[..3] == ["web", "user", "root"]), "{text}");
    assert!(rows.iter().any(|row| row[..] == ["broken", "broken", "-", "-"]), "{text}");
    assert!(err(&output).contains("broken.xml:1:1"), "{}", err(&output));
}

#[test]
fn check_reports_the_rules_or_the_mistakes_of_a_filter() {
    let host = Host::of("nwfilter");
    assert_eq!(
        host.good("check clean-traffic"),
        "filter: clean-traffic\nrules: 16\nvariables: $MAC, $IP\n"
    );
    host.file("web.xml", WEB);
    let text = host.good("check web.xml");
    assert!(text.starts_with("filter: web\nrules: 17\nvariables: $PORT, "), "{text}");
    assert!(!host.path("config/nwfilter").exists(), "a check makes nothing");
    host.file("web.xml", &WEB.replace("clean-traffic", "nosuch"));
    let output = host.run("check ./web.xml");
    assert!(output.status.success());
    assert!(err(&output).contains("the filter nosuch is referred to and missing"));
    let line = host.bad("check a*b", 2);
    assert!(line.contains("\"a*b\" is neither a file nor a filter"), "{line}");
    // A circle, as a definition would close it.
    host.good(&format!(
        "define {}",
        host.file("a.xml", "<filter name='a'><filterref filter='b'/></filter>")
    ));
    host.file("b.xml", "<filter name='b'><filterref filter='a'/></filter>");
    for verb in ["check", "define"] {
        let line = host.bad(&format!("{verb} b.xml"), 2);
        assert!(line.contains("in a circle, b -> a -> b"), "{line}");
    }
}

#[test]
fn an_edit_defines_the_filter_that_the_editor_saves() {
    let host = Host::of("nwfilter");
    host.good(&format!("define {}", host.file("web.xml", WEB)));
    let before = host.good("dumpxml web");
    assert!(err(&host.edit("web", "true")).contains("was not changed"));
    assert!(host.edit("web", "sed -i s/PORT/PORTS/").status.success());
    assert_eq!(host.good("dumpxml web"), before.replace("PORT", "PORTS"));
    let line = complaint(&host.edit("web", "sed -i s/dstportstart/port/"), 2);
    assert!(line.contains("the attribute port is not known in <tcp>"), "{line}");
    let kept = line.rsplit(' ').next().unwrap();
    assert!(fs::read_to_string(kept).unwrap().contains("port='$PORTS'"), "{line}");
    // A stock filter is edited into a definition, and comes back.
    let stock = host.good("dumpxml no-ip-multicast");
    assert!(host.edit("no-ip-multicast", "sed -i s/drop/reject/").status.success());
    assert!(host.good("dumpxml no-ip-multicast").contains("action='reject'"));
    let said = err(&host.run("undefine no-ip-multicast"));
    assert!(said.contains("is netlaunch's own again"), "{said}");
    assert_eq!(host.good("dumpxml no-ip-multicast"), stock);
}

/// Many processes define one filter; each sees one that is whole.
#[test]
fn one_of_many_concurrent_definitions_remains_whole() {
    let host = Host::of("nwfilter");
    let children: Vec<_> = (0..8)
        .map(|number| {
            let text = WEB.replace("$PORT", &format!("{}", 1000 + number));
            let file = host.file(&format!("{number}.xml"), &text);
            let mut command = host.command(&format!("define {file}"));
            command.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let text = host.good("dumpxml web");
    assert_eq!(text.matches("dstportstart='100").count(), 1, "{text}");
    let files: Vec<_> = fs::read_dir(host.path("config/nwfilter"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(files, ["web.xml"]);
}

#[test]
fn the_list_of_filters_has_one_line_for_each_filter() {
    let host = Host::of("nwfilter");
    let listed = host.good("list");
    assert!(listed.lines().all(|line| line.split_whitespace().count() == 4), "{listed}");
}

#[test]
fn an_empty_half_of_tcp_flags_means_none() {
    let host = Host::of("nwfilter");
    for (flags, printed) in [("PSH/", "PSH/NONE"), ("/ALL", "NONE/ALL"), ("/", "NONE/NONE")] {
        let text = format!(
            "<filter name='f'><rule action='drop' direction='in'><tcp flags='{flags}'/></rule></filter>"
        );
        host.good(&format!("define {}", host.file("f.xml", &text)));
        assert!(host.good("dumpxml f").contains(&format!("flags='{printed}'")), "{flags}");
    }
}
