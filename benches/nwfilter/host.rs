//! Makes a host with many ports: a network namespace and a sandbox.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::common::frame::mac_text;
use super::common::{As, Netns, Sandbox, run, text};
use netlaunch::firewall::FirewallBackend;
use netlaunch::nwfilter::Binding;
use netlaunch::nwfilter::port::{BindingSettings, Bindings};

/// A host with ports and netlaunch.
pub struct Host {
    pub netns: Netns,
    pub sandbox: Sandbox,
}

impl Host {
    /// Makes `ports` interfaces `p0`, `p1` and so on, on a bridge.
    pub fn new(ports: usize) -> Self {
        let (netns, sandbox) = (Netns::bare(), Sandbox::new(As::Root, None));
        let pair = |n: usize| {
            let (one, other) = (2 * n, 2 * n + 1);
            format!(
                "link add p{one} type veth peer name p{other}\nlink set p{one} master ports\n\
                 link set p{other} master ports\n"
            )
        };
        let pairs = "link add ports type bridge\n".to_owned()
            + &(0..ports.div_ceil(2)).map(pair).collect::<String>();
        let batch = sandbox.path("batch");
        fs::write(&batch, pairs).unwrap();
        let made = run("ip", &["-n", &netns.name, "-batch", batch.to_str().unwrap()]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let settings = "firewall_backend = \"nftables\"\n";
        fs::write(sandbox.path("config/nwfilter.conf"), settings).unwrap();
        Host { netns, sandbox }
    }

    /// Measures the time of a program in the namespace, including its start.
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

    /// Writes the document that binds a filter to a port, and returns its path.
    pub fn binding(&self, port: &str, filter: &str) -> PathBuf {
        let file = self.sandbox.path(&format!("{port}.xml"));
        fs::write(&file, binding(port, filter)).unwrap();
        file
    }

    /// Runs a netlaunch command with a wrapper for nft that stores nft's input, and returns the
    /// file with the input.
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

    /// Binds a filter to many ports within this process, and returns the time of each bind.
    pub fn bind_all(&self, ports: std::ops::Range<usize>, filter: &str) -> Vec<Duration> {
        let bindings = Bindings::new(BindingSettings {
            config_dir: self.sandbox.path("config"),
            state_dir: self.sandbox.state(),
            path: Vec::new(),
            firewall_backend: Some(FirewallBackend::Nftables),
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

/// Returns the addresses of the guest behind a port, made from the number in the port's name.
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
