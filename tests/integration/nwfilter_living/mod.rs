//! Tests the commands about a bound port: `explain --port`, `--follow` and `binding-list
//! --counters`, on both backends.

mod counters;
mod follow;
mod port;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::common::crowd;
use crate::common::frame::Frame;
use crate::common::port_scene::{PortScene, Station, backends};
use crate::common::{AT_MOST, Reaped, have_root, start, text, wait_until};

/// A filter whose rules are in both stages, with rejections, sub chains and link-local frames.
const RULES: &str = "<rule action='drop' direction='out' priority='100'><arp opcode='2'/></rule>
<rule action='accept' direction='out' priority='200'><arp/></rule>
<rule action='drop' direction='out' priority='300'><mac protocolid='0x9000'/></rule>
<rule action='drop' direction='out' priority='400'><udp dstportstart='53'/></rule>
<rule action='drop' direction='in' priority='400'><udp dstportstart='53'/></rule>
<rule action='reject' direction='out' priority='500'><udp dstportstart='54'/></rule>
<rule action='accept' direction='out' statematch='false' priority='600'><udp srcipaddr='10.2.3.4' dstportstart='55'/></rule>
<rule action='drop' direction='in' priority='700'><udp-ipv6 dstportstart='56'/></rule>";

/// Runs `test` with each backend, in a scene whose filter `test` has these rules.
fn on_both(name: &str, test: impl Fn(&PortScene, &str)) {
    if !have_root(name) {
        return;
    }
    for backend in backends() {
        let scene = PortScene::new(Some(backend));
        scene.define("test", RULES).unwrap();
        test(&scene, backend);
    }
}

/// Does the same, and runs `test` once more with the port in a further table of nftables.
fn on_each(name: &str, test: impl Fn(&PortScene, &str)) {
    on_both(name, &test);
    if have_root(name) {
        let scene = PortScene::new(Some("nftables"));
        scene.settings("firewall_backend = \"nftables\"\nenable_counters = true\n");
        crowd::fill_first_table(&scene.netns, &scene.sandbox);
        scene.settings("firewall_backend = \"nftables\"\n");
        scene.define("test", RULES).unwrap();
        test(&scene, "nftables");
        assert!(scene.ruleset().contains(crowd::TABLE));
    }
}

/// The digits of a frame.
fn hex(frame: &Frame) -> String {
    frame.bytes(b"nltest-hex").iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs `nwfilter` and returns its output, its messages and its status.
fn nwfilter(scene: &PortScene, args: &[&str]) -> (String, String, Option<i32>) {
    let output = scene.nwfilter(args);
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// A command that prints lines until it is ended.
struct Running {
    process: Reaped,
    lines: Receiver<String>,
    messages: Receiver<String>,
}

fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl Running {
    fn start(scene: &PortScene, args: &[&str], stdin: Stdio) -> Self {
        let mut command = scene.sandbox.netlaunch(&[&["nwfilter"], args].concat());
        command.stdin(stdin);
        let mut process = start(command);
        let lines = read_lines(process.0.stdout.take().unwrap());
        let messages = read_lines(process.0.stderr.take().unwrap());
        Running { process, lines, messages }
    }

    /// Starts to follow vnet0, and returns when the kernel traces it.
    fn follow(scene: &PortScene, args: &[&str]) -> Self {
        let args = [&["explain", "--port", "vnet0", "--follow"], args].concat();
        let running = Running::start(scene, &args, Stdio::null());
        running.message("following the frames of the port vnet0");
        running
    }

    /// Returns the next line.
    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
            panic!("no line came; {:?}", self.messages.try_iter().collect::<Vec<_>>())
        })
    }

    /// Waits for a message with these words.
    fn message(&self, words: &str) {
        let mut all = String::new();
        let found = wait_until(AT_MOST, || {
            all.extend(self.messages.try_iter().map(|line| line + "\n"));
            all.contains(words)
        });
        assert!(found, "{words:?} did not come: {all}");
    }

    /// Waits for the end of the command and returns its status.
    fn status(mut self) -> Option<i32> {
        let mut status = None;
        let ended = wait_until(AT_MOST, || {
            status = self.process.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "the command did not end");
        status.and_then(|status| status.code())
    }
}

/// Whether the kernel has a table that marks frames.
fn has_trace_table(scene: &PortScene) -> bool {
    scene.sh("nft list tables").contains("netlaunch_trace_")
}
