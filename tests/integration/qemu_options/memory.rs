//! The memory of a guest on vhost-user is shared.

use super::*;

/// The arguments that the vhost-user transport adds for the guest's memory.
fn memory(args: &[&str], config: Option<ConfigFile>) -> Vec<OsString> {
    let options = ["foreground", "socket", "pid", "address", "netmask", "gateway", "vhost-user"];
    let facts = Facts {
        passt: Passt {
            path: Some("/usr/bin/passt".into()),
            options: options.map(str::to_owned).into(),
            ..Passt::default()
        },
        qemu: Qemu {
            path: Some(QEMU.into()),
            netdevs: ["vhost-user", "stream"].map(str::to_owned).into(),
            reconnect: Reconnect::Milliseconds,
            ..Qemu::default()
        },
        host: Host { default_v4: Some("eth0".into()), ..Host::default() },
        ..Facts::default()
    };
    let request = Request {
        nic: NicRequest {
            backend: Some(Backend::Passt),
            transport: Some(Transport::VhostUser),
            ..NicRequest::default()
        },
        command: Some(plan::Command {
            program: QEMU.into(),
            args: args.iter().map(OsString::from).collect(),
        }),
        config_files: config.into_iter().collect(),
        ..Request::default()
    };
    let launch_ids = LaunchIds {
        dir: "/tmp/x".into(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        qemu_fds: vec![7],
        free_ports: Vec::new(),
        passt_users: Vec::new(),
    };
    let args = plan(&request, &facts, &launch_ids).unwrap().qemu.args;
    let pairs = args.chunks(2).filter(|pair| pair[0] == "-object" || pair[0] == "-machine");
    pairs.flatten().cloned().collect()
}

#[test]
fn vhost_users_memory_is_shared_in_the_real_qemu() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("memory.cfg");
    let config = "[object \"m\"]\n  qom-type = \"memory-backend-memfd\"\n  size = \"96M\"\n\
        [machine]\n  memory-backend = \"m\"\n";
    fs::write(&file, config).unwrap();
    let path = file.to_str().unwrap();
    let shm = dir.path().join("ivshmem");
    let ivshmem = format!("memory-backend-file,id=s,size=1M,mem-path={},share=on", shm.display());
    let json = r#"{"qom-type":"memory-backend-memfd","id":"m","size":100663296}"#;
    for (args, mib) in [
        (&["-m", "96"][..], 96),
        (&["-m", "0.125G"], 128),
        (&["-m", "size=98304k,slots=2,maxmem=1G"], 96),
        (&["-m", "96", "-object", &ivshmem, "-device", "ivshmem-plain,memdev=s"], 96),
        (&["-m", "96", "-object", json, "-machine", "memory-backend=m"], 96),
        (&["-m", "96", "-object", json, "-numa", "node,memdev=m"], 96),
        (&["-m", "96", "-readconfig", path], 96),
        (&["-M", "microvm,memory.size=96M"], 96),
    ] {
        let read = || ConfigFile { path: path.into(), text: config.into() };
        let added = memory(args, args.contains(&"-readconfig").then(read));
        let mut command = Command::new(QEMU);
        command.args(args).args(&added).args(["-nodefaults", "-display", "none", "-S"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = start(command);
        let maps = format!("/proc/{}/maps", child.pid());
        let shared = || {
            fs::read_to_string(&maps).unwrap_or_default().lines().any(|line| {
                let mut fields = line.split_whitespace();
                let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
                let (from, to) = range.split_once('-').unwrap();
                let at = |hex| u64::from_str_radix(hex, 16).unwrap();
                at(to) - at(from) == mib << 20 && rights == "rw-s"
            })
        };
        assert!(wait_until(LIMIT, shared), "{args:?} and {added:?}");
    }
}
