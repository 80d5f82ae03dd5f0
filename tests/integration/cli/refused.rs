//! Mistakes and conditions of the host that netlaunch refuses, each with one line and a status.

use super::*;

/// Command lines, and words of the line that refuses each. Words are split at blanks; `Q` is QEMU
/// with arguments that would run.
const MISTAKES: &[(&str, &[&str])] = &[
    ("--bakend slirp -- Q", &["unknown option --bakend", "--backend"]),
    ("-m 256 -- Q", &["unknown option -m", "put QEMU's own options behind -- QEMU"]),
    ("qemu -m 256", &["\"qemu\" is not a command", "put -- before QEMU"]),
    ("--backend qemu -- Q", &["--backend: unknown value \"qemu\"", "auto, passt, slirp or bridge"]),
    ("--transport tcp -- Q", &["--transport: unknown value \"tcp\"", "unix, fd or vhost-user"]),
    ("--backend", &["--backend needs a value"]),
    ("--print=qqq -- Q", &["--print: unknown value \"qqq\"", "shell, json or xml"]),
    ("--", &["no program behind --"]),
    ("-- ", &["the program behind -- is an empty word"]),
    ("-v -q -- Q", &["-v cannot go with -q", "drop one of them"]),
    ("--ipv4-only --ipv6-only -- Q", &["--ipv4-only cannot go with --ipv6-only"]),
    ("--id 0 -- Q", &["--id: \"0\" is not a QEMU id", "start with a letter"]),
    ("--mac 53:54:00:00:00:01 -- Q", &["--mac: 53:54:00:00:00:01 is a multicast"]),
    ("--device a,b -- Q", &["--device: \"a,b\" is not a QEMU device model"]),
    ("--hostname a_b -- Q", &["--hostname: \"a_b\" is not a domain name"]),
    ("--interface a/b -- Q", &["--interface: \"a/b\" is not a network interface name"]),
    ("--name a/b -- Q", &["--name: \"a/b\" cannot name a launch"]),
    ("--mtu 67 -- Q", &["--mtu: \"67\" is not an MTU", "68 to 65520"]),
    ("--mtu 65521 -- Q", &["--mtu: \"65521\" is not an MTU", "68 to 65520"]),
    ("--ipv6-only --mtu 1279 -- Q", &["the MTU 1279 is out of range", "1280 to 65520 (--mtu)"]),
    // Addresses.
    ("--address 10.0.2.0/24 -- Q", &["10.0.2.0 is the network address", "10.0.2.1 to 10.0.2.254"]),
    ("--address 10.0.2.255/24 -- Q", &["10.0.2.255 is the broadcast address", "use 10.0.2.1 to"]),
    ("--address 169.254.0.0/16 -- Q", &["169.254.0.0 is the network address"]),
    ("--address 0.0.0.0/8 -- Q", &["0.0.0.0 is of 0.0.0.0/8", "use a private one"]),
    ("--address 127.0.0.1/8 -- Q", &["127.0.0.1 is a loopback address"]),
    ("--address 224.0.0.1/24 -- Q", &["224.0.0.1 is a multicast address"]),
    ("--address 255.255.255.255/24 -- Q", &["240.0.0.0/4"]),
    ("--address 10.0.2.15 -- Q", &["--address: \"10.0.2.15\"", "with a prefix length"]),
    ("--address 10.0.2.15/31 -- Q", &["/31 has no room", "from 8 to 30"]),
    ("--address 10.0.2.15/33 -- Q", &["/33 has no room", "from 8 to 30"]),
    ("--address fe80::1/64 -- Q", &["fe80::1/64\" is an IPv6 address"]),
    (
        "--gateway 10.0.3.1 -- Q",
        &["10.0.3.1 is outside the guest's subnet 10.0.2.0/24", "--address"],
    ),
    ("--gateway 10.0.2.15 -- Q", &["10.0.2.15 is the guest's own address"]),
    ("--gateway 10.0.2.0 -- Q", &["10.0.2.0 is the network address of 10.0.2.0/24"]),
    ("--address 10.1.2.3/24 --gateway 10.1.2.255 -- Q", &["10.1.2.255 is the broadcast"]),
    ("--address 10.1.2.3/24 --gateway 10.1.3.1 -- Q", &["10.1.3.1 is outside", "10.1.2.0/24"]),
    ("--address 10.1.2.3/24 --gateway 10.1.2.3 -- Q", &["10.1.2.3 is the guest's own address"]),
    (
        "--address host --gateway 10.0.2.2 -- Q",
        &["a gateway cannot go with the host's addresses", "(--gateway, --address)"],
    ),
    ("--gateway fe80::1 -- Q", &["--gateway: \"fe80::1\" is not an IPv4 address"]),
    (
        "--dns 0.0.0.0 -- Q",
        &["DNS server 0.0.0.0 is not a server's address", "such as 9.9.9.9", "(--dns)"],
    ),
    ("--dns 127.0.0.53 -- Q", &["DNS server 127.0.0.53 is not a server's address", "(--dns)"]),
    ("--dns 10.0.2.15 -- Q", &["DNS server 10.0.2.15 is the guest's own address"]),
    (
        "--ipv4-only --dns 2620:fe::fe -- Q",
        &["DNS server 2620:fe::fe has an IPv6 address", "(--dns, --ipv4-only)"],
    ),
    (
        "--ipv6-only --address 10.0.2.15/24 -- Q",
        &["the guest's address is an IPv4 setting", "(--address, --ipv6-only)"],
    ),
    // Ports.
    ("-p 0 -- Q", &["\"0\" in \"0\" is not a port", "1 to 65535"]),
    ("-p 65536:22 -- Q", &["\"65536\" in \"65536:22\" is not a port"]),
    ("-p 90-80 -- Q", &["range 90-80", "write 80-90"]),
    ("-p 80/sctp -- Q", &["\"sctp\" in \"80/sctp\"", "tcp or udp"]),
    ("-p localhost:80 -- Q", &["\"localhost\" in \"localhost:80\" is not an IP address"]),
    (
        "-p 2222:22 -p 2222:23 -- Q",
        &["127.0.0.1:2222:22/tcp", "127.0.0.1:2222:23/tcp", "port 2222"],
    ),
    ("-p 8000-8010 -p 0.0.0.0:8005 -- Q", &["8000-8010", "0.0.0.0:8005", "both use port 8005"]),
    ("-p 53/udp -p 53/udp -- Q", &["both use port 53"]),
    ("--ipv6-only -p 2222:22 -- Q", &["127.0.0.1:2222:22/tcp listens on IPv4", "--ipv6-only"]),
    ("--ipv4-only -p [::1]:2222:22 -- Q", &["[::1]:2222:22/tcp listens on IPv6", "--ipv4-only"]),
    // Requests that cannot be supervised or connected.
    ("--transport fd", &["the transport fd", "use the transport unix (-- QEMU ARGS, --transport)"]),
    ("--id lan -- Q -netdev socket,id=lan", &["netdev with id=lan already", "--id"]),
    ("--id lan -- Q -nic user", &["bring their own NIC (-nic user)", "(--id, --keep-nics)"]),
    ("--net passt,mac=1", &["the value of mac cannot be used: ", "52:54:00:12:34:56"]),
    (
        "--net bridge=br0 --dns 9.9.9.9",
        &["the DNS server is for passt and slirp", "(--dns, --net)"],
    ),
    ("--net bridge=br0 --search a", &["for passt and slirp", "(--search, --net)"]),
    (
        "--net bridge=br0 --mtu 1400 -- Q",
        &["each NIC of this launch is on a bridge", "(--mtu, --net)"],
    ),
    (
        "--net bridge=br0 --net network=a --ipv4-only",
        &["for passt and slirp", "(--ipv4-only, --net)"],
    ),
    ("--net bridge=br0 --ipv6-only", &["for passt and slirp", "(--ipv6-only, --net)"]),
    (
        "--net bridge=br0 --no-host-loopback",
        &["for passt and slirp", "(--no-host-loopback or host_loopback in netlaunch.conf, --net)"],
    ),
    ("--net passt -p 80 -- Q", &["this launch lists its NICs", "(--publish, --net)"]),
    ("--ready-fd 2 -- Q", &["\"2\" is not a file descriptor to report to"]),
    ("--ready-fd 9 -- Q", &["--ready-fd 9: ", "name a descriptor that is open for writing"]),
    // Of the other commands.
    ("probe --jsn", &["unknown option --jsn", "--json"]),
    ("ps now", &["unexpected argument \"now\""]),
    ("--backend slirp ps", &["--backend is an option of a launch, not of ps"]),
    ("completions", &["SHELL is missing", "bash"]),
    ("completions csh", &["SHELL: unknown value \"csh\""]),
];

