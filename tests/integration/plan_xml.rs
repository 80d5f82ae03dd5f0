//! What `--print=xml` writes of passt: the attributes and the type that libvirt 12 has.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

use netlaunch::facts::{Facts, Host, Passt, Qemu};
use netlaunch::plan::{Command, Particulars, Request, Transport, plan, unsaid, xml};

#[test]
fn the_xml_has_the_host_name_and_the_type_of_vhost_user() {
    let help = include_str!("fixtures/probe/passt-2026-10-help.txt");
    let options = help
        .split_whitespace()
        .filter_map(|word| word.trim_end_matches(',').strip_prefix("--"))
        .map(str::to_owned)
        .collect();
    let facts = Facts {
        passt: Passt { path: Some("/usr/bin/passt".into()), options, ..Passt::default() },
        qemu: Qemu {
            path: Some("/usr/bin/qemu-system-x86_64".into()),
            netdevs: ["user", "stream", "vhost-user"].map(str::to_owned).into(),
            ..Qemu::default()
        },
        host: Host { default_v4: Some("eth0".into()), ..Host::default() },
        ..Facts::default()
    };
    let particulars = Particulars {
        dir: "/run/netlaunch/launch-abcdefgh".into(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        qemu_fd: 7,
        passt_user: None,
    };
    for (transport, kind) in [(None, "user"), (Some(Transport::VhostUser), "vhostuser")] {
        let request = Request {
            transport,
            hostname: Some("web".parse().unwrap()),
            command: Some(Command {
                program: "qemu-system-x86_64".into(),
                args: vec!["-m".into(), "512".into()],
            }),
            ..Request::default()
        };
        let plan = plan(&request, &facts, &particulars).unwrap();
        let text = xml(&request, &plan);
        assert!(text.contains(&format!("<interface type='{kind}'>")), "{text}");
        assert!(text.contains("<backend type='passt' hostname='web'/>"), "{text}");
        assert_eq!(unsaid(&request, &plan), [] as [&str; 0]);
    }
}
