//! A signal to netlaunch does to QEMU what it does to a QEMU without netlaunch, and leaves nothing.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use super::*;

/// Signals that end a program by default, and SIGPIPE, which QEMU ignores. QEMU ends in an orderly
/// way by SIGTERM, SIGINT and SIGHUP; tests of their own have these. No signal of a fault is here,
/// which ends netlaunch as SIGKILL does.
const SIGNALS: [Signal; 12] = [
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGPIPE,
    Signal::SIGALRM,
    Signal::SIGSTKFLT,
    Signal::SIGXCPU,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// Returns the numbers of the signals, also of some real-time signals.
fn numbers() -> Vec<i32> {
    let real_time = [libc::SIGRTMIN(), libc::SIGRTMIN() + 1, libc::SIGRTMAX()];
    SIGNALS.iter().map(|signal| *signal as i32).chain(real_time).collect()
}

fn send(pid: i32, number: i32) {
    let status = Command::new("kill").arg(format!("-{number}")).arg(pid.to_string()).status();
    assert!(status.unwrap().success(), "{number}");
}

/// Starts a command without core files.
fn start_without_core(site: &Site, command: &Command) -> Reaped {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c 0; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args()).env_clear().stdin(Stdio::null());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdout(Stdio::null()).stderr(Stdio::piped()).uid(USER).gid(USER);
    site.start(shell)
}

/// How long an answer may take. On a busy machine, QEMU once did not answer a connection that it
/// got while it started, so the wait for QEMU asks again.
const ANSWER: Duration = Duration::from_secs(20);

/// Returns whether the QEMU with this QMP socket answers a question.
fn answers(socket: &Path) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let question = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}\n";
        stream.write_all(question.as_bytes())?;
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        Ok(lines.into_iter().any(|line| line.contains("\"running\"")))
    };
    asked().unwrap_or(false)
}

/// The end of QEMU by a signal, or `None` if QEMU goes on.
fn plain_end(site: &Site, place: &Place, number: i32) -> Option<i32> {
    let socket = place.dir.join("state/qmp");
    let mut command = Command::new("/usr/bin/qemu-system-x86_64");
    command.args(QEMU).arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
    let qemu = start_without_core(site, &command);
    assert!(wait_until(LIMIT, || answers(&socket)), "{number}: QEMU does not come up");
    send(qemu.pid(), number);
    let end = if answers(&socket) { None } else { qemu.output(LIMIT).status.signal() };
    let _ = fs::remove_file(&socket);
    end
}

#[test]
fn a_signal_to_netlaunch_does_what_it_does_to_qemu_and_leaves_nothing() {
    if !have_root("a_signal_to_netlaunch_does_what_it_does_to_qemu_and_leaves_nothing") {
        return;
    }
    let site = Site::new(As::User);
    let numbers = numbers();
    let places: Vec<_> = numbers.iter().map(|n| site.place(&format!("signal{n}"))).collect();
    let survived = Mutex::new(Vec::new());
    each(numbers.len(), 2, |n| {
        let (place, number) = (&places[n], numbers[n]);
        let plain = plain_end(&site, place, number);
        let socket = place.dir.join("qmp");
        let listen = format!("unix:{},server=on,wait=off", socket.display());
        chown(&place.dir, Some(USER), Some(USER)).unwrap();
        let launch = start_without_core(&site, &place.netlaunch(&[], &["-qmp", &listen]));
        up(place, launch.pid());
        assert!(wait_until(LIMIT, || answers(&socket)), "{number}: QEMU does not come up");
        send(launch.pid(), number);
        if plain.is_none() {
            survived.lock().unwrap().push(number);
            assert!(answers(&socket) && alive(launch.pid()), "signal {number} ends the launch");
            signal(launch.pid(), Signal::SIGTERM);
        }
        let output = launch.output(LIMIT);
        let expected = plain.map_or(0, |signal| 128 + signal);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "signal {number}: {said}");
        place.assert_clean(&format!("signal {number}"));
    });
    eprintln!(
        "{} signals to netlaunch, as QEMU alone: it goes on after {:?}",
        numbers.len(),
        survived.lock().unwrap()
    );
}

#[test]
fn each_signal_ends_serve_mode_and_leaves_nothing() {
    if !have_root("each_signal_ends_serve_mode_and_leaves_nothing") {
        return;
    }
    let site = Site::new(As::User);
    let numbers: Vec<i32> =
        numbers().into_iter().filter(|number| *number != Signal::SIGPIPE as i32).collect();
    let places: Vec<_> = numbers.iter().map(|n| site.place(&format!("serve{n}"))).collect();
    each(numbers.len(), 2, |n| {
        let (place, number) = (&places[n], numbers[n]);
        let passt = place.dir.join("passt").display().to_string();
        let command = place.bare(&["--backend", "passt", "--passt", &passt]);
        let launch = start_without_core(&site, &command);
        let serves = || place.records().iter().any(|record| !record["passt"].is_null());
        assert!(wait_until(LIMIT, serves), "{number}: passt does not serve");
        send(launch.pid(), number);
        let output = launch.output(LIMIT);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + number), "signal {number}: {said}");
        place.assert_clean(&format!("signal {number} in serve mode"));
    });
}
