//! Properties that hold for the plans of any request on any host.

use super::*;

/// An address, prefix and gateway of which many make no network.
fn addresses() -> impl Strategy<Value = (AddressChoice, Option<std::net::Ipv4Addr>)> {
    let fixed = (any::<u32>(), 0u8..=32, prop::option::of(any::<u32>()), 0u32..4).prop_map(
        |(address, prefix, gateway, near)| {
            // The edges of subnets come up too rarely by chance.
            let host = if prefix == 0 { u32::MAX } else { u32::MAX >> u32::from(prefix).min(31) };
            let address = match near {
                0 => address & !host,
                1 => address | host,
                _ => address,
            };
            let gateway =
                gateway.map(|g| if near == 3 { (address & !host) | (g & host) } else { g });
            let choice = HostAddress::new(address.into(), prefix)
                .map_or(AddressChoice::Default, AddressChoice::Fixed);
            (choice, gateway.map(Into::into))
        },
    );
    prop_oneof![
        4 => fixed,
        1 => Just((AddressChoice::Default, None)),
        1 => Just((AddressChoice::Host, None)),
    ]
}

fn publish() -> impl Strategy<Value = Publish> {
    let address = prop_oneof![
        Just(String::new()),
        Just("0.0.0.0:".to_owned()),
        Just("[::1]:".to_owned()),
        Just("[::]:".to_owned()),
    ];
    let ports = (1u16..65000, 0u16..20, 1u16..65000, any::<bool>());
    (address, ports).prop_map(|(address, (port, more, guest, udp))| {
        let protocol = if udp { "udp" } else { "tcp" };
        format!("{address}{port}-{}:{guest}/{protocol}", port + more).parse().unwrap()
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let backend = prop_oneof![
        3 => Just(None),
        3 => Just(Some(Backend::Passt)),
        1 => Just(Some(Backend::Slirp)),
        1 => Just(Some(Backend::Bridge)),
    ];
    let transport = prop::option::of(prop_oneof![
        Just(Transport::Unix),
        Just(Transport::Fd),
        Just(Transport::VhostUser),
    ]);
    let family = prop_oneof![3 => Just(Family::Both), 1 => Just(Family::V4), 1 => Just(Family::V6)];
    let dns = prop::option::of(any::<IpAddr>());
    let rest = (
        prop::option::of(60u16..),
        any::<bool>(),
        prop::option::of("[a-z]{1,5}"),
        prop::option::of("/[a-zA-Z, =-]{1,9}"),
        any::<bool>(),
    );
    (backend, transport, addresses(), family, dns, prop::collection::vec(publish(), 0..4), rest)
        .prop_map(|(backend, transport, (address, gateway), family, dns, publish, rest)| {
            let (mtu, host_loopback, name, pcap, serve) = rest;
            let attachment = Some(Attachment::Bridge("br0".parse().unwrap()));
            let attachment = attachment.filter(|_| backend == Some(Backend::Bridge));
            if attachment.is_some() {
                // Hardly any of them could be asked for there.
                let command = Command { program: "q".into(), args: Vec::new() };
                let command = (!serve).then_some(command);
                let pcap = pcap.map(PathBuf::from);
                let nic = NicRequest { backend, attachment, mtu, pcap, ..NicRequest::default() };
                return Request { nic, command, ..Request::default() };
            }
            let args = ["-m", "64", "-M", "q35"].map(OsString::from).to_vec();
            let command = Command { program: "qemu-system-x86_64".into(), args };
            let nic = NicRequest {
                backend,
                transport,
                address,
                gateway,
                dns,
                family,
                publish,
                mtu,
                host_loopback,
                hostname: name.as_ref().map(|name| name.parse().unwrap()),
                search: name.iter().map(|name| name.parse().unwrap()).collect(),
                pcap: pcap.map(PathBuf::from),
                ..NicRequest::default()
            };
            Request { nic, command: (!serve).then_some(command), ..Request::default() }
        })
}

fn facts() -> impl Strategy<Value = Facts> {
    let of = |list: &[&'static str]| prop::sample::select(list.to_vec());
    let passts = of(&["old", "new", "new -one-off", "none", "old confined=/tmp", "new -no-map-gw"]);
    let qemus = of(&["new", "middle", "old", "new -stream", "new -user", "none"]);
    let hosts = of(&[
        "",
        "no-route",
        "v6 dns=127.0.0.53",
        "dns=192.0.2.1 dns=::1 routes=10.0.2.0/24",
        "routes=10.0.0.0/8 routes=172.16.0.0/12 routes=192.168.0.0/16 routes=169.254.0.0/16",
    ]);
    let bridges = of(&[
        "root joins=br0 mtu=9000",
        "root no-tun joins=br0",
        "helper allow=br0 joins=br0",
        "helper-plain joins=br0",
        "helper",
    ]);
    (passts, qemus, hosts, bridges).prop_map(|(p, q, h, b)| {
        let (bridge, target) = bridge(b);
        let (passt, qemu, host) = (passt(p), qemu(q), host(h));
        Facts { passt, qemu, host, bridge, target, ..Facts::default() }
    })
}

/// The words behind an option.
fn values<'a>(argv: &'a [String], option: &str) -> Vec<&'a str> {
    argv.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
}

fn words(argv: &[OsString]) -> Vec<String> {
    argv.iter().map(|word| word.to_str().unwrap().to_owned()).collect()
}

fn check(request: &Request, facts: &Facts, made: &Plan) {
    let qemu = words(&made.qemu.args);
    let made = made.nics.first();
    assert_eq!(values(&qemu, "-netdev").len(), 1, "{qemu:?}");
    assert_eq!(made.backend == Backend::Passt, made.passt.is_some());
    assert_eq!(made.transport.is_some(), made.passt.is_some());
    if let Some(named) = request.nic.backend {
        assert_eq!((made.backend, &made.fallback), (named, &None), "never silently replaced");
    }
    if let Some(view) = made.addresses {
        let (address, subnet) = (view.address.address(), view.address.subnet());
        for one in [address, view.gateway, view.dns] {
            assert!(subnet.contains(&one) && one != subnet.network() && one != subnet.broadcast());
        }
        assert!(address != view.gateway && address != view.dns);
    }
    let Some(passt) = &made.passt else {
        let netdev = values(&qemu, "-netdev")[0];
        if let Some(bridge) = &made.bridge {
            let (tap, helper) = (netdev.ends_with(",fd=7"), netdev.contains(",br=br0,helper=/"));
            assert_eq!(
                (tap, helper),
                (bridge.tap_owner == TapOwner::Netlaunch, bridge.tap_owner != TapOwner::Netlaunch),
                "{netdev}"
            );
            assert_eq!((made.fd == Some(7), made.addresses), (tap, None));
            assert!(!(tap && request.command.is_none()), "nobody inherits it");
            return;
        }
        assert!(netdev.starts_with("user,id=net0"), "{netdev}");
        let given = made.addresses.map(|v| format!(",dhcpstart={},", v.address.address()));
        assert!(given.is_none_or(|given| netdev.contains(&given)), "{netdev}");
        // QEMU refuses it otherwise: "DNS must be different from host".
        assert!(made.addresses.is_none_or(|view| view.dns != view.gateway), "{netdev}");
        return;
    };
    let argv = words(&passt.argv);
    // It would set the gateway's address, not the guest's.
    assert!(!argv.iter().any(|a| a == "--mac-addr" || a.starts_with("--mac") || a == "-M"));
    assert!(!argv.iter().any(|a| a.contains(&made.mac.unwrap().to_string())));
    // Every option is one that this passt has, and no short one is used.
    for option in argv.iter().filter(|arg| arg.starts_with('-')) {
        let known = option.strip_prefix("--").is_some_and(|name| facts.passt.has(name));
        assert!(known, "{option}: {argv:?}");
    }
    let (address, mask) = (values(&argv, "--address"), values(&argv, "--netmask"));
    let gateway = values(&argv, "--gateway");
    assert_eq!((address.len(), gateway.len()), (mask.len(), mask.len()), "all or none: {argv:?}");
    assert_eq!(address.len(), usize::from(made.addresses.is_some()));
    if let Some(view) = made.addresses {
        assert_eq!(address, [view.address.address().to_string()]);
        assert_eq!(mask, [view.address.subnet().prefix_len().to_string()]);
        assert_eq!(gateway, [view.gateway.to_string()]);
    }
    let socket = values(&argv, "--socket");
    let one_off = argv.iter().any(|arg| arg == "--one-off");
    match made.transport {
        Some(Transport::Fd) => {
            assert!(socket.is_empty() && !one_off && passt.socket.is_none());
            assert_eq!(values(&argv, "--fd"), ["3"]);
            assert!(values(&qemu, "-netdev")[0].ends_with("addr.type=fd,addr.str=7"));
        }
        _ => {
            assert_eq!(one_off, facts.passt.has("one-off"));
            assert!(values(&argv, "--fd").is_empty());
            assert_eq!(socket.len(), 1);
            assert!(socket[0].len() <= MAX_SOCKET_PATH, "{}", socket[0].len());
            assert_eq!(passt.socket.as_deref(), Some(Path::new(socket[0])));
        }
    }
    let ports = values(&argv, "--tcp-ports").len() + values(&argv, "--udp-ports").len();
    assert_eq!(ports, request.nic.publish.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_on_every_host_gives_a_plan_or_a_refusal(
        request in requests(),
        facts in facts(),
        dir in "/tmp/[a-zA-Z,. -]{0,100}",
    ) {
        let mac: Mac = "52:54:00:12:34:56".parse().unwrap();
        let launch_ids = LaunchIds { dir: dir.into(), mac, qemu_fds: vec![7], free_ports: Vec::new(), passt_users: Vec::new() };
        match plan(&request, &facts, &launch_ids) {
            Ok(made) => {
                check(&request, &facts, &made);
                prop_assert_eq!(Ok(made), plan(&request, &facts, &launch_ids), "deterministic");
            }
            Err(error) => {
                let line = error.to_string();
                prop_assert!(!line.is_empty() && !line.contains('\n'), "{}", line);
                let length = match &error {
                    PlanError::SocketPath { length, .. } => *length,
                    _ => MAX_SOCKET_PATH + 1,
                };
                prop_assert!(length > MAX_SOCKET_PATH);
            }
        }
    }
}
