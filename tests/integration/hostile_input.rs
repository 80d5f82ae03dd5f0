//! Tests input that is not a document, never ends, is a megabyte long or steers a terminal:
//! netlaunch answers each with one clear line.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{As, Netns, Sandbox, finish, have_root, start, text};
use nix::sys::stat::Mode;
use serde_json::Value;

/// Far more than a refusal takes.
const LIMIT: Duration = Duration::from_secs(60);

struct Scene {
    sandbox: Sandbox,
    _netns: Netns,
}

impl Scene {
    fn new() -> Self {
        let netns = Netns::routed();
        Scene { sandbox: Sandbox::new(As::Root, Some(&netns)), _netns: netns }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.sandbox.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.sandbox.path(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    }

    /// Returns the output of netlaunch, which ends within the limit.
    fn ends<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        start(self.sandbox.netlaunch(args)).output(LIMIT)
    }

    fn bash(&self, line: &str) -> Output {
        let mut command = self.sandbox.program(Path::new("bash"));
        let netlaunch = self.sandbox.path("bin/netlaunch").display().to_string();
        command.args(["-c", &line.replace("{}", &netlaunch)]);
        start(command).output(LIMIT)
    }
}

/// The one line of a refusal.
fn refused(output: &Output, what: &str) -> String {
    let line = text(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code == 2 || code == 125), "{what}: {line}");
    assert_eq!(line.lines().count(), 1, "{what}: {line}");
    assert!(line.starts_with("netlaunch: "), "{what}: {line}");
    line
}

