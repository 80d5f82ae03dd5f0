//! The golden texts of the corpus.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use netlaunch::cli::config::Config;
use netlaunch::cli::{parse, request};
use netlaunch::launcher::adopt::{Change, UserNic, apply, edits, user_nics};
use netlaunch::launcher::plan::{AddressChoice, Family, NicRequest};
use netlaunch::launcher::qemu_options::{CommandLine, pass_through};
use netlaunch::types::facts::{Facts, Host, Passt, Qemu};
use netlaunch::types::{error_text, shell_line};

const OLD: &str = include_str!("../../fixtures/probe/passt-2023-03-help.txt");
const NEW: &str = include_str!("../../fixtures/probe/passt-2026-10-help.txt");

/// One case of a file: its head as it stands there, and the text expected.
pub(super) struct Case {
    pub(super) file: PathBuf,
    head: String,
    expected: String,
}

/// The line of a case after netlaunch has moved its networks.
pub(super) struct Adopted {
    pub(super) program: String,
    pub(super) before: Vec<OsString>,
    pub(super) after: Vec<OsString>,
    pub(super) nics: Vec<UserNic>,
}

impl Case {
    pub(super) fn value(&self, key: &str) -> &str {
        let prefix = format!("{key}:");
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().trim()
    }

    fn facts(&self) -> Facts {
        let help = if self.value("passt") == "old" { OLD } else { NEW };
        let options =
            help.split_whitespace().filter_map(|w| w.trim_end_matches(',').strip_prefix("--"));
        let passt = Passt {
            path: Some("/usr/bin/passt".into()),
            options: options.map(str::to_owned).collect(),
            ..Passt::default()
        };
        let mut host =
            Host { default_v4: Some("eth0".into()), first_port: 1024, ..Host::default() };
        for word in self.value("host").split_whitespace() {
            match word {
                "v6" => host.default_v6 = Some("eth0".into()),
                "root" => (host.root, host.first_port) = (true, 0),
                _ => panic!("host: {word}"),
            }
        }
        let default_card = Some(self.value("card") != "no");
        Facts { passt, qemu: Qemu { default_card, ..Qemu::default() }, host, ..Facts::default() }
    }

    fn options(&self) -> NicRequest {
        let words = shell_words::split(self.value("options")).unwrap();
        let words = std::iter::once("netlaunch".to_owned()).chain(words).map(OsString::from);
        let args = parse::parse(words).unwrap().launch;
        request::job(&args, &Config::default()).unwrap().request.nic
    }

    /// Moves each NIC that can leave slirp to a socket at `socket`.
    pub(super) fn adopted(&self, socket: &Path) -> Adopted {
        for line in self.head.lines().filter(|line| !line.starts_with('#')) {
            let key = line.split(':').next().unwrap();
            assert!(["passt", "card", "host", "options", "line"].contains(&key), "{line}");
        }
        let mut words = shell_words::split(self.value("line")).unwrap().into_iter();
        let program = words.next().unwrap();
        let before: Vec<OsString> = words.map(OsString::from).collect();
        let line = CommandLine::parse(&before);
        let settings = line.settings(&[]);
        let nics = user_nics(&line, &settings, &self.options(), &self.facts());
        let change = |nic: &UserNic| {
            let (id, path) = (&nic.id, socket.display());
            let netdev = format!("stream,id={id},server=off,addr.type=unix,addr.path={path}");
            Change::Replace { args: vec!["-netdev".into(), netdev.into()], mtu: None }
        };
        let moved = nics.iter().filter(|nic| nic.request.is_ok());
        let changes: Vec<_> = moved.map(|nic| (nic, change(nic))).collect();
        let after = apply(&line, &edits(&line, &settings, &changes));
        Adopted { program, before, after, nics }
    }

    fn outcome(&self) -> String {
        let adopted = self.adopted(Path::new("/run/s"));
        if let Some(reason) = pass_through(&CommandLine::parse(&adopted.before)) {
            return format!("passes through: {reason}\n");
        }
        let mut text = String::new();
        for nic in &adopted.nics {
            match &nic.request {
                Ok(request) => {
                    writeln!(text, "adopts {} as {}{}", nic.written, nic.id, said(request))
                }
                Err(left) => writeln!(text, "leaves {}: {}", nic.written, error_text(left)),
            }
            .unwrap();
        }
        if adopted.before == adopted.after {
            text.push_str("unchanged\n");
        } else {
            writeln!(text, "{} {}", adopted.program, shell_line(&adopted.after)).unwrap();
        }
        text
    }
}

/// A request in netlaunch's own options.
fn said(request: &NicRequest) -> String {
    let mut text = String::new();
    let mut add = |option: &str, value: String| write!(text, " --{option} {value}").unwrap();
    if let AddressChoice::Fixed(address) = request.address {
        add("address", address.to_string());
    }
    if let Some(gateway) = request.gateway {
        add("gateway", gateway.to_string());
    }
    if let Some(dns) = request.dns {
        add("dns", dns.to_string());
    }
    request.search.iter().for_each(|domain| add("search", domain.to_string()));
    if let Some(hostname) = &request.hostname {
        add("hostname", hostname.to_string());
    }
    request.publish.iter().for_each(|publish| add("publish", publish.to_string()));
    match request.family {
        Family::Both => {}
        Family::V4 => text.push_str(" --ipv4-only"),
        Family::V6 => text.push_str(" --ipv6-only"),
    }
    text
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/adopt/corpus")
}

/// All cases, in the order of the files' names.
pub(super) fn cases() -> Vec<Case> {
    let mut files: Vec<_> =
        fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let case = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let blocks: Vec<String> = text.split("\n\n").map(|block| block.trim().to_owned()).collect();
        blocks.into_iter().filter(|block| !block.is_empty()).map(move |block| {
            let (head, expected) = block.split_once("\n>").unwrap_or((&block, ""));
            let (head, expected) = (head.to_owned(), expected.trim().to_owned());
            Case { file: file.clone(), head, expected }
        })
    };
    files.into_iter().flat_map(case).collect()
}

#[test]
fn command_lines_of_programs_and_scripts_equal_the_golden_texts() {
    let all = cases();
    if std::env::var_os("NETLAUNCH_BLESS").is_some() {
        for part in all.chunk_by(|a, b| a.file == b.file) {
            let text = |case: &Case| format!("{}\n>\n{}\n", case.head, case.outcome().trim_end());
            let text: Vec<_> = part.iter().map(text).collect();
            fs::write(&part[0].file, text.join("\n")).unwrap();
        }
        return;
    }
    for case in &all {
        let outcome = case.outcome();
        assert_eq!(outcome.trim(), case.expected, "{}:\n{}", case.file.display(), case.head);
    }
    let passed = all.iter().filter(|case| case.expected.starts_with("passes through")).count();
    let unchanged = all.iter().filter(|case| case.expected.ends_with("unchanged")).count();
    eprintln!(
        "{} command lines: {} change, {unchanged} stay, {passed} pass through",
        all.len(),
        all.len() - unchanged - passed
    );
    assert!(all.len() >= 150, "{} command lines", all.len());
}