#[test]
fn each_mistake_in_the_command_line_is_one_line_with_status_2() {
    if !have_root("each_mistake_in_the_command_line_is_one_line_with_status_2") {
        return;
    }
    let bench = Bench::new(As::User);
    for (line, words) in MISTAKES {
        let args: Vec<&str> = line.split(' ').collect();
        let split = args.iter().position(|word| *word == "Q");
        let mut all: Vec<&str> = args[..split.unwrap_or(args.len())].to_vec();
        if let Some(at) = split {
            all.extend(["qemu", "-M", "none", "-display", "none"]);
            all.extend(&args[at + 1..]);
        }
        bench.refuses(bench.netlaunch(&all), USAGE, words);
    }
}

#[test]
fn a_descriptor_open_for_reading_is_refused_for_reports() {
    if !have_root("a_descriptor_open_for_reading_is_refused_for_reports") {
        return;
    }
    let bench = Bench::new(As::User);
    let line = format!("{} --ready-fd 7 -- qemu 7</dev/null", bench.bin("netlaunch"));
    bench.refuses(shell(&bench, &line), USAGE, &["--ready-fd 7: open for reading only"]);
}

#[test]
fn a_port_that_cannot_be_published_is_refused_with_the_reason() {
    if !have_root("a_port_that_cannot_be_published_is_refused_with_the_reason") {
        return;
    }
    let me = format!("(pid {})", std::process::id());
    for who in [As::Root, As::User] {
        let bench = Bench::new(who);
        let tcp = bench.netns.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let tcp6 = bench.netns.inside(|| TcpListener::bind("[::1]:0").unwrap());
        let udp = bench.netns.inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        let port = |address: std::io::Result<std::net::SocketAddr>| address.unwrap().port();
        let (tcp_port, udp_port) = (port(tcp.local_addr()), port(udp.local_addr()));
        let tcp6_port = port(tcp6.local_addr());
        for (publish, says) in [
            (format!("{tcp_port}:22"), format!("port {tcp_port}/tcp on 127.0.0.1 is in use")),
            (format!("0.0.0.0:{tcp_port}:22"), format!("port {tcp_port}/tcp on 0.0.0.0 is in use")),
            (format!("[::1]:{tcp6_port}:22"), format!("port {tcp6_port}/tcp on ::1 is in use")),
            (format!("{udp_port}/udp"), format!("port {udp_port}/udp on 127.0.0.1 is in use")),
        ] {
            // Root may see the holder of the port, another user may not.
            let by = if who == As::Root { me.as_str() } else { "in use: stop that program" };
            let words = [says.as_str(), by, "publish another port than -p "];
            bench.refuses(bench.netlaunch(&with(&["-p", &publish])), FAILED, &words);
        }
        let words = ["203.0.113.9 is not an address of this host", "use 127.0.0.1"];
        bench.refuses(bench.netlaunch(&with(&["-p", "203.0.113.9:8080:80"])), FAILED, &words);
        if who == As::User {
            let words = ["port 80/tcp on 127.0.0.1 needs privileges", "above 1023"];
            bench.refuses(bench.netlaunch(&with(&["-p", "80"])), FAILED, &words);
            bench.refuses(
                bench.netlaunch(&with(&["--backend", "slirp", "-p", "53/udp"])),
                FAILED,
                &["port 53/udp on 127.0.0.1 needs privileges"],
            );
        }
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_with_the_reason() {
    if !have_root("a_directory_that_cannot_be_used_is_refused_with_the_reason") {
        return;
    }
    let bench = Bench::new(As::User);
    let state = |dir: &Path| {
        let mut command = bench.netlaunch(&with(&[]));
        command.env("NETLAUNCH_STATE_DIR", dir);
        command
    };
    let long = bench.sandbox.path(&"x".repeat(90));
    let fix = "or the transport fd (NETLAUNCH_STATE_DIR, --transport)";
    bench.refuses(state(&long), FAILED, &["the socket path ", "106 is the most that fits", fix]);
    assert!(!long.exists());

    let fix = "set NETLAUNCH_STATE_DIR to a directory that is";
    let roots = bench.sandbox.path("of-root");
    fs::create_dir(&roots).unwrap();
    let closed = bench.make_dir("closed", 0o500);
    let file = bench.write("file", "");
    for (dir, words) in [
        (roots.clone(), &["Permission denied", fix][..]),
        (roots.join("below"), &["Permission denied", fix]),
        (closed, &["Permission denied", fix]),
        (file.clone(), &["Not a directory", fix]),
        (file.join("below"), &["Not a directory", fix]),
        ("/proc/netlaunch".into(), &["cannot use /proc/netlaunch for launch directories", fix]),
    ] {
        let named = dir.display().to_string();
        bench.refuses(state(&dir), FAILED, &[words, &[named.as_str()]].concat());
    }

    let missing = |name: &str, value: &Path| {
        let mut command = bench.netlaunch(&with(&[]));
        command.env_remove("NETLAUNCH_STATE_DIR").env(name, value);
        command
    };
    // The fallback in the temporary directory must be the user's own, and private.
    let tmp = bench.make_dir("tmp", 0o1777);
    let own = tmp.join(format!("netlaunch-{USER}"));
    let tried = || {
        let mut command = missing("TMPDIR", &tmp);
        // A runtime directory that is not there is not used.
        command.env("XDG_RUNTIME_DIR", "/nonexistent/run");
        command
    };
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
    let named = own.display().to_string();
    let words = [&named, "belongs to another user or is open to others", "remove it"];
    bench.refuses(tried(), FAILED, &words);
    chown(&own, Some(USER), Some(USER)).unwrap();
    bench.refuses(tried(), FAILED, &words);
    fs::remove_dir(&own).unwrap();
    symlink(bench.sandbox.path("home"), &own).unwrap();
    bench.refuses(tried(), FAILED, &[&named]);
    assert!(own.is_symlink());
    fs::remove_file(&own).unwrap();
    // Then it works, and the directory goes when it is empty.
    let mut command = tried();
    command.arg("-no-such-option");
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1), "QEMU's: {}", text(&output.stderr));
    assert!(!own.exists() && own.parent().unwrap().exists());
}