#[test]
fn a_fifo_or_a_device_is_no_input() {
    if !have_root("a_fifo_or_a_device_is_no_input") {
        return;
    }
    let scene = Scene::new();
    let fifo = scene.fifo("fifo").display().to_string();
    for (file, why) in [(fifo.as_str(), "is a FIFO"), ("/dev/zero", "it is a device")] {
        for command in [
            vec!["network", "define", file],
            vec!["nwfilter", "define", file],
            vec!["nwfilter", "binding-create", file],
            vec!["nwfilter", "explain", "allow-arp", "--pcap", file, "--direction", "in"],
        ] {
            let line = refused(&scene.ends(&command), &format!("{command:?}"));
            assert!(line.contains(why) && line.contains(file), "{command:?}: {line}");
        }
    }
    for (name, command) in [
        ("config/netlaunch.conf", &["ps"][..]),
        ("config/network.conf", &["network", "start", "none"]),
        ("config/nwfilter.conf", &["nwfilter", "binding-list"]),
        ("config/networks/wedge.xml", &["network", "dumpxml", "wedge"]),
        ("config/nwfilter/wedge.xml", &["nwfilter", "dumpxml", "wedge"]),
    ] {
        fs::create_dir_all(scene.sandbox.path(name).parent().unwrap()).unwrap();
        let path = scene.fifo(name);
        let line = refused(&scene.ends(command), name);
        assert!(line.contains("it is a FIFO"), "{name}: {line}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_pipe_of_the_callers_is_read() {
    if !have_root("a_pipe_of_the_callers_is_read") {
        return;
    }
    let scene = Scene::new();
    let xml = scene.write("f.xml", "<filter name='piped'/>\n");
    let xml = xml.display();
    for line in [
        format!("{{}} nwfilter define <(sleep 0.2; cat {xml})"),
        format!("cat {xml} | {{}} nwfilter define /dev/stdin"),
        format!("cat {xml} | {{}} nwfilter define -"),
    ] {
        let output = scene.bash(&line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        assert!(scene.sandbox.good(&["nwfilter", "dumpxml", "piped"]).contains("'piped'"));
        scene.sandbox.good(&["nwfilter", "undefine", "piped"]);
    }
    let line = "{} nwfilter explain allow-arp --pcap <(cat /dev/zero) --direction in";
    let output = scene.bash(line);
    let said = refused(&output, line);
    assert!(said.contains("it is neither pcap nor pcapng"), "{said}");
    // The first frame has no end: it would be 4 GiB long.
    let head = r"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0";
    let frame = r"\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
    let line = format!(
        "{{}} nwfilter explain allow-arp --pcap <(printf '{head}{frame}'; cat /dev/zero) --direction in"
    );
    let said = refused(&scene.bash(&line), &line);
    assert!(said.contains("it is damaged behind frame 0"), "{said}");
}

#[test]
fn a_long_value_is_not_echoed_whole() {
    if !have_root("a_long_value_is_not_echoed_whole") {
        return;
    }
    let scene = Scene::new();
    let long = "x".repeat((1 << 20) - 100);
    for (name, content, command) in [
        ("config/netlaunch.conf", format!("backend = \"{long}\""), &["ps"][..]),
        ("config/netlaunch.conf", format!("{long} = 1"), &["ps"]),
        ("f.xml", format!("<filter name='{long}'/>"), &["nwfilter", "define"]),
        ("f.xml", format!("<{long}/>"), &["nwfilter", "define"]),
        ("f.xml", format!("<network><name>{long}</name></network>"), &["network", "define"]),
    ] {
        let path = scene.write(name, &content);
        let mut command = command.to_vec();
        let file = path.display().to_string();
        if name == "f.xml" {
            command.push(&file);
        }
        for format in ["text", "json"] {
            let mut command = command.clone();
            if name == "f.xml" {
                command.extend(["--log-format", format]);
            }
            let output = scene.ends(&command);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said:.300}");
            assert!(said.len() < 2000 && said.lines().count() == 1, "{} {said:.3000}", said.len());
        }
        fs::remove_file(path).unwrap();
    }
    // The longest that one argument can be.
    let long = "x".repeat(120_000);
    for option in ["--backend", "--mac", "-p", "--name", "--id", "--unknown"] {
        let line = refused(&scene.ends(&[option, &long]), option);
        assert!(line.len() < 2000, "{option}: {line:.3000}");
    }
}

#[test]
fn printed_arguments_do_not_steer_a_terminal() {
    if !have_root("printed_arguments_do_not_steer_a_terminal") {
        return;
    }
    let scene = Scene::new();
    let steers = |output: &Output| {
        let all = [output.stdout.clone(), output.stderr.clone()].concat();
        let shown = String::from_utf8_lossy(&all).into_owned();
        (shown.contains(|c: char| c.is_control() && c != '\n'), shown)
    };
    let bad = [&b"a\x1b]0;x\x07b"[..], "c\u{9b}2Jd".as_bytes(), b"e\xff\xfef", b"g\x7fh\ri\nj"];
    for format in ["--print", "--print=json"] {
        let mut args: Vec<&OsStr> =
            ["-v", format, "--pcap", "p\x1b[1mq", "--"].map(OsStr::new).into();
        args.push(OsStr::new("qemu-system-x86_64"));
        args.push(OsStr::new("-name"));
        args.extend(bad.iter().map(|word| OsStr::from_bytes(word)));
        let output = scene.ends(&args);
        let (steers, shown) = steers(&output);
        assert!(output.status.success() && !steers, "{shown:?}");
        if format == "--print" {
            assert!(shown.contains(r"$'a\033]0;x\007b'"), "{shown}");
            assert!(shown.contains(r"file=p\033[1mq'"), "{shown}");
        } else {
            assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "{shown}");
        }
    }
    // Names in messages, and bytes that are no text.
    let odd = OsStr::from_bytes(b"/nonexistent/\x1b[2J\xff");
    for args in [
        vec![OsStr::new("network"), OsStr::new("define"), odd],
        vec![OsStr::new("nwfilter"), OsStr::new("define"), odd],
        vec![OsStr::new("--qemu"), odd],
        vec![OsStr::new("--passt"), odd, OsStr::new("--backend"), OsStr::new("passt")],
        vec![OsStr::new("--"), odd],
        vec![OsStr::new("--name"), odd],
        vec![odd],
    ] {
        let output = scene.ends(&args);
        let (steers, shown) = steers(&output);
        assert!(!steers && !shown.contains("panicked"), "{args:?} {shown:?}");
        assert!(matches!(output.status.code(), Some(2 | 125..=127)), "{args:?}: {shown}");
    }
    let output = scene.ends(&[OsStr::new("probe"), OsStr::new("--qemu"), odd]);
    let (steers, shown) = steers(&output);
    assert!(output.status.success() && !steers, "{shown:?}");
}

#[test]
fn a_descriptor_to_report_to_is_the_callers() {
    if !have_root("a_descriptor_to_report_to_is_the_callers") {
        return;
    }
    let scene = Scene::new();
    let launch = "--backend slirp -- qemu-system-x86_64 -M none -no-such-option";
    for number in (3..40).chain([1023, 1_000_000, i32::MAX]) {
        for launch in [launch, "--backend slirp"] {
            // The test's own process may have passed one on.
            let closed = if number < 40 { format!("{number}>&-") } else { String::new() };
            let line = format!("exec {{}} --ready-fd {number} {launch} {closed}");
            let said = refused(&scene.bash(&line), &line);
            let why = format!("--ready-fd {number}: not open; name a descriptor that is open");
            assert!(said.contains(&why), "{said}");
        }
    }
    for (open, why) in [("7</dev/null", "open for reading only"), ("7</", "open for reading only")]
    {
        let said = refused(&scene.bash(&format!("{{}} --ready-fd 7 {launch} {open}")), open);
        assert!(said.contains(why), "{said}");
    }
    // An open descriptor gets the report, whatever its number is.
    for number in [3, 4, 5, 9] {
        let report = scene.sandbox.path("report");
        let line = format!(
            "{{}} --ready-fd {number} --backend slirp --qemu qemu-system-x86_64 {number}>{}",
            report.display()
        );
        let output = scene.bash(&line);
        assert!(output.status.success(), "{number}: {}", text(&output.stderr));
        assert_eq!(fs::read_to_string(&report).unwrap(), "READY=1\n", "{number}");
    }
}

/// Without /proc the routes are unknown; that is not a host without any.
#[test]
fn a_missing_proc_is_named() {
    if !have_root("a_missing_proc_is_named") {
        return;
    }
    let scene = Scene::new();
    let run = |args: &str| {
        let mut command: Command = scene.sandbox.program(Path::new("unshare"));
        let netlaunch = scene.sandbox.path("bin/netlaunch").display().to_string();
        let line = format!("mount -t tmpfs none /proc && exec {netlaunch} {args}");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &line]);
        finish(command)
    };
    let output = run("probe --json");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["host"]["unknown"], "/proc is not mounted", "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("no default route"));
    let shown = text(&run("probe").stdout);
    assert!(shown.contains("/proc is not mounted") && shown.contains("mount /proc"), "{shown}");
    let said = text(&run("--print -- qemu-system-x86_64").stderr);
    assert!(said.contains("the host's routes are not known: /proc is not mounted"), "{said}");
}

