//! netlaunch as a stand-in for QEMU: calls that go straight to the real program.
//!
//! A stand-in must not be told from the program that it stands in for: by its output, its status,
//! its environment, its descriptors, its signals, or its own name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::wrapped::{NAME, Wrapped, qemu};
use crate::common::{finish, text};

/// Runs a command with this text on its standard input.
fn fed(mut command: Command, input: &str) -> Output {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn same(through: &Output, plain: &Output, what: &str) {
    assert_eq!(text(&through.stdout), text(&plain.stdout), "{what}");
    assert_eq!(text(&through.stderr), text(&plain.stderr), "{what}");
    assert_eq!(through.status, plain.status, "{what}");
}

#[test]
fn a_probe_call_has_exactly_the_output_and_the_status_of_qemu() {
    let Some(qemu) = qemu("probe calls of QEMU") else { return };
    let wrapped = Wrapped::new();
    let quit =
        "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-kvm\"}\n{\"execute\":\"quit\"}\n";
    for (line, input) in [
        ("-version", ""),
        ("--version", ""),
        ("-help", ""),
        ("-machine help", ""),
        ("-device virtio-net-pci,help", ""),
        ("-display none -machine accel=kvm:tcg -device ?", ""),
        ("-display none -machine accel=kvm:tcg -qmp stdio", quit),
        ("-display none -machine none,accel=kvm:tcg -qmp stdio -S", quit),
        ("-nodefaults -display none -S -qmp stdio", quit),
        ("-nodefaults -nosuch", ""),
        ("-nic none -netdev nosuch", ""),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let output = |mut command: Command| {
            command.args(&words);
            let mut output = fed(command, input);
            // The time of a QMP event differs from run to run.
            let lines = text(&output.stdout);
            let lines = lines.lines().map(|l| l.split("\"timestamp\"").next().unwrap_or_default());
            output.stdout = lines.collect::<Vec<_>>().join("\n").into_bytes();
            output
        };
        let mut plain = wrapped.sandbox.program(&qemu);
        plain.arg0(NAME);
        same(&output(wrapped.command()), &output(plain), line);
    }
    assert_eq!(wrapped.log().lines().count(), 11, "{}", wrapped.log());
}

/// Copies a tool and makes its file as large as a QEMU's, since a small one counts as a wrapper.
fn of_qemus_size(wrapped: &Wrapped, tool: &str) -> String {
    let name = Path::new(tool).file_name().unwrap().to_str().unwrap();
    let copy = wrapped.sandbox.path(&format!("bin/{name}"));
    fs::copy(tool, &copy).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_len(4 << 20).unwrap();
    copy.display().to_string()
}

/// Returns the output of the tool `tool` with `file`, called as a stand-in and called by itself.
///
/// A tool takes the words after `--` for files, and QEMU's options do not end there: `-help` makes
/// the call one that passes through.
fn both(wrapped: &Wrapped, tool: &str, file: &str, shell: &str) -> (Output, Output) {
    let tool = of_qemus_size(wrapped, tool);
    let tool = tool.as_str();
    let run = |program: &Path| {
        let mut command = wrapped.sandbox.program(Path::new("/bin/bash"));
        let line = format!("{shell}; exec -a {NAME} {} {file} -- -help", program.display());
        command.args(["-c", &line]).env("NETLAUNCH_QEMU", tool).env("A", "1").env("B", "");
        command.env_remove("NETLAUNCH_WRAP_LOG");
        finish(command)
    };
    (run(&wrapped.program()), run(Path::new(tool)))
}

#[test]
fn the_real_program_has_the_callers_arguments_environment_descriptors_and_signals() {
    let wrapped = Wrapped::new();
    let ignored = "trap '' PIPE XFSZ USR1";
    let open = format!("exec 7< {}", wrapped.program().display());
    for (tool, file, shell) in [
        ("/bin/cat", "/proc/self/cmdline", ":"),
        ("/bin/cat", "/proc/self/environ", ":"),
        ("/bin/ls", "/proc/self/fd", open.as_str()),
        ("/bin/ls", "/proc/self/fd", "exec <&-"),
        ("/bin/cat", "/proc/self/status", ":"),
        ("/bin/cat", "/proc/self/status", ignored),
    ] {
        let (through, plain) = both(&wrapped, tool, file, shell);
        let kept = |output: &Output| -> Vec<String> {
            let text = text(&output.stdout);
            let of_signals = |line: &&str| !file.ends_with("status") || line.starts_with("Sig");
            // SigQ counts all of the user's signals.
            let lines = text.lines().filter(of_signals).filter(|line| !line.starts_with("SigQ"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(kept(&through), kept(&plain), "{file} with {shell}");
        assert!(!kept(&plain).is_empty(), "{file}");
        assert_eq!(through.status, plain.status);
    }
}

#[test]
fn a_call_needs_no_home_no_runtime_directory_and_no_entry_for_its_user() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo real \"$@\"");
    let mut command = Command::new(wrapped.program());
    command.env_clear().env("NETLAUNCH_QEMU", &real).arg("-nic").arg("none");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(command);
    assert_eq!(text(&output.stdout), "real -nic none\n");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_broken_settings_file_does_not_stop_a_guest() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo real \"$@\"; exit 7");
    fs::write(wrapped.sandbox.path("config/netlaunch.conf"), "nosuch = 1\n").unwrap();
    let mut command = wrapped.command();
    command.args(["-nic", "user"]).env("NETLAUNCH_QEMU", &real);
    let output = finish(command);
    assert_eq!(text(&output.stdout), "real -nic user\n");
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("", Some(7)));
    assert!(
        wrapped.log().contains("netlaunch.conf:1:1: unknown key `nosuch`"),
        "{}",
        wrapped.log()
    );
}

