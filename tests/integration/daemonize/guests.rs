//! The guest of a daemon has its network.

use super::*;

/// A daemon whose guest answers, and the end of the launch by a SIGTERM to QEMU.
fn guest_answers(who: As, options: &[&str]) {
    let test = "a daemon's guest";
    let (true, Some(guest)) = (have_root(test), Guest::find(test)) else { return };
    let netns = netns_with_resolver(HOST);
    let sandbox = Sandbox::new(who, Some(&netns));
    let console = sandbox.path("run/console");
    let mut qemu = guest.qemu("serve_tcp 80 tcp-answer; sleep 1000");
    for word in qemu.iter_mut().filter(|word| *word == "stdio") {
        *word = format!("file:{}", console.display());
    }
    qemu.extend(["-name".into(), sandbox.path("").display().to_string(), "-daemonize".into()]);
    let command = with(sandbox.netlaunch(&["-p", "2280:80"]), passt_option());
    let output = finish(with(with(with(command, options), ["--"]), qemu));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answer = netns.ask_tcp(2280, Duration::from_secs(90));
    assert_eq!(answer, "tcp-answer\n", "{}", fs::read_to_string(&console).unwrap_or_default());
    let shown = launch(&sandbox);
    assert_eq!(shown["backend"], "passt");
    // passt is started again, as without a daemon.
    let passt = pid_of(&shown, "passt");
    signal(passt, Signal::SIGKILL);
    let again = || pid_of(&launch(&sandbox), "passt") != passt;
    assert!(wait_until(LIMIT, again), "passt is not started again");
    assert_eq!(netns.ask_tcp(2280, Duration::from_secs(90)), "tcp-answer\n");
    signal(pid_of(&shown, "qemu"), Signal::SIGTERM);
    let gone = || processes_with(&sandbox.path("").to_string_lossy()).is_empty();
    assert!(wait_until(LIMIT, gone));
    nothing_left(&sandbox);
}

#[test]
fn the_guest_of_a_daemon_of_root_answers_over_passt() {
    guest_answers(As::Root, &["--backend", "passt", "--transport", "unix"]);
}

#[test]
fn the_guest_of_a_daemon_of_a_user_answers_over_passt() {
    guest_answers(As::User, &["--backend", "passt", "--transport", "unix"]);
}
