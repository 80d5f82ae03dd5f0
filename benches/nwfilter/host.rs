//! A host with many ports: a network namespace of its own, and a sandbox.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::common::frame::mac_text;
use super::common::{As, Netns, Sandbox, run, text};
use netlaunch::binding::{BindingSettings, Bindings};
use netlaunch::firewall::Backend;
use netlaunch::nwfilter::Binding;

/// A host with ports, and netlaunch on it.
pub struct Host {
    pub netns: Netns,
    pub sandbox: Sandbox,
}

impl Host {
    /// `ports` interfaces, `p0` and so on.
    pub fn new(ports: usize) -> Self {
        let (netns, sandbox) = (Netns::bare(), Sandbox::new(As::Root, None));
        let pairs: String = (0..ports.div_ceil(2))
            .map(|n| format!("link add p{} type veth peer name p{}\n", 2 * n, 2 * n + 1))
            .collect();
        let batch = sandbox.path("batch");
        fs::write(&batch, pairs).unwrap();
        let made = run("ip", &["-n", &netns.name, "-batch", batch.to_str().unwrap()]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let settings = "firewall_backend = \"nftables\"\n";
        fs::write(sandbox.path("config/nwfilter.conf"), settings).unwrap();
        Host { netns, sandbox }
    }

    /// How long a program takes inside, its start included.
    pub fn time(&self, mut command: Command) -> Duration {
        self.netns.inside(|| {
            let begun = Instant::now();
            let output = command.output().unwrap();
            let took = begun.elapsed();
            assert!(output.status.success(), "{}", text(&output.stderr));
            took
        })
    }

    pub fn nft(&self, file: &Path) -> Command {
        let mut command = Command::new("/usr/sbin/nft");
        command.arg("-f").arg(file);
        command
    }

    /// The document that binds a filter to a port.
    pub fn binding(&self, port: &str, filter: &str) -> PathBuf {
        let file = self.sandbox.path(&format!("{port}.xml"));
        fs::write(&file, binding(port, filter)).unwrap();
        file
    }

    /// Runs a verb with an nft in front of nft that keeps what it is fed. Returns that file.
    pub fn captured(&self, args: &[&str]) -> PathBuf {
        let file = self.sandbox.path("captured.nft");
        let script = format!("tee {} | /usr/sbin/nft \"$@\"", file.display());
        let wrapper = self.sandbox.script("nft", &script);
        let mut command = self.sandbox.netlaunch(args);
        command.env("PATH", wrapper.parent().unwrap());
        self.time(command);
        fs::remove_file(wrapper).unwrap();
        file
    }

    /// Binds a filter to many ports, within this process. Returns how long each took.
    pub fn bind_all(&self, ports: std::ops::Range<usize>, filter: &str) -> Vec<Duration> {
        let bindings = Bindings::new(BindingSettings {
            config_dir: self.sandbox.path("config"),
            state_dir: self.sandbox.state(),
            path: Vec::new(),
            firewall_backend: Some(Backend::Nftables),
            enable_trace: false,
            enable_counters: false,
        });
        self.netns.inside(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let one = |n: usize| {
                let begun = Instant::now();
                let binding = Binding::parse(binding(&format!("p{n}"), filter).as_bytes()).unwrap();
                runtime.block_on(bindings.create(&binding)).unwrap();
                begun.elapsed()
            };
            ports.map(one).collect()
        })
    }
}

/// The addresses of the guest behind a port, by the number in the port's name.
pub fn guest(port: &str) -> ([u8; 6], Ipv4Addr) {
    let digits: String = port.chars().filter(char::is_ascii_digit).collect();
    let [.., high, low] = digits.parse::<u32>().unwrap().to_be_bytes();
    ([0x52, 0x54, 0, 0x11, high, low], Ipv4Addr::new(10, 2, high, low))
}

fn binding(port: &str, filter: &str) -> String {
    let (mac, ip) = guest(port);
    format!(
        "<filterbinding><owner><name>bench</name><uuid>7b2f9b5e-1c9f-4c0b-8d57-1f8f0a5d0c11</uuid></owner>\
         <portdev name='{port}'/><mac address='{}'/>\
         <filterref filter='{filter}'><parameter name='IP' value='{ip}'/></filterref></filterbinding>",
        mac_text(mac),
    )
}
