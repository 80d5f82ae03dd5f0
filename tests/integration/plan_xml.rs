//! Tests the output of `--print=xml` for passt: the attributes and the type of libvirt 12.

use netlaunch::cli::plan_xml::{missing_in_xml, xml};
use netlaunch::launcher::plan::{Command, LaunchIds, NicRequest, Plan, Request, Transport, plan};
use netlaunch::types::facts::{Facts, Host, Passt, Qemu};

/// Returns the plan of a request for these arguments of QEMU.
fn planned(nic: NicRequest, args: &str) -> Plan {
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
    let request = Request {
        nic,
        command: Some(Command {
            program: "qemu-system-x86_64".into(),
            args: args.split(' ').map(Into::into).collect(),
        }),
        ..Request::default()
    };
    plan(&request, &facts, &launch_ids).unwrap()
}

#[test]
fn the_xml_has_the_host_name_and_the_type_of_vhost_user() {
    for (transport, kind) in [(None, "user"), (Some(Transport::VhostUser), "vhostuser")] {
        let hostname = Some("web".parse().unwrap());
        let plan = planned(NicRequest { transport, hostname, ..NicRequest::default() }, "-m 512");
        let text = xml(&plan);
        assert!(text.contains(&format!("<interface type='{kind}'>")), "{text}");
        assert!(text.contains("<backend type='passt' hostname='web'/>"), "{text}");
        assert_eq!(missing_in_xml(&plan), [] as [String; 0]);
    }
}

#[test]
fn the_xml_claims_no_model_for_a_card_of_the_callers_arguments() {
    let plan =
        planned(NicRequest::default(), "-nic user,model=virtio -nic user,restrict=on,model=e1000");
    let text = xml(&plan);
    assert_eq!(text.matches("<interface type='user'").count(), 2, "{text}");
    assert!(!text.contains("<model"), "{text}");
    let missing = missing_in_xml(&plan);
    assert!(missing[0].starts_with("no card model is in this XML for -nic user,model=virtio:"));
    let restricted = "-nic user,restrict=on,model=e1000 is in this XML without its parameters:";
    assert!(missing[1].starts_with(restricted), "{missing:?}");
    assert_eq!(missing.len(), 2);
}