#[test]
fn qemu_does_not_run_if_a_file_that_may_close_the_loopback_cannot_be_read() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo real \"$@\"");
    let dir = wrapped.sandbox.path("config");
    let file = dir.join("netlaunch.conf");
    let call = |line: &str| {
        let mut command = wrapped.command();
        command.args(line.split(' ')).env("NETLAUNCH_QEMU", &real);
        finish(command)
    };
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    let refuses = |reason: &str| {
        for line in ["-nic user", "-readconfig f -nic user", "-kernel k"] {
            let output = call(line);
            let said = text(&output.stderr);
            let start = "netlaunch: error: QEMU does not run, because netlaunch.conf may have host_loopback = false: ";
            assert!(said.starts_with(start) && said.contains(reason), "{line}: {said}");
            assert_eq!((said.lines().count(), output.status.code()), (1, Some(125)), "{line}");
            assert_eq!(text(&output.stdout), "", "{line}");
        }
        for line in ["-version", "-nic none", "-nodefaults"] {
            assert_eq!(text(&call(line).stdout), format!("real {line}\n"));
        }
        assert_eq!(text(&call("-qmp stdio").stdout), "real -qmp stdio -net none\n");
    };
    let runs = || {
        for line in ["-nic user,restrict=on", "-qmp stdio", "-readconfig f -nic user"] {
            let output = call(line);
            let said = text(&output.stderr);
            assert_eq!((text(&output.stdout), said), (format!("real {line}\n"), String::new()));
        }
    };
    runs();
    fs::create_dir(&file).unwrap();
    refuses("netlaunch.conf: cannot be read: Is a directory");
    fs::remove_dir(&file).unwrap();
    std::os::unix::fs::symlink("not-mounted", &file).unwrap();
    refuses("netlaunch.conf: cannot be read: No such file");
    fs::remove_file(&file).unwrap();
    mode(0o777);
    // There is no file, so there is no setting.
    runs();
    fs::write(&file, "").unwrap();
    refuses("is not safe");
    mode(0o755);
    runs();
}