#[test]
fn a_program_that_cannot_run_is_refused_with_the_reason() {
    if !have_root("a_program_that_cannot_run_is_refused_with_the_reason") {
        return;
    }
    let bench = Bench::new(As::User);
    let plain = bench.write("plain", "#!/bin/sh\n").display().to_string();
    let dir = bench.make_dir("dir", 0o755).display().to_string();
    let install = "install QEMU";
    for (program, status, words) in [
        ("qemu-system-none", 127, &["qemu-system-none is not installed (looked in ", install][..]),
        ("/nonexistent/qemu", 127, &["/nonexistent/qemu does not exist", "correct the path"]),
        (&plain, 126, &[&plain, "is not executable by this user", "change its permissions"]),
        (&dir, 126, &[&dir, "is not a program", "name the program itself"]),
        ("true", 126, &["/bin/true does not look like QEMU", "name a QEMU system emulator"]),
    ] {
        bench.refuses(bench.netlaunch(&["--", program]), status, words);
        bench.refuses(bench.netlaunch(&["--qemu", program]), status, words);
        bench.refuses(bench.netlaunch(&["--print", "--", program]), status, words);
    }
    // --qemu names the program of serve mode, and not that of a command.
    for program in ["qemu-system-none", "/nonexistent/qemu", &plain] {
        for (args, names) in [(["--", program], false), (["--qemu", program], true)] {
            let message = text(&finish(bench.netlaunch(&args)).stderr);
            assert_eq!(message.contains("(--qemu)"), names, "{args:?}: {message}");
        }
    }
    let install = "install the package passt";
    for (passt, words) in [
        ("nopasst", &["passt cannot be used: nopasst is not installed", install][..]),
        ("/nonexistent/passt", &["/nonexistent/passt does not exist", "correct the path"]),
        (&plain, &[&plain, "is not executable by this user"]),
        ("true", &["/bin/true does not look like passt", "install the package passt again"]),
    ] {
        let options = ["--backend", "passt", "--passt", passt];
        bench.refuses(bench.netlaunch(&with(&options)), FAILED, words);
    }
    // Neither can serve: each with its reason and its fix.
    let options = ["--passt", "nopasst", "--address", "host"];
    let words = ["no backend can serve: passt: nopasst is not installed", install, "; slirp: "];
    bench.refuses(bench.netlaunch(&with(&options)), FAILED, &words);
    let options = ["--backend", "slirp", "--mtu", "9000"];
    let words = [
        "slirp cannot be used: slirp has no frames of 9000 bytes; use an MTU of 1500 or less (--mtu)",
    ];
    bench.refuses(bench.netlaunch(&with(&options)), USAGE, &words);
}