#[test]
fn an_owner_needs_no_uuid_and_a_document_no_second_mark() {
    if !have_root("an_owner_needs_no_uuid_and_a_document_no_second_mark") {
        return;
    }
    let scene = Scene::new();
    let filter = scene.write("f.xml", "\u{feff}\u{feff}<filter name='marked'/>\n");
    let filter = filter.display().to_string();
    let line = refused(&scene.ends(&["nwfilter", "define", &filter]), "two marks");
    assert!(line.contains("1:1: a second byte order mark"), "{line}");
    fs::write(&filter, "\u{feff}<filter name='marked'/>\n").unwrap();
    scene.sandbox.good(&["nwfilter", "define", &filter]);

    scene._netns.ip("link add vnet7 type veth peer name vnet8");
    scene._netns.ip("link add br7 type bridge");
    scene._netns.ip("link set vnet7 master br7");
    let binding = scene.write(
        "b.xml",
        "<filterbinding><owner><name>vm</name></owner><portdev name='vnet7'/>\
         <mac address='52:54:00:11:22:33'/><filterref filter='marked'/></filterbinding>",
    );
    let parsed = scene.ends(&["nwfilter", "binding-create", &binding.display().to_string()]);
    let said = text(&parsed.stderr);
    assert!(!said.contains("<owner> needs"), "{said}");
    if parsed.status.success() {
        let dumped = scene.sandbox.good(&["nwfilter", "binding-dumpxml", "vnet7"]);
        assert!(dumped.contains("<name>vm</name>\n    <uuid>"), "{dumped}");
        scene.sandbox.good(&["nwfilter", "binding-delete", "vnet7"]);
    }
}