#[test]
fn a_probe_call_has_no_card_if_the_loopback_is_closed() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo real \"$@\"");
    let output = |setting: &str| {
        fs::write(wrapped.sandbox.path("config/netlaunch.conf"), setting).unwrap();
        let mut command = wrapped.command();
        command.args(["-display", "none", "-qmp", "stdio"]).env("NETLAUNCH_QEMU", &real);
        text(&finish(command).stdout)
    };
    assert_eq!(output("[wrap]\nmtu = 1400\n"), "real -display none -qmp stdio\n");
    let closed = output("[wrap]\nhost_loopback = false\n");
    assert_eq!(closed, "real -display none -qmp stdio -net none\n");
    let log = wrapped.log();
    assert!(log.contains("runs with -net none: -qmp stdio on a machine without"), "{log}");
}

#[test]
fn the_same_call_by_hand_has_the_same_output() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo \"$0\" \"$@\"");
    for command in [
        vec!["wrap", "--", NAME, "-nic", "none"],
        vec!["-v", "wrap", "--mtu", "1400", "--", NAME, "-nic", "none"],
    ] {
        let mut command = wrapped.sandbox.netlaunch(&command);
        command.env("NETLAUNCH_QEMU", &real);
        let output = finish(command);
        assert_eq!(text(&output.stderr), "");
        assert_eq!(text(&output.stdout), format!("{} -nic none\n", real.display()));
    }
    let output = finish(wrapped.sandbox.netlaunch(&["wrap", "--", "/none/qemu", "-version"]));
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
}

#[test]
fn parallel_calls_log_whole_lines_that_only_the_user_reads() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("exit 0");
    let start = |_| {
        let mut command = wrapped.command();
        command.arg("-version").env("NETLAUNCH_QEMU", &real).spawn().unwrap()
    };
    let children: Vec<_> = (0..20).map(start).collect();
    let pids: Vec<u32> = children.iter().map(std::process::Child::id).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let log = wrapped.log();
    let end = format!(" {NAME}: {} runs without netlaunch: ", real.display());
    assert!(log.lines().all(|line| line.contains(&end)), "{log}");
    for pid in pids {
        let lines = log.lines().filter(|line| line.contains(&format!("Z {pid} ")));
        assert_eq!(lines.count(), 1, "{pid}: {log}");
    }
    let mode = fs::metadata(wrapped.log_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_log_that_cannot_be_written_changes_nothing() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("echo real");
    for log in ["/nonexistent/log", "/", "/dev/full", ""] {
        let mut command = wrapped.command();
        command.arg("-version").env("NETLAUNCH_QEMU", &real).env("NETLAUNCH_WRAP_LOG", log);
        let output = finish(command);
        assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("real\n", ""));
    }
}

/// libvirt clears the environment of its QEMU, so the variable does not arrive there.
#[test]
fn a_call_is_logged_where_the_settings_file_says_unless_the_environment_has_a_log() {
    let wrapped = Wrapped::new();
    let real = wrapped.real("exit 0");
    let of_the_file = wrapped.sandbox.path("run/file.log");
    let line = format!("[wrap]\nlog = \"{}\"\n", of_the_file.display());
    fs::write(wrapped.sandbox.path("config/netlaunch.conf"), line).unwrap();
    let calls = |log: &Path| fs::read_to_string(log).unwrap_or_default().lines().count();
    for (arguments, variable, in_file, in_variable) in [
        ("-version", Some(wrapped.log_path()), 0, 1),
        ("-version", None, 1, 1),
        ("-nic none", Some(PathBuf::new()), 2, 1),
        ("-nic user,guestfwd=tcp:10.0.2.100:1-cmd:cat", None, 3, 1),
    ] {
        let mut command = wrapped.command();
        command.args(arguments.split(' ')).env("NETLAUNCH_QEMU", &real);
        match variable {
            Some(log) => command.env("NETLAUNCH_WRAP_LOG", log),
            None => command.env_remove("NETLAUNCH_WRAP_LOG"),
        };
        let output = finish(command);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
        let found = (calls(&of_the_file), calls(&wrapped.log_path()));
        assert_eq!(found, (in_file, in_variable), "{arguments}");
    }
}
