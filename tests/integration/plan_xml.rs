//! Tests the output of `--print=xml` for passt: the attributes and the type of libvirt 12.

use netlaunch::cli::plan_xml::{unsupported_in_xml, xml};
use netlaunch::launcher::plan::{Command, LaunchIds, NicRequest, Request, Transport, plan};
use netlaunch::types::facts::{Facts, Host, Passt, Qemu};

#[test]
fn the_xml_has_the_host_name_and_the_type_of_vhost_user() {
    let help = include_str!("../fixtures/probe/passt-2026-10-help.txt");
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
    let launch_ids = LaunchIds {
        dir: "/run/netlaunch/launch-abcdefgh".into(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        qemu_fds: vec![7],
        free_ports: Vec::new(),
        passt_users: Vec::new(),
    };
    for (transport, kind) in [(None, "user"), (Some(Transport::VhostUser), "vhostuser")] {
        let request = Request {
            nic: NicRequest {
                transport,
                hostname: Some("web".parse().unwrap()),
                ..NicRequest::default()
            },
            command: Some(Command {
                program: "qemu-system-x86_64".into(),
                args: vec!["-m".into(), "512".into()],
            }),
            ..Request::default()
        };
        let plan = plan(&request, &facts, &launch_ids).unwrap();
        let text = xml(&plan);
        assert!(text.contains(&format!("<interface type='{kind}'>")), "{text}");
        assert!(text.contains("<backend type='passt' hostname='web'/>"), "{text}");
        assert_eq!(unsupported_in_xml(&plan), [] as [&str; 0]);
    }
}
