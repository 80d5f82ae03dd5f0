//! A plan as text that a POSIX shell runs: the commands of netlaunch, without its supervision.
//!
//! The text can be pasted. All of it that is not one line is a subshell in brackets, which a shell
//! reads whole before QEMU can take the rest from the terminal, and whose EXIT trap removes what it
//! made. The steps have the order of [`crate::launcher`]: directory, then for each NIC passt and
//! the end of its start, or tap, filter and tap up; QEMU. Its exit status is QEMU's.
//!
//! A shell can neither make a pair of sockets nor open a tap by descriptor. Perl, which every
//! Debian has, makes the pair; QEMU gets the tap by its name.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;

use super::hint::with_words;
use super::plan_shell_tap::{by_name, rules, tap_name, with_tap};
use crate::launcher::daemonizes;
use crate::launcher::plan::{NicPlan, Origin, PasstPlan, Plan, TapOwner, Transport, Vmm};
use crate::types::printable::printable;
use crate::types::{quote, shell_line};

/// A Perl program that runs passt and QEMU with a pair of connected sockets. Its arguments: their
/// two descriptor numbers, passt's log, the number of passt's words, those, QEMU's.
const PAIR: &str = "socketpair(A,B,AF_UNIX,SOCK_STREAM,0)||die $!; \
    ($p,$q)=map{fcntl($_,F_DUPFD,100)||die $!}(A,B); ($m,$n,$log,$c,@w)=@ARGV; \
    @p=splice(@w,0,$c); defined($k=fork)||die $!; \
    if($k==0){open(STDERR,\">\",$log);dup2($p,$m);close_($p,$q);exec{$p[0]}@p;exit 127} \
    dup2($q,$n);close_($p,$q);exec{$w[0]}@w;exit 127; \
    sub close_{POSIX::close($_) for @_}";

/// The lines of a subshell, and the commands that undo them.
#[derive(Default)]
pub(super) struct Script {
    pub(super) lines: Vec<String>,
    /// The commands of the EXIT trap, the last step's first.
    undo: Vec<String>,
}

impl Script {
    /// Makes the EXIT trap run `command` before the commands of the steps so far.
    pub(super) fn undo(&mut self, command: String) {
        self.undo.insert(0, command);
        self.set_trap();
    }

    fn set_trap(&mut self) {
        let trap = format!("trap {} EXIT", quote(OsStr::new(&self.undo.join("; "))));
        if self.lines.last() != Some(&trap) {
            self.lines.push(trap);
        }
    }
}