#[test]
fn a_closed_standard_descriptor_is_refused() {
    if !have_root("a_closed_standard_descriptor_is_refused") {
        return;
    }
    let bench = Bench::new(As::User);
    let netlaunch = bench.bin("netlaunch");
    for (closed, names) in [
        ("<&-", "standard input is closed"),
        (">&-", "standard output is closed"),
        ("<&- >&-", "standard input and standard output are closed"),
    ] {
        for args in ["-- qemu -M none", "--print -- qemu", "probe", "ps", "--help"] {
            let line = format!("exec {netlaunch} {args} {closed}");
            bench.refuses(shell(&bench, &line), FAILED, &[names, "redirect it"]);
        }
    }
    for closed in ["2>&-", "<&- >&- 2>&-"] {
        let output = finish(shell(&bench, &format!("exec {netlaunch} -- qemu -M none {closed}")));
        assert_eq!(output.status.code(), Some(FAILED), "{closed}");
        bench.untouched(closed);
    }
    let line = format!("exec {netlaunch} --print -- qemu >/dev/full");
    let words = ["cannot write to standard output: No space left on device"];
    bench.refuses(shell(&bench, &line), FAILED, &words);
}

#[test]
fn each_mistake_in_the_configuration_file_has_its_place() {
    if !have_root("each_mistake_in_the_configuration_file_has_its_place") {
        return;
    }
    let bench = Bench::new(As::User);
    let file = bench.sandbox.path("config/netlaunch.conf");
    let named = file.display().to_string();
    for (content, place, words) in [
        ("bakend = \"slirp\"\n", ":1:1: ", &["unknown key `bakend`", "backend"][..]),
        ("# a\n\n  mtu = 70000\n", ":3:9: ", &["not an MTU", "68 to 65520"]),
        ("mtu = \"1500\"\n", ":1:7: ", &["write a number"]),
        (
            "backend = \"pasta\"\n",
            ":1:11: ",
            &["unknown value", "pasta", "auto, passt, slirp, bridge"],
        ),
        ("\npublish = [\"22\", \"0\"]\n", ":2:11: ", &["is not a port"]),
        ("mtu = 1500\nmtu = 1400\n", ":2:1: ", &["duplicate key"]),
        ("backend = passt\n", ":1:11: ", &[]),
        ("address = \"10.0.2.0/24\"\n", ":1:11: ", &["10.0.2.0 is the network address"]),
    ] {
        bench.write("config/netlaunch.conf", content);
        let place = format!("{named}{place}");
        let words = [words, &[place.as_str()]].concat();
        for args in [&with(&[])[..], &["probe"], &["ps"]] {
            bench.refuses(bench.netlaunch(args), USAGE, &words);
        }
    }
    bench.write("config/netlaunch.conf", "gateway = \"10.9.9.9\"\naddress = \"10.0.2.15/24\"\n");
    let words = ["10.9.9.9 is outside", &format!("(with the settings of {named})")];
    bench.refuses(bench.netlaunch(&with(&[])), USAGE, &words);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let words = [&named, "cannot be read: Permission denied", "correct its permissions"];
    bench.refuses(bench.netlaunch(&with(&[])), FAILED, &words);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    bench.refuses(bench.netlaunch(&with(&[])), FAILED, &[&named, "cannot be read"]);
}

#[test]
fn refusals_are_json_for_programs() {
    if !have_root("refusals_are_json_for_programs") {
        return;
    }
    let bench = Bench::new(As::User);
    let options = ["--log-format", "json", "--backend", "passt", "--passt", "nopasst"];
    let output = finish(bench.netlaunch(&with(&options)));
    assert_eq!(output.status.code(), Some(FAILED));
    let line: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["message"].as_str().unwrap().starts_with("passt cannot be used: "), "{line}");
    bench.untouched("json");
}
