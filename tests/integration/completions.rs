//! Tests the completion scripts in the real shells: each shell loads its script and completes the
//! words at the cursor.

use std::path::Path;
use std::process::Command;

use crate::common::definitions::{Host, err};

const LAB: &str = "<network><name>my lab</name><ip address='10.77.9.1' prefix='24'/></network>";

/// Lines up to the cursor, a word that each shell offers, and one that it does not.
const LINES: [(&str, &str, &str); 8] = [
    ("network ", "start", "default"),
    ("network start ", "default", "list"),
    ("network dumpxml m", "lab", "default"),
    ("nwfilter dumpxml clean-t", "clean-traffic", "default"),
    ("--backend ", "passt", "src"),
    ("--network ", "default", "src"),
    ("--no-host", "--no-host-loopback", "--network"),
    ("network list --log-format ", "json", "default"),
];

fn host() -> Host {
    let host = Host::of("network");
    host.good(&format!("define {}", host.file("lab.xml", LAB)));
    std::fs::create_dir(host.path("src")).unwrap();
    host
}

/// Runs a script of a shell in the host's directories and returns what it prints.
fn run(host: &Host, shell: &str, args: &[&str], script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_netlaunch"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut command = Command::new(shell);
    command.args(args).arg(script).env_clear().env("PATH", path).env("TERM", "dumb");
    command.env("HOME", host.path("tmp")).current_dir(host.path(""));
    command.env("NETLAUNCH_CONFIG_DIR", host.path("config"));
    command.env("NETLAUNCH_STATE_DIR", host.path("state"));
    let output = command.output().unwrap_or_else(|e| panic!("{shell}: {e} (./tests/setup)"));
    assert!(output.status.success(), "{shell}: {}", err(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn judge(shell: &str, line: &str, offered: &str, yes: &str, no: &str) {
    assert!(offered.contains(yes), "{shell}: {line:?} does not offer {yes}: {offered:?}");
    let other = offered.split_whitespace().any(|word| word == no || word == format!("{no}/"));
    assert!(!other, "{shell}: {line:?} offers {no}: {offered:?}");
}

#[test]
fn bash_completes_verbs_options_and_names() {
    let host = host();
    for (line, yes, no) in LINES {
        let script = format!(
            "source <(netlaunch completions bash)\nCOMP_WORDS=(netlaunch {line}); [[ '{line}' != *' ' ]] || COMP_WORDS+=('')\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n_netlaunch\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        judge("bash", line, &run(&host, "bash", &["--norc", "-c"], &script), yes, no);
    }
}

#[test]
fn fish_completes_verbs_options_and_names_and_no_files_elsewhere() {
    let host = host();
    for (line, yes, no) in LINES {
        let script =
            format!("netlaunch completions fish | source\ncomplete -C 'netlaunch {line}'\n");
        judge("fish", line, &run(&host, "fish", &["--no-config", "-c"], &script), yes, no);
    }
    let script = "netlaunch completions fish | source\ncomplete -C 'netlaunch network define '\n";
    assert!(run(&host, "fish", &["--no-config", "-c"], script).contains("src/"));
}

/// zsh completes in its line editor only, so a zsh on a pseudo-terminal is typed to. The editor is
/// there when it shows a prompt.
#[test]
fn zsh_completes_verbs_options_and_names() {
    let host = host();
    for (line, yes, no) in LINES {
        let script = format!(
            r#"zmodload zsh/zpty
zpty shell zsh -f -i
await() {{
    local part
    seen=
    repeat 200; do
        while zpty -rt shell part; do seen+=$part; done
        [[ $seen == *$1* ]] && return
        sleep 0.05
    done
    print -ru2 -- "no $1 in $seen"; exit 1
}}
zpty -w shell "PS1='@@ '; stty columns 200; LISTMAX=500; autoload -Uz compinit; compinit -u -D"
zpty -w shell "source <(netlaunch completions zsh); PS1='REA''DY '"
await READY
zpty -wn shell "netlaunch {line}"$'\t'
zpty -wn shell $'\x15'"print EN''D"$'\n'
await $'\nEND'
print -r -- "$seen"
zpty -d shell"#
        );
        let seen = run(&host, "zsh", &["-f", "-c"], &script);
        judge("zsh", line, &seen, yes, no);
    }
}