/// The plan as shell lines, comments first.
pub fn shell(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.nics.iter().flat_map(|nic| head(plan, nic)).collect();
    lines.extend(
        plan.warnings
            .iter()
            .map(|warning| format!("# warning: {}", printable(&with_words(warning.clone())))),
    );
    lines.extend(
        plan.notes.iter().map(|note| format!("# note: {}", printable(&with_words(note.clone())))),
    );
    let bridges = plan.nics.iter().filter_map(|nic| nic.bridge.as_ref());
    lines.extend(bridges.flat_map(rules));
    let is_made = |nic: &NicPlan| {
        let tap = nic.bridge.as_ref().filter(|bridge| bridge.tap_owner == TapOwner::Netlaunch);
        nic.passt.is_some() || tap.is_some()
    };
    if plan.nics.iter().any(is_made) {
        lines.extend(subshell(plan));
    } else {
        lines.push(qemu(plan));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The comments about a NIC's backend. A single NIC needs no name.
fn head(plan: &Plan, nic: &NicPlan) -> Vec<String> {
    let name = match (&nic.id, plan.nics.len()) {
        (_, 1) => String::new(),
        (Some(id), _) => format!("{id}: "),
        (None, _) => "a NIC without an id: ".to_owned(),
    };
    let mut lines = vec![format!("# {name}backend: {}", nic.backend)];
    let fallback = nic.fallback.iter();
    lines.extend(fallback.map(|why| format!("# {name}fallback: {}", printable(why))));
    lines.extend(change(nic).map(|change| format!("# {name}{}", printable(&change))));
    lines
}

/// The change of a NIC of the caller's arguments as a clause.
pub(super) fn change(nic: &NicPlan) -> Option<String> {
    match &nic.origin {
        Origin::Adopted { written, change } => Some(format!("{written} is now {change}")),
        Origin::Left { written, .. } if nic.args.is_empty() => Some(format!("{written} stays")),
        Origin::Left { written, .. } => Some(format!("{written} is now {}", shell_line(&nic.args))),
        Origin::Added => None,
    }
}

/// The lines that make the networks and run QEMU.
fn subshell(plan: &Plan) -> Vec<String> {
    let mut script = Script::default();
    script.lines.push("(".to_owned());
    let mut passts = plan.nics.iter().filter_map(|nic| nic.passt.as_ref()).peekable();
    match passts.peek() {
        Some(first) => make_dir(plan, first, &mut script),
        None => script.lines.push("trap 'exit 1' HUP INT TERM".to_owned()),
    }
    let mut variables = Vec::new();
    for (place, nic) in plan.nics.iter().enumerate() {
        if let Some(passt) = &nic.passt {
            let variable = variable(variables.len());
            with_passt(plan, nic, passt, &variable, &mut script);
            variables.push(format!("${variable}"));
        } else if let Some(bridge) = &nic.bridge {
            with_tap(plan, nic, bridge, place, &mut script);
        }
    }
    let with_pair = plan.nics.iter().filter(|_| plan.qemu.name.is_some());
    let words: Vec<String> = with_pair.filter_map(pair).collect();
    let goes_on = daemonizes(&plan.qemu.all_args);
    let or_exit = if goes_on { " || exit" } else { "" };
    script.lines.push(words.concat() + &qemu(plan) + or_exit);
    if goes_on && variables.is_empty() {
        let line = "# the daemon goes on, and its network ends here: drop -daemonize";
        script.lines.push(line.to_owned());
    } else if goes_on || plan.qemu.name.is_none() {
        // Until the QEMU that the caller starts, or the daemon, has come and left.
        script.lines.push(format!("wait {}", variables.join(" ")));
    }
    script.lines.push(")".to_owned());
    script.lines
}

/// Makes the launch directory.
fn make_dir(plan: &Plan, passt: &PasstPlan, script: &mut Script) {
    let dir = quote(plan.dir.as_os_str());
    let root = quote(plan.dir.parent().unwrap_or(&plan.dir).as_os_str());
    let mode = if passt.user.is_some() { "0711" } else { "0700" };
    script.lines.push("made=".to_owned());
    let make_root = format!("[ -d {root} ] || {{ mkdir -p -m {mode} {root} && made=1; }}");
    script.lines.push(make_root);
    script.lines.push(format!("mkdir -m 0700 {dir} || exit"));
    script.lines.push("trap 'exit 1' HUP INT TERM".to_owned());
    // The first step behind sets the trap.
    script.undo.push(format!("rm -r {dir}; [ -z \"$made\" ] || rmdir {root}"));
}

/// The shell variable with the process ID of the passt that starts after this many others.
fn variable(before: usize) -> String {
    if before == 0 { "passt".to_owned() } else { format!("passt{}", before + 1) }
}

/// Starts passt and waits until it serves. With the fd transport, `pair` starts it with QEMU.
fn with_passt(plan: &Plan, nic: &NicPlan, passt: &PasstPlan, variable: &str, script: &mut Script) {
    let dir = quote(plan.dir.as_os_str());
    if let Some(user) = passt.user {
        script.lines.push("# open to passt's user, until passt serves".to_owned());
        script.lines.push(format!("chgrp {} {dir} && chmod 1770 {dir}", user.gid));
    }
    if nic.transport == Some(Transport::Fd) {
        script.set_trap();
        if plan.qemu.name.is_none() {
            let about = "# with a connection of the caller's socket as passt's descriptor 3";
            script.lines.push(about.to_owned());
            script.lines.push(format!("{} &", shell_line(&passt.argv)));
            script.lines.push(format!("{variable}=$!"));
        }
        return;
    }
    let (log, argv) = (quote(passt.log.as_os_str()), shell_line(&passt.argv));
    script.lines.push(format!("{argv} 2>{log} &"));
    script.lines.push(format!("{variable}=$!"));
    script.undo(format!("kill ${variable} 2>/dev/null; wait ${variable}"));
    let written = passt.argv.iter().any(|word| word == passt.pid.as_os_str());
    let sign = match &passt.socket {
        Some(socket) if !written => format!("-S {}", quote(socket.as_os_str())),
        _ => format!("-s {}", quote(passt.pid.as_os_str())),
    };
    script
        .lines
        .push(format!("while kill -0 ${variable} 2>/dev/null && ! [ {sign} ]; do sleep 0.1; done"));
    script.lines.push(format!("kill -0 ${variable} 2>/dev/null || {{ cat {log} >&2; exit 1; }}"));
    if passt.user.is_some() {
        script.lines.push(format!("chmod 0700 {dir} && chgrp 0 {dir}"));
    }
    if let (Some(path), Some(socket)) = (&plan.listen, &passt.socket) {
        let (path, socket) = (quote(path.as_os_str()), quote(socket.as_os_str()));
        script.lines.push(format!("ln -s {socket} {path} || exit"));
        script.undo(format!("rm {path}"));
    }
}

/// The words that run passt and the rest of the line with a pair of sockets; `None` with another
/// transport.
fn pair(nic: &NicPlan) -> Option<String> {
    let passt = nic.passt.as_ref().filter(|_| nic.transport == Some(Transport::Fd))?;
    let numbers = [passt.fd, nic.fd].map(|fd| fd.unwrap_or(-1).to_string());
    let mut words: Vec<OsString> =
        ["perl", "-MSocket", "-MFcntl", "-MPOSIX=dup2", "-e", PAIR].map(OsString::from).into();
    words.extend(numbers.map(OsString::from));
    words.push(passt.log.clone().into());
    words.push(passt.argv.len().to_string().into());
    words.extend(passt.argv.iter().cloned());
    Some(format!("{} ", shell_line(&words)))
}

/// The line of QEMU; in serve mode a comment with its arguments.
fn qemu(plan: &Plan) -> String {
    let Some(argv) = plan.qemu.argv() else {
        let vmm = if plan.vmm == Vmm::Qemu { "QEMU" } else { plan.vmm.name() };
        return format!("# {vmm}: {}", shell_line(&plan.qemu.args));
    };
    let nics = plan.nics.iter().enumerate();
    let taps: Vec<_> = nics
        .filter_map(|(place, nic)| Some((nic.bridge.as_ref()?, tap_name(plan, place)?)))
        .collect();
    let argv: Vec<OsString> = argv.iter().map(|word| by_name(word, &taps)).collect();
    let mut line = String::new();
    if let Some(user) = &plan.user {
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "setpriv --reuid {user} --regid \"$(id -g {user})\" --init-groups --inh-caps=-all --no-new-privs "
        );
    }
    line + &shell_line(&argv)
}
