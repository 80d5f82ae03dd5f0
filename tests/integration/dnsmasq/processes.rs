//! The process of dnsmasq: a failed start, a killed one, and two at once.

use super::*;
use crate::common::AT_MOST;
use netlaunch::types::error_text;

#[test]
fn a_failed_start_leaves_nothing_and_quotes_dnsmasq() {
    if !have_root("a_failed_start_leaves_nothing_and_quotes_dnsmasq") {
        return;
    }
    let scene = Scene::new();
    let nothing = |error: DnsmasqError, words: &str| {
        let error = error_text(&error);
        assert!(error.contains(words), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(scene.left(), [] as [PathBuf; 0], "{error}");
        assert!(scene.processes().is_empty(), "{error}");
    };
    let mut config = default(scene.files());

    let missing = Path::new("/nonexistent/dnsmasq");
    let error = scene.start_program(missing, &config).unwrap_err();
    nothing(error, "install dnsmasq-base");
    let error = scene.start_program(Path::new("/etc/passwd"), &config);
    nothing(error.unwrap_err(), "cannot execute /etc/passwd");

    config.tftp_root = Some("/nonexistent/tftp".into());
    nothing(scene.start(&config).unwrap_err(), "/nonexistent/tftp");
    config.tftp_root = None;

    config.dns.as_mut().unwrap().txt.push(Txt { name: "a".into(), value: "b\nport=5353".into() });
    nothing(scene.start(&config).unwrap_err(), "the TXT value");
    config.dns.as_mut().unwrap().txt.clear();

    let holder = scene.host.inside(|| UdpSocket::bind(("192.168.122.1", 53)).unwrap());
    nothing(scene.start(&config).unwrap_err(), "has port 53/udp on 192.168.122.1");
    drop(holder);
    let holder = scene.host.inside(|| UdpSocket::bind(("0.0.0.0", 67)).unwrap());
    nothing(scene.start(&config).unwrap_err(), "has port 67/udp on 0.0.0.0");
    drop(holder);

    // Only the caller removes the leases of an earlier start.
    fs::create_dir(scene.files().leases.parent().unwrap()).unwrap();
    fs::write(scene.files().leases, "").unwrap();
    config.tftp_root = Some("/nonexistent/tftp".into());
    scene.start(&config).unwrap_err();
    assert_eq!(scene.left(), [scene.files().leases.parent().unwrap()]);
    fs::remove_dir_all(scene.files().leases.parent().unwrap()).unwrap();

    let mut elsewhere = config;
    elsewhere.files = Files::in_dir(Path::new("/nonexistent"));
    nothing(scene.start(&elsewhere).unwrap_err(), "cannot write /nonexistent/dnsmasq.conf");
}

#[test]
fn a_killed_dnsmasq_is_noticed_and_another_process_with_its_number_is_not_signalled() {
    if !have_root(
        "a_killed_dnsmasq_is_noticed_and_another_process_with_its_number_is_not_signalled",
    ) {
        return;
    }
    let scene = Scene::new();
    let config = default(scene.files());
    let running = scene.start(&config).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(running.pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    // A killed process loses its arguments before the kernel closes its sockets.
    let stat = || fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap_or_default();
    let is_gone = || stat().rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    assert!(wait_until(AT_MOST, is_gone));
    assert!(!running.is_running());
    assert_eq!(scene.find(), None);
    // Another process has the number now.
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(scene.files().pid, sleeper.id().to_string()).unwrap();
    assert!(scene.stop(Leases::Remove).is_empty());
    assert_eq!(sleeper.try_wait().unwrap(), None, "it was not signalled");
    assert_eq!(scene.left(), [] as [PathBuf; 0]);

    // One whose pid file is gone or wrong is found all the same, and a start after a kill works.
    scene.start(&config).unwrap();
    fs::write(scene.files().pid, sleeper.id().to_string()).unwrap();
    assert!(scene.stop(Leases::Remove).is_empty());
    assert!(scene.processes().is_empty());
    assert_eq!(sleeper.try_wait().unwrap(), None);
    // One that does not listen to SIGTERM.
    let running = scene.start(&config).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(running.pid()),
        nix::sys::signal::Signal::SIGSTOP,
    )
    .unwrap();
    assert!(scene.stop(Leases::Remove).is_empty());
    assert!(scene.processes().is_empty());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn two_networks_run_at_once_and_serve_only_their_bridges() {
    if !have_root("two_networks_run_at_once_and_serve_only_their_bridges") {
        return;
    }
    let scene = Scene::new();
    scene.start(&default(scene.files())).unwrap();
    scene.host.ip("link add virbr1 type bridge");
    scene.host.ip("address add 192.168.150.1/24 dev virbr1");
    scene.host.ip("link set virbr1 up");
    let second = state();
    let files = Files::in_dir(second.path());
    let mut config = default(files.clone());
    config.interface = name("virbr1");
    config.ranges = vec![Range::V4 {
        start: "192.168.150.2".parse().unwrap(),
        end: "192.168.150.9".parse().unwrap(),
        netmask: "255.255.255.0".parse().unwrap(),
        lease: None,
    }];
    let mut record = scene.host.inside(|| Dnsmasq::plan(Path::new(DNSMASQ), &config).unwrap());
    assert_ne!(record.user, scene.record().unwrap().user, "each has a user of its own");
    let started =
        scene.run(async |_| Dnsmasq::start(Path::new(DNSMASQ), &config, &mut record).await);
    assert!(started.unwrap().is_running());
    assert!(scene.lease().contains("ip='192.168.122."), "each serves its own");

    // From outside, the bridge's address is reachable, but its DNS is not for everyone.
    scene.host.ip(&format!("link add out0 type veth peer name out1 netns {}", scene.guest.name));
    scene.host.ip("address add 198.51.100.1/24 dev out0");
    scene.host.ip("link set out0 up");
    scene.guest.ip("address flush dev eth0");
    scene.guest.ip("address add 198.51.100.2/24 dev out1");
    scene.guest.ip("link set out1 up");
    scene.guest.ip("route add 192.168.122.0/24 via 198.51.100.1");
    let ask =
        || scene.as_guest(&["timeout", "3", "busybox", "nslookup", "localhost.", "192.168.122.1"]);
    assert!(!ask().contains("Name:"), "{}", ask());
    let host = run(
        "ip",
        &["netns", "exec", &scene.host.name, "busybox", "nslookup", "localhost.", "192.168.122.1"],
    );
    assert!(text(&host.stdout).contains("Name:"), "the host itself: {}", text(&host.stdout));

    let stopped = scene.run(async |_| Dnsmasq::stop(Some(&record), &files, Leases::Remove).await);
    assert!(stopped.is_empty(), "{stopped:?}");
    assert!(scene.find().unwrap().is_running(), "the other is left alone");
    assert!(scene.stop(Leases::Remove).is_empty());
}
